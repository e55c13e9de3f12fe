#include "node-agent/agent/mount_difference.h"

#include <algorithm>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "node-agent/agent/mount_options.h"

namespace dfscsi::agent {
namespace {

using Words = std::vector<std::string>;

// The port stands in the source, too, and is compared by itself. What has no effect makes no
// difference, and its value may be anything, so nobody is shown it.
Words WordsOf(const MountPlan& plan) {
  Words words;
  for (const std::string& word : plan.stored.options()) {
    if (!absl::StartsWith(word, "port=") && !HasNoEffect(word)) words.push_back(word);
  }
  return words;
}

std::string OnlyIn(const Words& words, const Words& others) {
  Words only;
  for (const std::string& word : words) {
    if (std::find(others.begin(), others.end(), word) == others.end()) only.push_back(word);
  }
  return absl::StrJoin(only, ",");
}

}  // namespace

std::string DifferenceOf(const MountPlan& there, const MountPlan& asked) {
  Words differences;
  if (!(there.source == asked.source)) {
    differences.push_back(absl::StrCat("not ", asked.source.ToString()));
  }
  if (there.options.smb.port != asked.options.smb.port) {
    differences.push_back(
        absl::StrCat("with port ", there.options.smb.port, ", not ", asked.options.smb.port));
  }
  const Words old_words = WordsOf(there);
  const Words new_words = WordsOf(asked);
  const std::string too_many = OnlyIn(old_words, new_words);
  const std::string missing = OnlyIn(new_words, old_words);
  if (!too_many.empty() && !missing.empty()) {
    differences.push_back(absl::StrCat("with ", too_many, ", not ", missing));
  } else if (!too_many.empty()) {
    differences.push_back(absl::StrCat("with ", too_many));
  } else if (!missing.empty()) {
    differences.push_back(absl::StrCat("without ", missing));
  } else if (old_words != new_words) {  // Of a word that is given twice the last counts.
    differences.push_back("with the same options in another order");
  }
  return absl::StrJoin(differences, "; ");
}

}  // namespace dfscsi::agent
