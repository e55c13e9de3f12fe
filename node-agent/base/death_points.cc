#include "node-agent/base/death_points.h"

#include <algorithm>
#include <iterator>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace dfscsi {

absl::Status ArmDeath(std::string_view word) {
  armed_death = {};
  if (word.empty()) return absl::OkStatus();
  const std::string_view name = word.substr(0, word.find(':'));
  uint64_t count = 1;
  if (name.size() != word.size() &&
      (!absl::SimpleAtoi(std::string(word.substr(name.size() + 1)), &count) || count == 0)) {
    return absl::InvalidArgumentError(absl::StrCat("not a count: ", std::string(word)));
  }
  const auto* const found =
      std::find(std::begin(kDeathPointNames) + 1, std::end(kDeathPointNames), name);
  if (found == std::end(kDeathPointNames)) {
    return absl::InvalidArgumentError(absl::StrCat("no such instant: ", std::string(name)));
  }
  armed_death = {static_cast<DeathPoint>(found - std::begin(kDeathPointNames)), count};
  return absl::OkStatus();
}

}  // namespace dfscsi
