#include "e2e/tools/exercise.h"

#include <errno.h>
#include <string.h>

#include <algorithm>
#include <bit>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace dfscsi::exercise {

// SplitMix64.
uint64_t Random::Next() {
  state_ += 0x9e3779b97f4a7c15;
  uint64_t mixed = state_;
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
  mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
  return mixed ^ (mixed >> 31);
}

uint64_t Random::Size(uint64_t bound) {
  if (bound <= 1) return bound;
  const uint64_t most = uint64_t{2} << Below(std::bit_width(bound));
  return 1 + Below(std::min(most, bound));
}

Words::Words(absl::string_view operation) : words_(absl::StrSplit(operation, ' ')) {}

absl::string_view Words::Word(size_t index) const {
  return index < words_.size() ? words_[index] : absl::string_view();
}

uint64_t Words::Number(size_t index) const {
  uint64_t number = 0;
  return absl::SimpleAtoi(Word(index), &number) ? number : 0;
}

absl::Status ErrnoStatus(absl::string_view what) {
  return absl::InternalError(absl::StrCat(what, ": ", ErrnoName(errno)));
}

std::string ErrnoName(int error) {
  if (error == 0) return "0";
  const char* const name = strerrorname_np(error);
  return name == nullptr ? absl::StrCat("errno ", error) : name;
}

}  // namespace dfscsi::exercise
