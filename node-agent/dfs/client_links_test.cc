// Links that lead into other namespaces, and links that change while they are in use.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "node-agent/dfs/client_test_lab.h"

namespace dfscsi::dfs {
namespace {

using smb::wire::Command;
using smb::wire::NtStatus;
using testing::Closing;

constexpr char kWho[] = "//root1/dfs/link/who";

TEST(ClientLinksTest, A11_C21_ALinkIntoAnotherNamespaceFailsOverFromItsOrigin) {
  ClientLab lab;
  lab.AddLink("three", {.targets = {"t3/data", "t2/data"}});
  lab.AddLink("nested", {.targets = {"root2/dfs/three", "t1/data"}});
  EXPECT_EQ(lab.Where("//root1/dfs/nested/who"), "t3");
  lab.servers().Kill("t3");
  EXPECT_EQ(lab.Where("//root1/dfs/nested/who"), "t2");
  lab.servers().Kill("t2");
  EXPECT_EQ(lab.Where("//root1/dfs/nested/who"), "t1");
}

TEST(ClientLinksTest, C21_TheNextTargetMayBeANamespace) {
  ClientLab lab;
  lab.AddLink("three", {.targets = {"t3/data"}});
  lab.AddLink("nested", {.targets = {"t1/data", "root2/dfs/three"}});
  EXPECT_EQ(lab.Where("//root1/dfs/nested/who"), "t1");
  lab.servers().Kill("t1");
  EXPECT_EQ(lab.Where("//root1/dfs/nested/who"), "t3");
}

TEST(ClientLinksTest, C22_TargetsMayHaveOtherPrefixes) {
  ClientLab lab;
  lab.AddLink("base", {.targets = {"t1/data", "t2/data/deep/base"}});
  EXPECT_EQ(lab.Where("//root1/dfs/base/who"), "t1");
  lab.servers().Kill("t1");
  EXPECT_EQ(lab.Where("//root1/dfs/base/who"), "t2");
  const auto& log = lab.servers().server("t2").log();
  EXPECT_TRUE(std::any_of(log.begin(), log.end(),
                          [](const auto& request) { return request.path == "deep/base/who"; }));
}

TEST(ClientLinksTest, A19_A20_G20_LoopsEndInAnErrorAndFewReferrals) {
  ClientLab lab;
  lab.AddLink("self", {.targets = {"root1/dfs/self"}});
  lab.AddLink("a", {.targets = {"root2/dfs/b"}});
  lab.AddLink("b", {.targets = {"root1/dfs/a"}});
  for (const char* name : {"self", "a", "b"}) {
    const int64_t before = lab.counters().referral_requests;
    const CallPtr call = lab.Do(absl::StrCat("//root1/dfs/", name, "/x"));
    EXPECT_EQ(call->Outcome(), "FAILED_PRECONDITION") << name;
    EXPECT_LT(call->took(), absl::Seconds(1));
    EXPECT_LE(lab.counters().referral_requests - before, 16) << name;
  }
}

TEST(ClientLinksTest, A11_EightLinksWorkAndNineAreTooMany) {
  for (const int links : {8, 9}) {
    ClientLab lab;
    for (int i = 1; i < links; ++i) {
      lab.AddLink(absl::StrCat("l", i), {.targets = {absl::StrCat("root2/dfs/l", i + 1)}});
    }
    lab.AddLink(absl::StrCat("l", links), {.targets = {"t1/data"}});
    EXPECT_EQ(lab.Where("//root1/dfs/l1/who"), links == 8 ? "t1" : "FAILED_PRECONDITION");
  }
}

TEST(ClientLinksTest, G22_ARootThatIsNeverCoveredIsAnError) {
  ClientLab lab;
  lab.servers().server("t1").AddRule(
      {.command = Command::kCreate, .action = {.status = NtStatus::kPathNotCovered}});
  lab.AddLink("one", {.targets = {"t1/data"}});
  const CallPtr call = lab.Do("//root1/dfs/one/who");
  EXPECT_EQ(call->Outcome(), "INTERNAL");
  EXPECT_LT(call->took(), absl::Seconds(2));
  for (const char* root : {"root1", "root2"}) {
    lab.servers().server(root).AddRule(
        {.command = Command::kCreate, .action = {.status = NtStatus::kPathNotCovered}});
  }
  EXPECT_NE(lab.Where("//root1/dfs/plain"), "waits");
}

TEST(ClientLinksTest, A16_A17_EmptyAndDanglingLinksAreErrorsAndSiblingsWork) {
  ClientLab lab;
  lab.AddLink("empty", {});
  lab.AddLink("nowhere", {.targets = {"nosuch/data"}});
  lab.AddLink("noshare", {.targets = {"t1/nosuch"}});
  for (const char* name : {"empty", "nowhere", "noshare"}) {
    EXPECT_EQ(lab.Where(absl::StrCat("//root1/dfs/", name, "/who")), "NOT_FOUND") << name;
  }
  EXPECT_EQ(lab.Where(kWho), "t1");
}

// --- Links that change -------------------------------------------------------------------------

ClientOptions ShortTtl() { return {.referral_ttl_min = absl::Seconds(2)}; }

testing::ScriptedReferral Short(std::vector<testing::ScriptedReferral::Target> targets) {
  return {.targets = std::move(targets), .ttl_seconds = 4};
}

TEST(ClientLinksTest, E04_E16_ARetargetedLinkIsLeftWithoutErrors) {
  ClientLab lab(ShortTtl());
  lab.AddLink("link", Short({"t1/data"}));
  ASSERT_EQ(lab.Where(kWho), "t1");
  lab.AddLink("link", Short({"t3/data"}));
  std::string where;
  for (int i = 0; i < 40 && where != "t3"; ++i) {
    where = lab.Where(kWho);
    EXPECT_THAT(where, ::testing::AnyOf("t1", "t3"));
    lab.RunFor(absl::Milliseconds(250));
  }
  EXPECT_EQ(where, "t3");
}

TEST(ClientLinksTest, E05_E08_AReorderedListMovesNothingAndIsFetchedInTheBackground) {
  ClientLab lab(ShortTtl());
  lab.AddLink("link", Short({"t1/data", "t2/data"}));
  ASSERT_EQ(lab.Where(kWho), "t1");
  lab.AddLink("link", Short({"t3/data", "t2/data", "t1/data"}));
  lab.RunFor(absl::Seconds(8));
  EXPECT_EQ(lab.Where(kWho), "t1");
  // The list is fresh at failover, even if the roots die right before.
  lab.servers().Kill("root1");
  lab.servers().Kill("root2");
  lab.servers().Kill("t1");
  EXPECT_EQ(lab.Where(kWho), "t3");
}

TEST(ClientLinksTest, E07_AStaleListIsUsedWhileTheRootsAreDown) {
  ClientLab lab(ShortTtl());
  lab.AddLink("link", Short({"t1/data", "t2/data"}));
  ASSERT_EQ(lab.Where(kWho), "t1");
  lab.servers().PowerOff("root1");
  lab.servers().PowerOff("root2");
  lab.RunFor(absl::Minutes(2));
  EXPECT_EQ(lab.Where(kWho), "t1");
  lab.servers().Kill("t1");
  const CallPtr call = lab.Do(kWho);
  EXPECT_EQ(call->Outcome(), "t2");
  EXPECT_LT(call->took(), absl::Seconds(4));
}

// A link that is not what it was, while operations wait for its frozen target.
struct Reshape {
  const char* name;
  std::function<void(ClientLab&)> change;
  const char* path = "//root1/dfs/link/who";
  const char* then;
};

class ReshapeTest : public ::testing::TestWithParam<Reshape> {};

TEST_P(ReshapeTest, MovesWhatWaitsForTheOldTarget) {
  ClientLab lab(ShortTtl());
  lab.AddLink("three", Short({"t3/data"}));
  lab.AddLink("link", Short({"t1/data"}));
  ASSERT_EQ(lab.Where(kWho), "t1");
  // The old link waits, and the namespace changes under it.
  lab.servers().process("t1").Freeze();
  GetParam().change(lab);
  std::vector<CallPtr> calls;
  for (int i = 0; i < 3; ++i) calls.push_back(lab.Start(GetParam().path));
  for (const CallPtr& call : calls) {
    ASSERT_TRUE(lab.Finish(call, absl::Seconds(20)));
    EXPECT_EQ(call->Outcome(), GetParam().then);
  }
  // And so for who comes later.
  EXPECT_EQ(lab.Where(GetParam().path), GetParam().then);
}

INSTANTIATE_TEST_SUITE_P(
    ClientLinks, ReshapeTest,
    ::testing::ValuesIn(std::vector<Reshape>{
        {.name = "E16_Retargeted",
         .change = [](ClientLab& lab) { lab.AddLink("link", Short({"t2/data"})); },
         .then = "t2"},
        {.name = "BecomesNested",
         .change = [](ClientLab& lab) { lab.AddLink("link", Short({"root2/dfs/three"})); },
         .then = "t3"},
        {.name = "BecomesAFolder",
         .change =
             [](ClientLab& lab) {
               lab.RemoveFromRoots("link");
               for (const char* root : {"root1", "root2"}) {
                 lab.Root(root).AddText("link/who", root);
               }
             },
         .then = "root1"},
        {.name = "BecomesAFolderWithALinkBelow",
         .change =
             [](ClientLab& lab) {
               lab.RemoveFromRoots("link");
               lab.AddLink("link/deep", Short({"t2/data/deep"}));
             },
         .path = "//root1/dfs/link/deep/base/who",
         .then = "t2"},
        {.name = "BecomesANamespaceWithALinkBelow",
         .change =
             [](ClientLab& lab) {
               for (const char* root : {"root1", "root2"}) {
                 testing::ScriptedShare& other = lab.servers().server(root).AddShare("other");
                 other.dfs_root = true;
                 other.AddLink("deep", Short({"t3/data/deep"}));
               }
               lab.AddLink("link", Short({"root2/other"}));
             },
         .path = "//root1/dfs/link/deep/base/who",
         .then = "t3"},
    }),
    [](const auto& info) { return info.param.name; });

// A link that its namespace has no more, or has without targets: nothing new reaches its old
// target, and what is open there stays open while that target is up.
TEST(ClientLinksTest, E06_ALinkThatIsGoneIsLeftByAllButWhatIsOpen) {
  struct How {
    const char* name;
    std::function<void(ClientLab&)> change;
    bool told_by_refresh;
  };
  const How kHows[] = {{"removed", [](ClientLab& lab) { lab.RemoveFromRoots("link"); }, true},
                       {"emptied", [](ClientLab& lab) { lab.AddLink("link", Short({})); }, true},
                       {"found missing",
                        [](ClientLab& lab) {
                          lab.RemoveFromRoots("link");
                          lab.servers().agent().RunNow([&] {
                            lab.client().ForgetLink(*DfsPath::Parse("//root1/dfs/link"));
                          });
                        },
                        false}};
  for (const How& how : kHows) {
    ClientLab lab(ShortTtl());
    lab.AddLink("link", Short({"t1/data", "t2/data"}));
    const CallPtr held = lab.Do(kWho, {.keep_tree = true});
    ASSERT_EQ(held->Outcome(), "t1") << how.name;
    const ClientLab::CallOptions on_held{.run = {.held_epoch = held->epoch}};
    how.change(lab);
    if (how.told_by_refresh) lab.RunFor(absl::Seconds(8));
    for (int look = 0; look < 3; ++look) {
      EXPECT_EQ(lab.Where(kWho), "NOT_FOUND") << how.name;
      const CallPtr call = lab.Do(kWho, on_held);
      EXPECT_EQ(call->Outcome(), "t1") << how.name;
      EXPECT_EQ(call->epoch, held->epoch) << how.name;
      lab.RunFor(absl::Seconds(4));
    }
    // It comes back with another target.
    lab.AddLink("link", Short({"t3/data"}));
    lab.RunFor(absl::Seconds(30));
    EXPECT_EQ(lab.Where(kWho), "t3") << how.name;
  }
}

TEST(ClientLinksTest, E06_WhatIsOpenOnALinkThatIsGoneEndsWithItsTarget) {
  for (const bool hang : {false, true}) {
    ClientLab lab(ShortTtl());
    lab.AddLink("link", Short({"t1/data"}));
    const CallPtr held = lab.Do(kWho, {.keep_tree = true});
    lab.RemoveFromRoots("link");
    lab.RunFor(absl::Seconds(8));
    if (hang) {
      lab.servers().process("t1").Freeze();
    } else {
      lab.servers().Kill("t1");
    }
    const CallPtr call = lab.Do(kWho, {.run = {.held_epoch = held->epoch}}, absl::Seconds(20));
    EXPECT_EQ(call->Outcome(), "NOT_FOUND");
  }
}

// The referral cache is shared: whoever fetches the new list, all are to leave what it does not
// list.
TEST(ClientLinksTest, E04_ATargetIsLeftWhicheverMountSawThatItIsUnlisted) {
  ClientLab lab(ShortTtl());
  lab.AddClient(ShortTtl());
  lab.AddLink("link", Short({"t1/data"}));
  for (const size_t client : {0u, 1u}) {
    ASSERT_EQ(lab.Do(kWho, {.client = client})->Outcome(), "t1");
  }
  lab.AddLink("link", Short({"t3/data"}));
  lab.RunFor(absl::Seconds(8));
  for (const size_t client : {0u, 1u}) {
    EXPECT_EQ(lab.Do(kWho, {.client = client})->Outcome(), "t3") << client;
  }
}

TEST(ClientLinksTest, ALinkThatIsAFolderNowCostsNoResolutionPerOperation) {
  ClientLab lab(ShortTtl());
  lab.AddLink("link", Short({"t1/data"}));
  ASSERT_EQ(lab.Where(kWho), "t1");
  lab.RemoveFromRoots("link");
  for (const char* root : {"root1", "root2"}) lab.Root(root).AddText("link/who", root);
  lab.servers().Kill("t1");
  lab.RunFor(absl::Seconds(10));
  ASSERT_EQ(lab.Where(kWho), "root1");
  EXPECT_EQ(lab.client().ListLinks().size(), 1u);
  EXPECT_EQ(lab.client().GetEpoch(*DfsPath::Parse(kWho)),
            lab.client().GetEpoch(*DfsPath::Parse("//root1/dfs")));
}

}  // namespace
}  // namespace dfscsi::dfs
