#include "node-agent/dfs/domain_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace dfscsi::dfs {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using Knowledge = DomainCache::Knowledge;

const absl::Time kNow = absl::UnixEpoch() + absl::Hours(1);

TEST(DomainCacheTest, KnowsWhatItWasTold) {
  DomainCache domains;
  EXPECT_EQ(domains.Get("corp.example.com", kNow), Knowledge::kUnknown);
  domains.PutNotADomain("fs1.example.com", kNow + absl::Minutes(15));
  EXPECT_EQ(domains.Get("FS1.example.com", kNow), Knowledge::kNotADomain);
  EXPECT_EQ(domains.Get("fs1.example.com", kNow + absl::Minutes(15)), Knowledge::kUnknown);
  domains.PutDomain("corp.example.com", {"dc1", "dc2"});
  EXPECT_EQ(domains.Get("CORP.example.com.", kNow), Knowledge::kDomain);
  EXPECT_THAT(domains.GetBootstrap("corp.example.com"), ElementsAre("dc1", "dc2"));
  EXPECT_THAT(domains.GetControllers("corp.example.com", kNow), IsEmpty());
}

TEST(DomainCacheTest, B05_TheControllerThatAnsweredIsAskedFirst) {
  DomainCache domains;
  domains.PutDomain("corp", {"dc1"});
  domains.PutControllers("corp", {"dc1.corp", "dc2.corp", "dc3.corp"}, kNow + absl::Minutes(15));
  EXPECT_THAT(domains.GetControllers("CORP", kNow),
              ElementsAre("dc1.corp", "dc2.corp", "dc3.corp"));
  domains.SetHint("corp", "DC2.corp");
  EXPECT_THAT(domains.GetControllers("corp", kNow),
              ElementsAre("dc2.corp", "dc1.corp", "dc3.corp"));
  // A new list keeps it in front.
  domains.PutControllers("corp", {"dc3.corp", "dc2.corp"}, kNow + absl::Minutes(15));
  EXPECT_THAT(domains.GetControllers("corp", kNow), ElementsAre("dc2.corp", "dc3.corp"));
  domains.SetHint("corp", "unlisted");
  EXPECT_THAT(domains.GetControllers("corp", kNow), ElementsAre("dc2.corp", "dc3.corp"));
}

TEST(DomainCacheTest, B07_AnExpiredListStillBootstraps) {
  DomainCache domains;
  domains.PutDomain("corp", {"dc1.corp", "dc9"});
  domains.PutControllers("corp", {"DC1.corp"}, kNow);
  EXPECT_THAT(domains.GetControllers("corp", kNow), IsEmpty());
  EXPECT_THAT(domains.GetBootstrap("corp"), ElementsAre("DC1.corp", "dc9"));
}

TEST(DomainCacheTest, FlushKeepsTheBootstrap) {
  DomainCache domains;
  domains.PutControllers("corp", {"dc1"}, kNow + absl::Hours(1));
  domains.PutNotADomain("host", kNow + absl::Hours(1));
  domains.Flush();
  EXPECT_EQ(domains.Get("corp", kNow), Knowledge::kDomain);
  EXPECT_EQ(domains.Get("host", kNow), Knowledge::kUnknown);
  EXPECT_THAT(domains.GetControllers("corp", kNow), IsEmpty());
  EXPECT_THAT(domains.GetBootstrap("corp"), ElementsAre("dc1"));
}

}  // namespace
}  // namespace dfscsi::dfs
