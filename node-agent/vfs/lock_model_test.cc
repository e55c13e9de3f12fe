#include "node-agent/vfs/lock_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace dfscsi::vfs {

void PrintTo(const LockRange& range, std::ostream* os) {
  *os << (range.type == LockType::kExclusive ? "w" : "r") << range.first << "-" << range.last;
}

namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr LockType kR = LockType::kShared, kW = LockType::kExclusive, kU = LockType::kNone;

FileLock Lock(uint64_t owner, LockType type, uint64_t first, uint64_t last) {
  return {.type = type, .owner = owner, .first = first, .last = last};
}

// "1w0-9 2r20-29": by owner and place.
std::string Shown(const LockModel& model) {
  std::map<std::pair<uint64_t, uint64_t>, std::string> parts;
  for (const LockModel::Held& held : model.held()) {
    const FileLock& lock = held.lock;
    parts[{lock.owner, lock.first}] =
        absl::StrCat(lock.owner, lock.type == kW ? "w" : "r", lock.first, "-", lock.last);
  }
  std::string text;
  for (const auto& [at, part] : parts) absl::StrAppend(&text, text.empty() ? "" : " ", part);
  return text;
}

TEST(LockModelTest, RangesOfOneOwnerAreMergedSplitAndChangedInPlace) {
  const struct {
    const char* name;
    std::vector<FileLock> steps;
    const char* then;
  } kCases[] = {
      {"neighbours are joined", {Lock(1, kW, 0, 9), Lock(1, kW, 10, 19)}, "1w0-19"},
      {"overlapping ones, too", {Lock(1, kW, 0, 9), Lock(1, kW, 5, 19)}, "1w0-19"},
      {"three become one", {Lock(1, kR, 0, 9), Lock(1, kR, 20, 29), Lock(1, kR, 10, 19)}, "1r0-29"},
      {"not those of two owners", {Lock(1, kR, 0, 9), Lock(2, kR, 10, 19)}, "1r0-9 2r10-19"},
      {"not those of two types", {Lock(1, kR, 0, 9), Lock(1, kW, 10, 19)}, "1r0-9 1w10-19"},
      {"a part is unlocked", {Lock(1, kW, 0, 99), Lock(1, kU, 40, 59)}, "1w0-39 1w60-99"},
      {"the begin is", {Lock(1, kW, 0, 99), Lock(1, kU, 0, 59)}, "1w60-99"},
      {"all of it, and more", {Lock(1, kW, 10, 99), Lock(1, kU, 0, UINT64_MAX)}, ""},
      {"another's is not", {Lock(1, kR, 0, 9), Lock(2, kU, 0, 9)}, "1r0-9"},
      {"a part is made shared", {Lock(1, kW, 0, 99), Lock(1, kR, 0, 49)}, "1r0-49 1w50-99"},
      {"a part is made exclusive",
       {Lock(1, kR, 0, 99), Lock(1, kW, 40, 59)},
       "1r0-39 1w40-59 1r60-99"},
      {"what lies between is",
       {Lock(1, kW, 0, 9), Lock(1, kR, 10, 19), Lock(1, kW, 10, 19)},
       "1w0-19"},
      {"to the end",
       {Lock(1, kW, 10, INT64_MAX), Lock(1, kU, 20, 29)},
       "1w10-19 1w30-9223372036854775807"},
  };
  for (const auto& test : kCases) {
    LockModel model;
    for (const FileLock& step : test.steps) (void)model.Set(step);
    EXPECT_EQ(Shown(model), test.then) << test.name;
  }
}

TEST(LockModelTest, TheFirstThatIsInTheWayIsFound) {
  LockModel model;
  (void)model.Set(Lock(1, kR, 20, 29));
  (void)model.Set(Lock(2, kW, 10, 19));
  FileLock whole = Lock(3, kW, 0, 99);
  ASSERT_NE(model.FindConflict(whole), nullptr);
  EXPECT_EQ(model.FindConflict(whole)->first, 10u);
  EXPECT_EQ(model.FindConflict(Lock(3, kR, 20, 99)), nullptr);
  EXPECT_EQ(model.FindConflict(Lock(2, kW, 0, 19)), nullptr) << "one's own";
  EXPECT_EQ(model.FindConflict(Lock(3, kU, 0, 99)), nullptr);
  whole.kind = LockKind::kWhole;
  EXPECT_EQ(model.FindConflict(whole), nullptr) << "flock and fcntl do not meet here";
}

