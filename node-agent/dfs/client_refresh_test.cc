// What a mount's background refresh may ask, and what it may conclude.

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "node-agent/dfs/client_test_lab.h"

namespace dfscsi::dfs {
namespace {

constexpr uint32_t kShortTtlSeconds = 4;

void MakeShortLived(ClientLab& lab) {
  for (const char* root : {"root1", "root2"}) {
    lab.Root(root).root_referral.ttl_seconds = kShortTtlSeconds;
  }
  lab.AddLink("link", {.targets = {"t1/data", "t2/data"}, .ttl_seconds = kShortTtlSeconds});
}

// t1 is listed no more; how long until the mount has left it.
absl::Duration TimeToLeaveUnlisted(ClientLab& lab) {
  lab.AddLink("link", {.targets = {"t2/data"}, .ttl_seconds = kShortTtlSeconds});
  const absl::Time began = lab.world().now();
  for (int i = 0; i < 120; ++i) {
    lab.RunFor(absl::Seconds(1));
    if (lab.Where("//root1/dfs/link/who") == "t2") return lab.world().now() - began;
  }
  return absl::InfiniteDuration();
}

TEST(ClientRefreshTest, EntriesOfAnotherAccountTakeNobodysTurn) {
  ClientLab lab({.referral_ttl_min = absl::Seconds(2)});
  MakeShortLived(lab);
  EXPECT_EQ(lab.Where("//root1/dfs/link/who"), "t1");
  lab.servers().agent().RunNow([&] {
    const absl::Time now = runtime::Loop::Current().Now();
    const TtlLimits limits{.min = absl::Seconds(2), .max = absl::Seconds(2)};
    for (int i = 0; i < 8; ++i) {
      const DfsPath path = *DfsPath::Parse(absl::StrCat("//root1/dfs/old", i));
      Referral referral;
      referral.consumed_components = 3;
      referral.ttl = absl::Seconds(2);
      referral.targets.push_back({.path = *DfsPath::Parse("//t1/data")});
      lab.cache().Put(path, "another account", referral, limits, now, 0);
      (void)lab.cache().Get(path, "another account", now);  // In use, once.
    }
  });
  EXPECT_LT(TimeToLeaveUnlisted(lab), absl::Seconds(10));
}

TEST(ClientRefreshTest, AMountThatMayNotAskHoldsUpNobodyWhoMay) {
  ClientLab lab({.referral_ttl_min = absl::Seconds(2)});
  MakeShortLived(lab);
  // The same account; looks more often, so that it is always first.
  lab.AddClient({.referral_ttl_min = absl::Milliseconds(800), .allowed_targets = {"t3"}},
                "//t3/data");
  EXPECT_EQ(lab.Where("//root1/dfs/link/who"), "t1");
  EXPECT_LT(TimeToLeaveUnlisted(lab), absl::Seconds(10));
}

TEST(ClientRefreshTest, AFlushWhileTheRootsAreDeadMovesNobody) {
  ClientLab lab({.referral_ttl_min = absl::Seconds(2)});
  MakeShortLived(lab);
  const CallPtr first = lab.Do("//root1/dfs/link/who");
  EXPECT_EQ(first->Outcome(), "t1");
  for (const char* root : {"root1", "root2"}) lab.servers().PowerOff(root);
  for (int i = 0; i < 40; ++i) {  // Refreshes are under way all the time.
    lab.RunFor(absl::Milliseconds(700));
    lab.servers().agent().RunNow([&] { (void)lab.cache().Flush(); });
  }
  const CallPtr call = lab.Do("//root1/dfs/link/who", {}, absl::Seconds(30));
  EXPECT_EQ(call->Outcome(), "t1");
  EXPECT_EQ(call->epoch, first->epoch);
}

TEST(ClientRefreshTest, ManyLinksAskDeadRootsForTenConnectionsASecondAtMost) {
  constexpr int kLinks = 200;
  ClientLab lab({.referral_ttl_min = absl::Seconds(2)});
  for (int i = 0; i < kLinks; ++i) {
    lab.AddLink(absl::StrCat("l", i),
                {.targets = {"t1/data", "t2/data"}, .ttl_seconds = kShortTtlSeconds});
    EXPECT_EQ(lab.Where(absl::StrCat("//root1/dfs/l", i, "/who")), "t1");
  }
  lab.servers().Kill("root1");
  lab.servers().Kill("root2");
  lab.RunFor(absl::Seconds(30));
  for (const char* target : {"t1", "t2"}) {
    lab.servers().Kill(target);
    for (int i = 0; i < kLinks; ++i) lab.Start(absl::StrCat("//root1/dfs/l", i, "/who"));
    lab.RunFor(absl::Seconds(30));
  }
  for (const char* host : {"root1", "root2", "t1", "t2"}) {
    EXPECT_LE(lab.MostConnectsInASecond(host), TargetHealthTable::kConnectsPerSecond) << host;
  }
}

// --- Dead roots, and those who can go on without them

constexpr int kManyLinks = 200;
std::string PathOfLink(int i) { return absl::StrCat("//root1/dfs/l", i, "/who"); }

// Many links, used once, of which nothing but what is cached is known from here on.
void UseManyLinks(ClientLab& lab) {
  for (int i = 0; i < kManyLinks; ++i) {
    lab.AddLink(absl::StrCat("l", i),
                {.targets = {"t1/data", "t2/data"}, .ttl_seconds = kShortTtlSeconds});
    EXPECT_EQ(lab.Where(PathOfLink(i)), "t1");
  }
}

void StopRoots(ClientLab& lab, bool silent) {
  for (const char* root : {"root1", "root2"}) {
    if (silent) {
      lab.servers().PowerOff(root);
    } else {
      lab.servers().Kill(root);
    }
  }
}

// All links are used at once: how long the slowest operation took.
absl::Duration SlowestOfAll(ClientLab& lab, size_t client, absl::string_view target) {
  std::vector<CallPtr> calls;
  for (int i = 0; i < kManyLinks; ++i) {
    calls.push_back(lab.Start(PathOfLink(i), {.client = client}));
  }
  absl::Duration slowest;
  for (const CallPtr& call : calls) {
    lab.Finish(call);
    EXPECT_EQ(call->Outcome(), target);
    slowest = std::max(slowest, call->took());
  }
  return slowest;
}

TargetHealthTable::Listed HealthOf(ClientLab& lab, absl::string_view target) {
  for (TargetHealthTable::Listed& listed : lab.health().List()) {
    if (listed.target == target && !listed.credential.empty()) return listed;
  }
  return {};
}

TEST(DeadRootTest, HoldsUpNoOperationWhoseReferralIsCached) {
  for (const bool silent : {false, true}) {
    for (const int seconds : {10, 30, 31, 32, 33}) {
      ClientLab lab({.referral_ttl_min = absl::Seconds(2)});
      UseManyLinks(lab);
      StopRoots(lab, silent);
      lab.RunFor(absl::Seconds(seconds));  // All is stale, and refreshes are under way.
      // An agent that takes over has bound nothing.
      lab.AddClient({.referral_ttl_min = absl::Seconds(2)});
      EXPECT_LT(SlowestOfAll(lab, 1, "t1"), absl::Milliseconds(100)) << silent << seconds;
      lab.servers().Kill("t1");
      EXPECT_LT(SlowestOfAll(lab, 1, "t2"), absl::Milliseconds(100)) << silent << seconds;
    }
  }
}

// Nobody has found out yet: who is first gives it a second, and nobody waits behind others.
TEST(DeadRootTest, ThatNobodyKnowsOfHoldsUpForASecondAtMost) {
  ClientLab lab;
  UseManyLinks(lab);
  lab.AddClient({});
  StopRoots(lab, /*silent=*/true);
  lab.servers().agent().RunNow([&] { (void)lab.cache().Flush(); });
  EXPECT_LT(SlowestOfAll(lab, 1, "t1"), absl::Milliseconds(1100));
}

TEST(DeadRootTest, IsKnownAndBackedOffFrom) {
  for (const bool silent : {false, true}) {
    ClientLab lab({.referral_ttl_min = absl::Seconds(2)});
    UseManyLinks(lab);
    StopRoots(lab, silent);
    lab.RunFor(absl::Seconds(30));
    EXPECT_EQ(HealthOf(lab, "//root1").status.state, TargetState::kDown);
    const int before = lab.Connects("root1") + lab.Connects("root2");
    lab.RunFor(absl::Seconds(60));
    EXPECT_LE(lab.Connects("root1") + lab.Connects("root2") - before, 2 * 60 / 3);
    // Once they are back, what they say counts again.
    for (int i = 0; i < kManyLinks; ++i) {
      lab.AddLink(absl::StrCat("l", i), {.targets = {"t3/data"}, .ttl_seconds = kShortTtlSeconds});
    }
    for (const char* root : {"root1", "root2"}) lab.servers().Start(root);
    lab.RunFor(absl::Seconds(15));
    EXPECT_EQ(HealthOf(lab, "//root1").status.state, TargetState::kUp);
    for (const int i : {0, kManyLinks / 2, kManyLinks - 1}) {
      EXPECT_EQ(lab.Where(PathOfLink(i)), "t3") << i;
    }
  }
}

// A target, or a root, that waits for its turn, which the one before it makes needless.
TEST(ClientRefreshTest, WhoIsNotNeededTakesNobodysTurnToConnect) {
  ClientLab lab;
  UseManyLinks(lab);
  for (const char* host : {"//t2", "//root2"}) {
    EXPECT_EQ(HealthOf(lab, host).counters.connects, 0) << host;
  }
  EXPECT_EQ(HealthOf(lab, "//t1").counters.connects, 1);
}

// One finds that the namespace has the link no more while another still binds it.
TEST(ClientRefreshTest, ALinkThatSomebodyBindsIsNotForgotten) {
  ClientLab lab;
  lab.AddLink("link", {.targets = {"t1/data"}});
  EXPECT_EQ(lab.Where("//root1/dfs/plain"), "root1");
  lab.servers().server("t1").AddRule(
      {.command = smb::wire::Command::kTreeConnect, .action = {.delay = absl::Milliseconds(800)}});
  const CallPtr binds = lab.Start("//root1/dfs/link/who");
  lab.RunFor(absl::Milliseconds(400));
  ASSERT_FALSE(binds->done);
  lab.RemoveFromRoots("link");
  lab.servers().agent().RunNow([&] { (void)lab.cache().Flush(); });
  lab.Do("//root1/dfs/link/who", {}, absl::Milliseconds(200));
  ASSERT_TRUE(lab.Finish(binds));
  EXPECT_EQ(binds->Outcome(), "t1");
  // What serves is known, and so can be left.
  std::vector<Client::BoundLink> links;
  lab.servers().agent().RunNow([&] { links = lab.client().ListLinks(); });
  EXPECT_TRUE(std::any_of(links.begin(), links.end(), [](const Client::BoundLink& link) {
    return link.bound && absl::StrContains(link.target, "t1");
  }));
}

TEST(ClientRefreshTest, ALogOnThatWasInterruptedIsRepeatedAndBlamesNobody) {
  ClientLab lab;
  int interruptions = 0;
  lab.servers().authenticators().set_failure([&](const std::string& host) {
    return host == "t1" && interruptions++ < 2 ? smb::LogOnInterruptedError() : absl::OkStatus();
  });
  EXPECT_EQ(lab.Where("//root1/dfs/link/who"), "t1");
  EXPECT_EQ(interruptions, 3);
}

}  // namespace
}  // namespace dfscsi::dfs
