#include "node-agent/dfs/resolver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <string>
#include <vector>

#include "node-agent/dfs/allocation_count.h"
#include "node-agent/dfs/fake_namespace.h"

namespace dfscsi::dfs {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

DfsPath P(absl::string_view text) {
  absl::StatusOr<DfsPath> path = DfsPath::Parse(text);
  EXPECT_TRUE(path.ok()) << path.status();
  return *std::move(path);
}

// The lab's namespaces: two roots, three targets, links of every kind.
class ResolverTest : public testing::Test {
 protected:
  ResolverTest() {
    for (const std::string name : {"t1", "t2", "t3"}) world_.hosts[name].shares["share"];
    FakeShare& root1 = Root("root1");
    root1.links = {
        {"single", {{"t1/share"}}},
        {"two", {{"t1/share", "t2/share"}}},
        {"three", {{"t1/share", "t2/share", "t3/share"}}},
        {"below", {{"t1/share/sub/deep"}}},
        {"nested", {{"root2/dfs"}}},
        {"nestlink", {{"root2/dfs/inner"}}},
        {"dangling", {{"nosuchhost/share"}}},
        {"noshare", {{"t1/nosuchshare"}}},
        {"halfdead", {{"nosuchhost/share", "t2/share"}}},
        {"loop", {{"root1/dfs/loop"}}},
        {"pingpong", {{"root2/dfs/pingpong"}}},
        {"plain-dir/deeplink", {{"t3/share"}}},
        {"empty", {}},
        {"broken", {{"nobackslash"}}},
        {"up", {{"root1/dfs"}}},
    };
    FakeShare& root2 = Root("root2");
    root2.links = {{"inner", {{"t2/share", "t3/share"}}}, {"pingpong", {{"root1/dfs/pingpong"}}}};
  }

  FakeShare& Root(const std::string& host) {
    FakeShare& share = world_.hosts[host].shares["dfs"];
    share.namespace_root = true;
    return share;
  }

  FakeWorld::Result Run(absl::string_view path, absl::string_view credential = "user") {
    world_.requests.clear();
    world_.attempts.clear();
    return world_.Run(resolver_, cache_, P(path), now_, credential);
  }
  std::string Location(absl::string_view path) { return Run(path).location; }
  int ErrnoFor(absl::string_view path) {
    const FakeWorld::Result result = Run(path);
    EXPECT_EQ(result.location, "");
    return result.error_number;
  }

  absl::Time now_ = absl::UnixEpoch() + absl::Hours(1);
  FakeWorld world_;
  ReferralCache cache_;
  DomainCache domains_;
  Resolver resolver_{cache_, domains_, {}};
};

struct LabCase {
  std::string name;
  std::string path;
  std::string want;  // Where the path is served; empty: `error`.
  int error = 0;
  size_t link_components = 0;