TEST(LockModelTest, TheServerIsToHoldWhatAllNeedTogether) {
  LockModel model;
  EXPECT_THAT(model.Needed(), IsEmpty());
  (void)model.Set(Lock(1, kR, 0, 19));
  (void)model.Set(Lock(2, kR, 10, 29));
  EXPECT_THAT(model.Needed(), ElementsAre(LockRange{0, 29, kR}));
  FileLock whole = Lock(3, kW, 5, 14);
  whole.kind = LockKind::kWhole;
  EXPECT_THAT(model.NeededWith(whole),
              ElementsAre(LockRange{0, 4, kR}, LockRange{5, 14, kW}, LockRange{15, 29, kR}));
  (void)model.Drop([](const FileLock& lock) { return lock.owner == 1; });
  EXPECT_THAT(model.Needed(), ElementsAre(LockRange{10, 29, kR}));
}

TEST(LockModelTest, OfWhatIsTrueNoLongerTheRecordsAreTold) {
  LockModel model;
  model.Restore(Lock(1, kW, 0, 9), 7);
  model.Restore(Lock(1, kW, 20, 29), 8);
  model.Restore(Lock(2, kW, 40, 49), 9);
  EXPECT_THAT(model.Set(Lock(1, kW, 5, 24)), ::testing::UnorderedElementsAre(7, 8));
  int fresh = 0;
  for (const LockModel::Held& held : model.held()) fresh += held.record.has_value() ? 0 : 1;
  EXPECT_EQ(fresh, 1);
}

// Every byte by itself.
class EachByte {
 public:
  static constexpr uint64_t kBytes = 24;
  bool MayHave(const FileLock& wanted) const {
    for (uint64_t at = wanted.first; at <= wanted.last; ++at) {
      for (const auto& [owner, bytes] : owners_) {
        if (owner == wanted.owner) continue;
        if (bytes[at] == kW || (bytes[at] == kR && wanted.type == kW)) return false;
      }
    }
    return true;
  }
  void Set(const FileLock& wanted) {
    for (uint64_t at = wanted.first; at <= wanted.last; ++at) {
      owners_[wanted.owner][at] = wanted.type;
    }
  }
  LockType Of(uint64_t owner, uint64_t at) const {
    const auto found = owners_.find(owner);
    return found == owners_.end() ? kU : found->second[at];
  }
  LockType Needed(uint64_t at) const {
    LockType most = kU;
    for (const auto& [owner, bytes] : owners_) most = std::max(most, bytes[at]);
    return most;
  }

 private:
  std::map<uint64_t, std::array<LockType, kBytes>> owners_;
};

LockType At(const std::vector<LockRange>& ranges, uint64_t at) {
  for (const LockRange& range : ranges) {
    if (range.first <= at && at <= range.last) return range.type;
  }
  return kU;
}

TEST(LockModelTest, ItIsWhatEveryByteByItselfWouldBe) {
  std::minstd_rand random(1);
  for (int round = 0; round < 200; ++round) {
    LockModel model;
    EachByte bytes;
    for (int step = 0; step < 60; ++step) {
      FileLock wanted = Lock(1 + random() % 3, static_cast<LockType>(random() % 3),
                             random() % EachByte::kBytes, random() % EachByte::kBytes);
      if (wanted.last < wanted.first) std::swap(wanted.first, wanted.last);
      const bool may = wanted.type == kU || bytes.MayHave(wanted);
      ASSERT_EQ(model.FindConflict(wanted) == nullptr, may) << round << "/" << step;
      if (!may) continue;
      const std::vector<LockRange> before = model.NeededWith(wanted);
      (void)model.Set(wanted);
      bytes.Set(wanted);
      const std::vector<LockRange> needed = model.Needed();
      ASSERT_EQ(needed, before);
      for (uint64_t at = 0; at < EachByte::kBytes; ++at) {
        ASSERT_EQ(At(needed, at), bytes.Needed(at)) << round << "/" << step << " at " << at;
        for (uint64_t owner = 1; owner <= 3; ++owner) {
          std::vector<LockRange> own;
          for (const LockModel::Held& held : model.held()) {
            if (held.lock.owner != owner) continue;
            own.push_back({held.lock.first, held.lock.last, held.lock.type});
          }
          ASSERT_EQ(At(own, at), bytes.Of(owner, at)) << round << "/" << step << " at " << at;
        }
      }
    }
  }
}

TEST(LockModelTest, WhatIsNotCovered) {
  const std::vector<LockRange> held = {{10, 19, kW}, {30, 39, kR}};
  EXPECT_THAT(Uncovered({0, 99, kR}, held),
              ElementsAre(LockRange{0, 9, kR}, LockRange{20, 29, kR}, LockRange{40, 99, kR}));
  EXPECT_THAT(Uncovered({0, 99, kW}, held),
              ElementsAre(LockRange{0, 9, kW}, LockRange{20, 99, kW}));
  EXPECT_THAT(Uncovered({12, 15, kW}, held), IsEmpty());
  EXPECT_THAT(Clip(held, {15, 33, kR}), ElementsAre(LockRange{15, 19, kW}, LockRange{30, 33, kR}));
}

}  // namespace
}  // namespace dfscsi::vfs
