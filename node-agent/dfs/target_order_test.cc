#include "node-agent/dfs/target_order.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace dfscsi::dfs {
namespace {

const absl::Time kNow = absl::UnixEpoch() + absl::Hours(1);

// One letter per target: '?' unknown, 'u' up for long, 'n' newly up, 'd' down for a while, 'D' down
// for longer, 'r' down and may be tried again, 'x' denied. A '|' starts a set.
struct Case {
  std::string name;
  std::string targets;
  size_t hint;
  std::string want;  // Indices in order; those behind a '/' may not be tried yet.
  bool failback = false, t_bit = false, new_open = true;
  TargetPolicy policy = TargetPolicy::kServerOrder;
  std::vector<int> latency_ms = {};

  friend void PrintTo(const Case& c, std::ostream* os) { *os << c.name; }
};

struct Made {
  ReferralEntry entry;
  std::vector<TargetStatus> health;
  std::vector<uint16_t> candidates;
};

Made Make(const Case& c) {
  Made made{.entry = {.prefix = *DfsPath::Parse("//d/n/l"),
                      .credential = "",
                      .target_failback = c.t_bit,
                      .ttl = {},
                      .expiry = {},
                      .refresh_at = {},
                      .retry_at = {},
                      .hint = c.hint},
            .health = {},
            .candidates = {}};
  bool starts_set = true;
  for (const char letter : c.targets) {
    if (letter == '|') {
      starts_set = true;
      continue;
    }
    const size_t index = made.entry.targets.size();
    made.entry.targets.push_back(
        {*DfsPath::Parse("//t" + std::to_string(index) + "/s"), starts_set});
    starts_set = false;
    TargetStatus status;
    status.since = kNow - (letter == 'n' ? absl::Seconds(3) : absl::Minutes(5));
    status.state = letter == '?'                    ? TargetState::kUnknown
                   : letter == 'u' || letter == 'n' ? TargetState::kUp
                   : letter == 'x'                  ? TargetState::kDenied
                                                    : TargetState::kDown;
    if (letter == 'd') status.not_before = kNow + absl::Seconds(1);
    if (letter == 'D') status.not_before = kNow + absl::Seconds(4);
    if (letter == 'x') status.not_before = kNow + absl::Seconds(50);
    if (letter == 'r') status.not_before = kNow - absl::Seconds(1);
    if (index < c.latency_ms.size()) status.latency = absl::Milliseconds(c.latency_ms[index]);
    made.health.push_back(status);
    made.candidates.push_back(static_cast<uint16_t>(index));
  }
  return made;
}

class TargetOrderTest : public testing::TestWithParam<Case> {};

TEST_P(TargetOrderTest, Orders) {
  const Case& c = GetParam();
  const Made made = Make(c);
  const TargetOrder order =
      OrderTargets(made.entry, made.candidates, made.health,
                   {.policy = c.policy, .failback = c.failback}, c.new_open, kNow);
  std::string got;
  bool later = false;
  for (const OrderedTarget& target : order) {
    if (target.not_before > kNow && !later) {
      got += '/';
      later = true;
    }
    got += std::to_string(target.index);
  }
  EXPECT_EQ(got, c.want);
}

INSTANTIATE_TEST_SUITE_P(TargetOrder, TargetOrderTest,
                         testing::ValuesIn<Case>({
                             {"ServerOrder", "???", 0, "012"},
                             {"HintFirst", "???", 2, "201"},
                             {"C15_StaysAfterFailover", "uu", 1, "10"},
                             {"HintDown", "ud?", 1, "02/1"},
                             {"C11_OnlyTheLastIsUp", "ddu", 0, "2/01"},
                             {"AllDownSoonestFirst", "Dd", 0, "/10"},
                             {"DeniedLast", "xD?", 0, "2/10"},
                             {"MayBeTriedAgainAfterTheGoodOnes", "r?u", 0, "120"},
                             {"MayBeTriedAgainBeforeTheForbidden", "dr", 0, "1/0"},
                             {"SetsInOrder", "??|??", 2, "2013"},
                             {"SetsAreNotMixedByLatency",
                              "??|??",
                              0,
                              "0132",
                              false,
                              false,
                              true,
                              TargetPolicy::kLatency,
                              {9, 5, 3, 1}},
                             {"LatencyInsideASet",
                              "???",
                              0,
                              "021",
                              false,
                              false,
                              true,
                              TargetPolicy::kLatency,
                              {9, 5, 3}},
                             {"UnmeasuredAfterMeasured",
                              "???",
                              0,
                              "021",
                              false,
                              false,
                              true,
                              TargetPolicy::kLatency,
                              {9, 0, 3}},
                             {"C16_FailbackByPolicy", "uu", 1, "01", true},
                             {"C16_NotWithoutPolicy", "uu", 1, "10"},
                             {"C16_NotForOldOpens", "uu", 1, "10", true, false, false},
                             {"C14_NotBeforeTheDwellTime", "nu", 1, "10", true},
                             {"FailbackNeedsATargetKnownToBeUp", "?u", 1, "10", true},
                             {"FailbackToTheBest", "uuu", 2, "012", true},
                             {"C17_TBitGoesBackToTheFirstSet", "uu|uu", 2, "0123", false, true},
                             {"C17_TBitNotInsideASet", "uu|uu", 3, "0132", false, true},
                             {"C17_TBitStaysInItsSet", "uu", 1, "10", false, true},
                             {"C17_FirstSetDown", "dd|uu", 2, "23/01", false, true},
                             {"C17_FirstSetFlapping", "nn|uu", 2, "2013", false, true},
                         }),
                         [](const auto& info) { return info.param.name; });

TEST(TargetOrderTest, OnlyCandidatesAreOrdered) {
  Made made = Make({.name = "", .targets = "????", .hint = 0, .want = ""});
  made.candidates = {3, 1};
  made.health.resize(2);
  const TargetOrder order = OrderTargets(made.entry, made.candidates, made.health, {}, true, kNow);
  ASSERT_EQ(order.size(), 2u);
  EXPECT_EQ(order[0].index, 1);
  EXPECT_EQ(order[1].index, 3);
}

TEST(TargetOrderTest, C17_WhatOneWouldGoBackTo) {
  struct Case {
    const char* targets;
    bool failback, obey_referral, t_bit;
    size_t index, serving;
    bool want;
  };
  for (const Case& c : std::vector<Case>{
           {"uu", true, false, false, 0, 1, true},
           {"uu", true, false, false, 1, 1, false},  // Itself.
           {"uu", true, false, false, 1, 0, false},  // A worse one.
           {"uu", false, true, false, 0, 1, false},  // Nobody asks for it.
           {"uu", false, true, true, 0, 1, false},   // The same set.
           {"u|u", false, true, true, 0, 1, true},
           {"u|u", false, false, true, 0, 1, false},  // The mount says never.
           {"u|u", false, true, false, 0, 1, false},
       }) {
    const Made made = Make({.name = "", .targets = c.targets, .t_bit = c.t_bit});
    EXPECT_EQ(IsBetter(made.entry, c.index, c.serving,
                       {.failback = c.failback, .obey_referral = c.obey_referral}),
              c.want)
        << c.targets << " " << c.index << " " << c.serving;
  }
}

}  // namespace
}  // namespace dfscsi::dfs