  friend void PrintTo(const LabCase& c, std::ostream* os) { *os << c.name; }
};

class LabTest : public ResolverTest, public testing::WithParamInterface<LabCase> {};

// Each case cold, warm (nothing on the wire but the open), and by a client that goes by
// SHARE_CAP_DFS instead of by PATH_NOT_COVERED.
TEST_P(LabTest, ResolvesColdAndWarm) {
  const LabCase& c = GetParam();
  for (const bool eager : {false, true}) {
    world_.eager = eager;
    cache_.Flush();
    const FakeWorld::Result cold = Run(c.path);
    EXPECT_EQ(cold.location, c.want);
    EXPECT_EQ(cold.error_number, c.error);
    EXPECT_LE(world_.requests.size(), 16u);
    if (c.error == 0) {
      EXPECT_EQ(cold.link_components, c.link_components);
    }
    const FakeWorld::Result warm = Run(c.path);
    EXPECT_EQ(warm.location, c.want);
    EXPECT_EQ(warm.error_number, c.error);
    EXPECT_EQ(warm.link_components, cold.link_components);
    if (c.error == 0) {
      EXPECT_THAT(world_.requests, IsEmpty());  // E01
      EXPECT_THAT(world_.attempts, ElementsAre(c.want));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Resolver, LabTest,
    testing::ValuesIn<LabCase>({
        {"A01_PlainShare", "//t1/share/x", "//t1/share/x", 0, 2},
        {"A03_Root", "//root1/dfs", "//root1/dfs", 0, 2},
        {"A03_FileInTheRoot", "//root1/dfs/readme.txt", "//root1/dfs/readme.txt", 0, 2},
        {"A04_Link", "//root1/dfs/single", "//t1/share", 0, 3},
        {"A05_BelowALink", "//root1/dfs/two/sub/dir", "//t1/share/sub/dir", 0, 3},
        {"A06_LinkBelowADirectory", "//root1/dfs/plain-dir/deeplink/sub", "//t3/share/sub", 0, 4},
        {"A06_BesideThatLink", "//root1/dfs/plain-dir/other", "//root1/dfs/plain-dir/other", 0, 2},
        {"A07_TargetBelowAShare", "//root1/dfs/below/leaf", "//t1/share/sub/deep/leaf", 0, 3},
        {"A13_NestedRoot", "//root1/dfs/nested", "//root2/dfs", 0, 3},
        {"A13_FileInANestedRoot", "//root1/dfs/nested/readme", "//root2/dfs/readme", 0, 3},
        {"A13_LinkInANestedRoot", "//root1/dfs/nested/inner/x", "//t2/share/x", 0, 4},
        {"A13_TargetIsALink", "//root1/dfs/nestlink/x", "//t2/share/x", 0, 3},
        {"A16_EmptyLink", "//root1/dfs/empty/x", "", ENOENT},
        {"A17_NoSuchHost", "//root1/dfs/dangling/x", "", ENOENT},
        {"A17_NoSuchShare", "//root1/dfs/noshare", "", ENOENT},
        {"A17_HalfDead", "//root1/dfs/halfdead/x", "//t2/share/x", 0, 3},
        {"A18_BrokenLinkText", "//root1/dfs/broken/x", "", EIO},
        {"A19_PingPong", "//root1/dfs/pingpong/x", "", ELOOP},
        {"A20_LinkToItself", "//root1/dfs/loop", "", ELOOP},
        {"A21_LinkToItsRoot", "//root1/dfs/up/up/readme", "//root1/dfs/readme", 0, 4},
        {"A21_LinkToItsRootAndOn", "//root1/dfs/up/up/two/x", "//t1/share/x", 0, 5},
        {"A21_TooDeep", "//root1/dfs/up/up/up/up/up/up/up/up/up/x", "", ELOOP},
        {"A23_OtherCase", "//ROOT1/Dfs/SINGLE/x", "//t1/share/x", 0, 3},
    }),
    [](const auto& info) { return info.param.name; });

TEST_F(ResolverTest, A02_NoDfsServiceIsAPlainShare) {
  world_.hosts["t1"].dfs = false;
  const FakeWorld::Result result = Run("//t1/share/x");
  EXPECT_TRUE(result.plain);
  EXPECT_THAT(world_.requests, SizeIs(1));
  Run("//t1/share/other");
  EXPECT_THAT(world_.requests, IsEmpty());
}

TEST_F(ResolverTest, A08_ATargetWithoutThePathIsPassedOver) {
  world_.hosts["t1"].shares["share"].missing = {""};
  EXPECT_EQ(Location("//root1/dfs/two"), "//t2/share");
}

TEST_F(ResolverTest, A09_APathThatNoTargetHasIsENOENT) {
  world_.hosts["t1"].shares["share"].missing = {""};
  world_.hosts["t2"].shares["share"].missing = {""};
  EXPECT_EQ(ErrnoFor("//root1/dfs/two"), ENOENT);
  EXPECT_FALSE(Run("//root1/dfs/two").worth_waiting);
}

TEST_F(ResolverTest, A10_OneLinkReferralForAsManyAccessesAsThereAre) {
  Location("//root1/dfs");
  Location("//root1/dfs/two/a");
  EXPECT_THAT(world_.requests, ElementsAre("LINK root1 //root1/dfs/two/a"));
  EXPECT_THAT(world_.attempts, ElementsAre("//root1/dfs/two/a", "//t1/share/a"));
  Location("//root1/dfs/two/b/c/d");
  EXPECT_THAT(world_.requests, IsEmpty());
}

// A11: link i of root i leads to link i + 1 of root i + 1; the last one to a file server.
void Chain(FakeWorld& world, int links) {
  for (int i = 1; i <= links; ++i) {
    FakeShare& share = world.hosts["r" + std::to_string(i)].shares["dfs"];
    share.namespace_root = true;
    const std::string next = "r" + std::to_string(i + 1) + "/dfs/l";
    share.links["l"] = {{i == links ? "t1/share" : next}};
  }
}

TEST_F(ResolverTest, A11_EightNestedLinksWork) {
  for (const int links : {2, 3, 8}) {
    Chain(world_, links);
    cache_.Flush();
    EXPECT_EQ(Location("//r1/dfs/l/x"), "//t1/share/x") << links;
    EXPECT_EQ(Location("//r1/dfs/l/y"), "//t1/share/y") << links;
    EXPECT_THAT(world_.requests, IsEmpty());
    EXPECT_THAT(world_.attempts, SizeIs(1));
  }
}

TEST_F(ResolverTest, A11_NineAreALoop) {
  Chain(world_, 9);
  EXPECT_EQ(ErrnoFor("//r1/dfs/l/x"), ELOOP);
  EXPECT_EQ(ErrnoFor("//r1/dfs/l/x"), ELOOP);
}

TEST_F(ResolverTest, G20_AnEndlessChainOfReferralsEnds) {
  Chain(world_, 100);
  EXPECT_EQ(ErrnoFor("//r1/dfs/l/x"), ELOOP);
  EXPECT_LE(world_.requests.size(), 2 * kMaxLinks + 1);
}

TEST_F(ResolverTest, G20_ManyTargetsPerLevelDoNotMultiply) {
  // Eight levels of eight dead ends each would be sixteen million.
  for (int level = 1; level <= 8; ++level) {
    FakeShare& share = world_.hosts["m" + std::to_string(level)].shares["dfs"];
    share.namespace_root = true;
    FakeLink link;
    for (int i = 0; i < 8; ++i) {
      link.targets.push_back("m" + std::to_string(level + 1) + "/dfs/l/" + std::to_string(i));
    }
    share.links["l"] = link;
  }
  const FakeWorld::Result result = Run("//m1/dfs/l");
  EXPECT_EQ(result.location, "");
  EXPECT_LE(world_.requests.size() + world_.attempts.size(), 250u);
}

TEST_F(ResolverTest, G22_AServerThatCoversNothing) {
  Root("r9").covers_nothing = true;
  EXPECT_EQ(ErrnoFor("//r9/dfs/x"), ENOENT);
  Root("r9").links["x"] = {{"r9/dfs"}};
  EXPECT_EQ(ErrnoFor("//r9/dfs/x"), ENOENT);  // Negative entry.
  now_ += absl::Seconds(10);
  EXPECT_THAT(ErrnoFor("//r9/dfs/x"), testing::AnyOf(EIO, ELOOP));
  world_.hosts["t9"].shares["share"].covers_nothing = true;
  EXPECT_EQ(ErrnoFor("//t9/share/x"), EIO);
}

TEST_F(ResolverTest, A12_AnAnnouncedInterlinkIsEnteredAtOnce) {
  Root("root1").links["inter"] = {{"root2/dfs"}, /*interlink=*/true};
  EXPECT_EQ(Location("//root1/dfs/inter/inner/x"), "//t2/share/x");
  EXPECT_THAT(world_.requests,
              ElementsAre("ROOT root1 //root1/dfs", "LINK root1 //root1/dfs/inter/inner/x",
                          "ROOT root2 //root2/dfs", "LINK root2 //root2/dfs/inner/x"));
}

TEST_F(ResolverTest, A12_AnAnnouncedInterlinkThatIsNoneIsPlain) {
  Root("root1").links["inter"] = {{"t1/share"}, /*interlink=*/true};
  EXPECT_EQ(Location("//root1/dfs/inter/x"), "//t1/share/x");
  EXPECT_EQ(Location("//root1/dfs/inter/y"), "//t1/share/y");
  EXPECT_THAT(world_.requests, IsEmpty());
}

TEST_F(ResolverTest, ALinkTargetThatCoversNotAndIsNoNamespaceFails) {
  // [MS-DFSC] 3.1.5.1: at a link target the request fails; at another target it may do.
  world_.hosts["t1"].shares["share"].covers_nothing = true;
  EXPECT_EQ(ErrnoFor("//root1/dfs/single/x"), EIO);
  EXPECT_EQ(Location("//root1/dfs/two/x"), "//t2/share/x");
}

TEST_F(ResolverTest, A14_AShareThatRefersElsewhereAsAWhole) {
  world_.hosts["root1"].shares["proxy"].proxy = {{"t1/share", "t2/share"}};
  EXPECT_EQ(Location("//root1/proxy/x"), "//t1/share/x");
  EXPECT_THAT(world_.requests, ElementsAre("ROOT root1 //root1/proxy"));
  EXPECT_THAT(world_.attempts, ElementsAre("//t1/share/x"));  // No tree connect on root1.
  now_ += absl::Hours(1);
  EXPECT_EQ(Location("//root1/proxy/x"), "//t1/share/x");
  EXPECT_THAT(world_.requests, ElementsAre("ROOT root1 //root1/proxy"));
}

TEST_F(ResolverTest, A25_UnicodeLinkNames) {
  Root("root1").links["ünïcødé-链接/😀"] = {{"t2/share"}};
  EXPECT_EQ(Location("//root1/dfs/ünïcødé-链接/😀/x"), "//t2/share/x");
}

TEST_F(ResolverTest, A29_IpcIsNeverDfs) {
  world_.hosts["t1"].shares["ipc$"];
  EXPECT_TRUE(Run("//t1/IPC$").plain);
  EXPECT_THAT(world_.requests, IsEmpty());
}

// --- Failover ---

TEST_F(ResolverTest, C11_TheFirstTargetInOrderThatIsUp) {
  for (int down = 0; down < 8; ++down) {
    cache_.Flush();
    std::string want;
    for (int t = 2; t >= 0; --t) {
      const std::string name = "t" + std::to_string(t + 1);
      world_.hosts[name].up = (down & (1 << t)) == 0;
      if (world_.hosts[name].up) want = "//" + name + "/share/x";
    }
    const FakeWorld::Result result = Run("//root1/dfs/three/x");
    EXPECT_EQ(result.location, want);
    EXPECT_EQ(result.error_number, want.empty() ? EHOSTDOWN : 0);
    EXPECT_EQ(result.worth_waiting, want.empty());
  }
}

TEST_F(ResolverTest, C15_TheTargetThatWorkedIsTriedFirst) {
  world_.hosts["t1"].up = false;
  EXPECT_EQ(Location("//root1/dfs/two/x"), "//t2/share/x");
  world_.hosts["t1"].up = true;
  EXPECT_EQ(Location("//root1/dfs/two/x"), "//t2/share/x");
  EXPECT_THAT(world_.attempts, SizeIs(1));
}

TEST_F(ResolverTest, C18_ADeadRootDoesNotMatterToCachedLinks) {
  Location("//root1/dfs/two/x");
  world_.hosts["root1"].up = false;
  EXPECT_EQ(Location("//root1/dfs/two/y"), "//t1/share/y");
  EXPECT_THAT(world_.requests, IsEmpty());
}

TEST_F(ResolverTest, C19_RootAndTargetDeadTogether) {
  Location("//root1/dfs/two/x");
  world_.hosts["root1"].up = false;
  world_.hosts["t1"].up = false;
  EXPECT_EQ(Location("//root1/dfs/two/x"), "//t2/share/x");
  EXPECT_THAT(world_.requests, IsEmpty());
}

TEST_F(ResolverTest, C20_TheNextRootTargetAnswers) {
  Root("root1").root_targets = {"root1/dfs", "root3/dfs"};
  Root("root3") = Root("root1");
  Location("//root1/dfs/readme");
  world_.hosts["root1"].up = false;
  EXPECT_EQ(Location("//root1/dfs/two/x"), "//t1/share/x");
  EXPECT_THAT(world_.requests,
              ElementsAre("LINK root1 //root1/dfs/two/x", "LINK root3 //root1/dfs/two/x"));
  EXPECT_EQ(Location("//root1/dfs/single/x"), "//t1/share/x");  // root3 is TargetHint now.
  EXPECT_THAT(world_.requests, ElementsAre("LINK root3 //root1/dfs/single/x"));
}

TEST_F(ResolverTest, B06_TheRootItselfFailsOver) {
  Root("root1").root_targets = {"root1/dfs", "root3/dfs"};
  Root("root3") = Root("root1");
  Location("//root1/dfs/readme");
  world_.hosts["root1"].up = false;
  EXPECT_EQ(Location("//root1/dfs/readme"), "//root3/dfs/readme");
}

TEST_F(ResolverTest, C21_FailoverIntoANestedNamespace) {
  Root("root1").links["mixed"] = {{"t1/share", "root2/dfs/inner"}};
  EXPECT_EQ(Location("//root1/dfs/mixed/x"), "//t1/share/x");
  world_.hosts["t1"].up = false;
  EXPECT_EQ(Location("//root1/dfs/mixed/x"), "//t2/share/x");
  world_.hosts["t2"].up = false;
  EXPECT_EQ(Location("//root1/dfs/mixed/x"), "//t3/share/x");
  world_.hosts["t3"].up = false;
  EXPECT_TRUE(Run("//root1/dfs/mixed/x").worth_waiting);
  world_.hosts["t1"].up = true;
  EXPECT_EQ(Location("//root1/dfs/mixed/x"), "//t1/share/x");
}

TEST_F(ResolverTest, C21_ADeadNestedNamespaceIsLeftForTheNextTarget) {
  Root("root1").links["mixed"] = {{"root2/dfs/inner", "t1/share"}};
  EXPECT_EQ(Location("//root1/dfs/mixed/x"), "//t2/share/x");
  world_.hosts["t2"].up = world_.hosts["t3"].up = false;
  EXPECT_EQ(Location("//root1/dfs/mixed/x"), "//t1/share/x");
  cache_.Flush();
  world_.hosts["root2"].up = false;
  EXPECT_EQ(Location("//root1/dfs/mixed/x"), "//t1/share/x");
}

TEST_F(ResolverTest, C22_TargetsWithDifferentPrefixes) {
  Root("root1").links["bases"] = {{"t1/share/a", "t2/share/other/base"}};
  EXPECT_EQ(Location("//root1/dfs/bases/x/y"), "//t1/share/a/x/y");
  world_.hosts["t1"].up = false;
  EXPECT_EQ(Location("//root1/dfs/bases/x/y"), "//t2/share/other/base/x/y");
}

TEST_F(ResolverTest, F01_ADeniedTargetIsPassedOver) {
  world_.hosts["t1"].denies = true;
  EXPECT_EQ(Location("//root1/dfs/two/x"), "//t2/share/x");
}

TEST_F(ResolverTest, F02_AllDeniedIsEACCES) {
  world_.hosts["t1"].denies = world_.hosts["t2"].denies = true;
  const FakeWorld::Result result = Run("//root1/dfs/two/x");
  EXPECT_EQ(result.error_number, EACCES);
  EXPECT_FALSE(result.worth_waiting);
}

TEST_F(ResolverTest, ALinkWhoseTargetsDoNotExistIsDangling) {
  world_.hosts["t1"].shares.erase("share");
  world_.hosts["t2"].shares.erase("share");
  FakeWorld::Result result = Run("//root1/dfs/two/x");
  EXPECT_EQ(result.error_number, ENOENT);
  EXPECT_TRUE(result.dangling);
  // One that is down may have the path.
  world_.hosts["t2"].up = false;
  result = Run("//root1/dfs/two/x");
  EXPECT_TRUE(result.worth_waiting);
  EXPECT_FALSE(result.dangling);
  // What does not exist in the namespace is no link.
  EXPECT_FALSE(Run("//nosuchhost/dfs").dangling);
}

TEST_F(ResolverTest, TargetsThatAreHeldBackAreLeftOut) {
  Root("root1").links["mixed"] = {{"root2/dfs/inner", "t1/share"}};
  EXPECT_EQ(Location("//root1/dfs/mixed/x"), "//t2/share/x");
  world_.held_back = {{"//t2/share", FailureClass::kTransport},
                      {"//t3/share", FailureClass::kMissing}};
  // The nested namespace is left for the next target, and nobody's list is fetched for that.
  EXPECT_EQ(Location("//root1/dfs/mixed/x"), "//t1/share/x");
  EXPECT_THAT(world_.requests, IsEmpty());
  // One that may come back decides, whichever was really tried.
  world_.hosts["t1"].shares.erase("share");
  EXPECT_TRUE(Run("//root1/dfs/mixed/x").worth_waiting);
  world_.held_back["//t2/share"] = FailureClass::kMissing;
  EXPECT_EQ(ErrnoFor("//root1/dfs/mixed/x"), ENOENT);
  EXPECT_THAT(world_.attempts, ElementsAre("//t1/share/x"));
}

TEST_F(ResolverTest, ADeadFirstHostIsWorthWaitingFor) {
  world_.hosts["root1"].up = false;
  const FakeWorld::Result result = Run("//root1/dfs/two/x");
  EXPECT_EQ(result.error_number, EHOSTDOWN);
  EXPECT_TRUE(result.worth_waiting);
  EXPECT_EQ(ErrnoFor("//nosuchhost/dfs"), ENOENT);
}

// --- Cache, TTL, refresh ---

TEST_F(ResolverTest, E03_AnExpiredLinkAsksTheRootsHint) {
  Location("//root1/dfs/two/x");
  now_ += absl::Seconds(599);
  Location("//root1/dfs/two/x");
  EXPECT_THAT(world_.requests, IsEmpty());
  now_ += absl::Seconds(1);
  EXPECT_EQ(Location("//root1/dfs/two/x"), "//t1/share/x");
  EXPECT_THAT(world_.requests, ElementsAre("LINK root1 //root1/dfs/two/x"));
}

TEST_F(ResolverTest, E03_AnExpiredRootIsAskedForAgain) {
  Location("//root1/dfs/readme");
  now_ += absl::Seconds(600);
  EXPECT_EQ(Location("//root1/dfs/readme"), "//root1/dfs/readme");
  EXPECT_THAT(world_.requests, ElementsAre("ROOT root1 //root1/dfs"));
}

TEST_F(ResolverTest, E02_ATtlOfZeroServesTheOperationThatFetchedIt) {
  world_.ttl_seconds = 0;
  world_.limits.min = absl::ZeroDuration();
  EXPECT_EQ(Location("//root1/dfs/nested/inner/x"), "//t2/share/x");
  EXPECT_EQ(Location("//root1/dfs/nested/inner/x"), "//t2/share/x");
  EXPECT_FALSE(world_.requests.empty());
}

TEST_F(ResolverTest, E04_E16_ARetargetedLinkMovesNewOpens) {
  Location("//root1/dfs/single/x");
  Root("root1").links["single"] = {{"t3/share"}};
  EXPECT_EQ(Location("//root1/dfs/single/x"), "//t1/share/x");
  now_ += absl::Seconds(600);
  EXPECT_EQ(Location("//root1/dfs/single/x"), "//t3/share/x");
}

TEST_F(ResolverTest, E04_WhenAllTargetsFailTheListIsFetchedAnew) {
  Location("//root1/dfs/single/x");
  Root("root1").links["single"] = {{"t3/share"}};
  world_.hosts["t1"].up = false;
  EXPECT_EQ(Location("//root1/dfs/single/x"), "//t3/share/x");
  EXPECT_THAT(world_.requests, ElementsAre("LINK root1 //root1/dfs/single/x"));
}

TEST_F(ResolverTest, E06_ALinkThatIsGone) {
  Location("//root1/dfs/two/x");
  Root("root1").links.erase("two");
  now_ += absl::Seconds(600);
  // Samba: OBJECT_PATH_NOT_FOUND for what is no link. The root serves it: a plain directory now.
  EXPECT_EQ(Location("//root1/dfs/two/x"), "//root1/dfs/two/x");
}

TEST_F(ResolverTest, E06_ALinkThatIsEmptied) {
  Location("//root1/dfs/two/x");
  Root("root1").links["two"] = {};
  now_ += absl::Seconds(600);
  EXPECT_EQ(ErrnoFor("//root1/dfs/two/x"), ENOENT);
  // E12: and is back some seconds after it is filled again.
  Root("root1").links["two"] = {{"t1/share"}};
  EXPECT_EQ(ErrnoFor("//root1/dfs/two/x"), ENOENT);
  now_ += absl::Seconds(10);
  EXPECT_EQ(Location("//root1/dfs/two/x"), "//t1/share/x");
}

TEST_F(ResolverTest, E07_AFailedRefreshKeepsTheStaleListAndWaits) {
  Location("//root1/dfs/two/x");
  now_ += absl::Seconds(600);
  world_.hosts["root1"].up = false;
  EXPECT_EQ(Location("//root1/dfs/two/x"), "//t1/share/x");
  EXPECT_THAT(world_.requests, ElementsAre("LINK root1 //root1/dfs/two/x"));
  // Others do not wait for a dead root again, for a while.
  EXPECT_EQ(Location("//root1/dfs/two/y"), "//t1/share/y");
  EXPECT_THAT(world_.requests, IsEmpty());
  now_ += absl::Seconds(5);
  EXPECT_EQ(Location("//root1/dfs/two/y"), "//t1/share/y");
  EXPECT_THAT(world_.requests, SizeIs(1));
}

TEST_F(ResolverTest, AFetchThatIsLeftOutLeavesTheStaleReferralInUseAndDue) {
  Location("//root1/dfs/two/x");
  now_ += absl::Seconds(600);
  const DfsPath path = P("//root1/dfs/two/x");
  Resolution resolution(path, "user");
  ResolveStep step = resolver_.Next(resolution, now_);
  ASSERT_EQ(step.kind, ResolveStep::Kind::kFetch);
  EXPECT_TRUE(step.fetch.untried_known);
  resolver_.NoteFetchLeftOut(resolution);
  step = resolver_.Next(resolution, now_);
  ASSERT_EQ(step.kind, ResolveStep::Kind::kTryTargets);
  EXPECT_THAT(cache_.DueForRefresh("user", now_), SizeIs(2));
  // None of its targets serves: whoever knows better is asked all the same.
  for (const uint16_t candidate : step.candidates) {
    resolver_.NoteTargetFailed(resolution, step, candidate, FailureClass::kTransport);
  }
  step = resolver_.Next(resolution, now_);
  ASSERT_EQ(step.kind, ResolveStep::Kind::kFetch);
  EXPECT_TRUE(step.fetch.stale_known);
  EXPECT_FALSE(step.fetch.untried_known);
}

TEST_F(ResolverTest, E07_AStaleRootOutlivesARefusal) {
  Location("//root1/dfs/readme");
  now_ += absl::Seconds(600);
  world_.hosts["root1"].dfs = false;
  EXPECT_EQ(Location("//root1/dfs/readme"), "//root1/dfs/readme");
  EXPECT_FALSE(Run("//root1/dfs/readme").plain);
}

TEST_F(ResolverTest, E08_RefreshInTheBackground) {
  Location("//root1/dfs/two/x");
  now_ += absl::Seconds(500);
  Root("root1").links["two"] = {{"t3/share"}};
  const Resolver::FetchContext context{.limits = {}, .now = now_, .random = 0};
  const std::vector<ReferralCache::Entry> due = cache_.DueForRefresh("user", now_);
  ASSERT_THAT(due, SizeIs(2));
  for (const ReferralCache::Entry& entry : due) {
    const ReferralFetch fetch = resolver_.RefreshOf(*entry, now_);
    EXPECT_TRUE(fetch.stale_known);
    EXPECT_THAT(fetch.hosts, ElementsAre("root1"));
    EXPECT_EQ(fetch.kind,
              entry->kind == EntryKind::kRoot ? ReferralKind::kRoot : ReferralKind::kLink);
    Referral fresh{.version = 3, .consumed_components = entry->prefix.size()};
    fresh.root = entry->kind == EntryKind::kRoot;
    fresh.ttl = absl::Seconds(600);
    fresh.targets.push_back({fresh.root ? P("//root1/dfs") : P("//t3/share"), true});
    resolver_.StoreReferral(entry->credential, fetch, fresh, 0, context);
  }
  world_.hosts["root1"].up = false;
  now_ += absl::Seconds(200);  // The first fetch's TTL is over, the refresh's is not.
  EXPECT_EQ(Location("//root1/dfs/two/x"), "//t3/share/x");
  EXPECT_THAT(world_.requests, IsEmpty());
}

TEST_F(ResolverTest, E13_OneCredentialsReferralsAreNotAnothers) {
  Run("//root1/dfs/two/x", "alice");
  Run("//root1/dfs/two/x", "bob");
  EXPECT_THAT(world_.requests, SizeIs(2));
}

// --- Domains ---

TEST_F(ResolverTest, B04_B05_DomainNamespacesAreAskedOfControllers) {
  domains_.PutDomain("corp.test", {"dc1"});
  world_.controllers["corp.test"] = {"dc1", "dc2"};
  for (const std::string name : {"dc1", "dc2"}) {
    Root(name).root_targets = {"root1/dfs"};
    world_.hosts[name].shares["sysvol"].proxy = {{"dc2/sysvol-data"}};
  }
  world_.hosts["dc2"].shares["sysvol-data"];
  EXPECT_EQ(Location("//corp.test/dfs/two/x"), "//t1/share/x");
  EXPECT_THAT(world_.requests, ElementsAre("DC dc1 //corp.test", "ROOT dc1 //corp.test/dfs",
                                           "LINK root1 //corp.test/dfs/two/x"));
  EXPECT_EQ(Location("//corp.test/SYSVOL/x"), "//dc2/sysvol-data/x");
  EXPECT_THAT(world_.requests, ElementsAre("SYSVOL dc1 //corp.test/SYSVOL"));

  // B05: the next controller, and it is asked first from then on.
  world_.hosts["dc1"].up = false;
  cache_.Flush();
  EXPECT_EQ(Location("//corp.test/dfs/two/x"), "//t1/share/x");
  EXPECT_THAT(world_.requests, ElementsAre("ROOT dc1 //corp.test/dfs", "ROOT dc2 //corp.test/dfs",
                                           "LINK root1 //corp.test/dfs/two/x"));
  cache_.Flush();
  Location("//corp.test/dfs");
  EXPECT_THAT(world_.requests, ElementsAre("ROOT dc2 //corp.test/dfs"));

  // B07: all controllers down, cache warm.
  world_.hosts["dc2"].up = false;
  now_ += absl::Hours(1);
  EXPECT_EQ(Location("//corp.test/dfs/readme"), "//root1/dfs/readme");
}

TEST_F(ResolverTest, B01_ADomainWhoseNameResolvesNeedsNoControllers) {
  world_.hosts["corp.test"] = world_.hosts["root1"];
  EXPECT_EQ(Location("//corp.test/dfs/two/x"), "//t1/share/x");
  EXPECT_EQ(world_.requests[0], "ROOT corp.test //corp.test/dfs");
}

TEST_F(ResolverTest, ADomainIsLookedForWhereItIsAllowed) {
  Resolver resolver(cache_, domains_, {.find_domains = true});
  const DfsPath path = P("//corp.test/dfs/x");
  Resolution resolution(path, "user");
  ResolveStep step = resolver.Next(resolution, now_);
  ASSERT_EQ(step.kind, ResolveStep::Kind::kFetch);
  EXPECT_EQ(step.fetch.kind, ReferralKind::kDc);
  EXPECT_EQ(step.fetch.domain, "corp.test");
  EXPECT_EQ(step.fetch.wire_path, u"\\corp.test");
  EXPECT_THAT(step.fetch.hosts, IsEmpty());
  domains_.PutNotADomain("corp.test", now_ + absl::Minutes(15));
  resolver.NoteFetchedElsewhere(resolution, step);
  step = resolver.Next(resolution, now_);
  EXPECT_EQ(step.fetch.kind, ReferralKind::kRoot);
  EXPECT_THAT(step.fetch.hosts, ElementsAre("corp.test"));
  // A domain's controllers, which the name servers know, are asked for the list of all of them.
  const DfsPath in_domain = P("//ad.test/dfs/x");
  Resolution found(in_domain, "user");
  step = resolver.Next(found, now_);
  ASSERT_EQ(step.fetch.kind, ReferralKind::kDc);
  domains_.PutDomain("ad.test", {"dc1", "dc2"});
  resolver.NoteFetchedElsewhere(found, step);
  step = resolver.Next(found, now_);
  EXPECT_EQ(step.fetch.kind, ReferralKind::kDc);
  EXPECT_THAT(step.fetch.hosts, ElementsAre("dc1", "dc2"));
  // Where that fails they are asked for the root.
  resolver.NoteFetchFailed(found, step, absl::UnavailableError("down"), FailureClass::kTransport,
                           {.limits = {}, .now = now_});
  step = resolver.Next(found, now_);
  EXPECT_EQ(step.fetch.kind, ReferralKind::kRoot);
  EXPECT_THAT(step.fetch.hosts, ElementsAre("dc1", "dc2"));
  // Addresses and single labels are not looked up.
  for (const absl::string_view source : {"//10.0.0.1/dfs", "//fd00::1/dfs", "//root1/dfs"}) {
    const DfsPath other = P(source);
    Resolution plain(other, "user");
    EXPECT_EQ(resolver.Next(plain, now_).fetch.kind, ReferralKind::kRoot) << source;
  }
}

TEST_F(ResolverTest, ACachedPathResolvesWithoutAllocating) {
  if (!kAllocationsAreCounted) GTEST_SKIP() << "allocations cannot be counted in this build";
  Location("//root1/dfs/three/x");
  const DfsPath path = P("//root1/dfs/three/some/directory/of/a/file.txt");
  const int64_t before = allocation_count;
  Resolution resolution(path, "a credential's identity that is longer than fifteen characters");
  Resolution cached(path, "user");
  const ResolveStep step = resolver_.Next(cached, now_);
  EXPECT_EQ(allocation_count - before, 0);
  EXPECT_EQ(step.kind, ResolveStep::Kind::kTryTargets);
  EXPECT_EQ(step.candidates.size(), 3u);
  EXPECT_EQ(resolution.levels(), 1u);
}

}  // namespace
}  // namespace dfscsi::dfs
