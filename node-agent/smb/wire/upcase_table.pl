#!/usr/bin/perl
# Prints upcase_table.inc: simple upper case of UTF-16 units as Windows file systems fold them.
# Taken: the simple upper case of every unit outside ASCII whose upper case folds back to it, title
# case letters, and final sigma. Not taken, as on NTFS: mappings that would let another letter equal
# an ASCII one (dotless i, long s) or a letter of another script (micro sign).
use strict;
use warnings;
use Unicode::UCD qw(charinfo);

my @pairs;
for my $unit (0x61 .. 0xFFFF) {
  next if $unit >= 0xD800 && $unit <= 0xF8FF;
  my $char = charinfo($unit) or next;
  next if $char->{upper} eq '';
  my $upper = hex $char->{upper};
  next if $upper > 0xFFFF;
  my $lower_of_upper = charinfo($upper)->{lower};
  my $round_trip = $lower_of_upper ne '' && hex($lower_of_upper) == $unit;
  next unless $round_trip || $char->{category} eq 'Lt' || $unit == 0x03C2;
  push @pairs, [$unit, $upper - $unit];
}

# Runs of one distance between unit and upper case, each unit or every second one.
my @runs;
for my $pair (@pairs) {
  my ($unit, $delta) = @$pair;
  my $run = $runs[-1];
  if ($run && $run->{delta} == $delta) {
    my $gap = $unit - $run->{last};
    if ($gap <= 2 && ($run->{step} == 0 || $run->{step} == $gap)) {
      $run->{step} = $gap;
      $run->{last} = $unit;
      next;
    }
  }
  push @runs, {first => $unit, last => $unit, step => 0, delta => $delta};
}

print "// First unit, last unit, step, distance to the upper case. Made by upcase_table.pl from\n";
printf "// Unicode %s; sorted.\n\n", Unicode::UCD::UnicodeVersion();
printf "{0x%04X, 0x%04X, %d, %d},\n", $_->{first}, $_->{last}, $_->{step} || 1, $_->{delta} for @runs;
