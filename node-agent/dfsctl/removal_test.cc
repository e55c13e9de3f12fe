#include "node-agent/dfsctl/removal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "node-agent/agent/failure.h"
#include "node-agent/dfs/domain_cache.h"
#include "node-agent/dfs/referral_cache.h"
#include "node-agent/dfs/target_health.h"
#include "node-agent/smb/session_pool.h"
#include "node-agent/smb/wire/file_information.h"
#include "node-agent/testing/scripted_lab.h"

namespace dfscsi::dfsctl {
namespace {

using runtime::Task;

class RemovalTest : public ::testing::Test {
 protected:
  RemovalTest() {
    share_->writable = true;
    share_->AddText("elsewhere/precious", "x");
    share_->AddText("tree/file", "x");
    share_->AddText("tree/deep/er/file", "x");
    share_->AddDirectory("tree/empty");
    share_->AddSymlink("tree/symlink", "../elsewhere/precious");
  }
  ~RemovalTest() override { EXPECT_THAT(lab_.Violations(), ::testing::IsEmpty()); }

  // Who walks through it is elsewhere.
  void AddJunction(const std::string& path) {
    testing::ScriptedFile& junction = share_->AddDirectory(path);
    junction.extra_attributes = smb::wire::kAttributeReparsePoint;
    junction.children = share_->Find("elsewhere")->children;
  }
  absl::Status Remove(const std::string& path, bool with_content) {
    struct Removing {
      static Task<void> Run(testing::ScriptedLab* lab, dfs::DfsPath path, bool with_content,
                            absl::Status* result) {
        smb::SessionPool pool({}, lab->authenticators(), nullptr);
        dfs::ReferralCache cache;
        dfs::DomainCache domains;
        dfs::TargetHealthTable health;
        dfs::Client client(path.Prefix(2), lab->credential(), {}, pool, cache, domains, health);
        *result = co_await RemovePath(&client, path, with_content);
      }
    };
    absl::Status result = absl::UnknownError("not yet");
    EXPECT_TRUE(lab_.Run(
        Removing::Run(&lab_, *dfs::DfsPath::Parse("//t1/data/" + path), with_content, &result)));
    return result;
  }

  testing::ScriptedLab lab_{1};
  testing::ScriptedServer& server_ = lab_.AddServer("t1");
  testing::ScriptedShare* share_ = &server_.AddShare("data");
};

TEST_F(RemovalTest, AFolderGoesWithWhatIsInIt) {
  EXPECT_EQ(agent::ReasonOf(Remove("tree", false)), agent::v1::MISSING_PATH);
  EXPECT_NE(share_->Find("tree/deep/er/file"), nullptr);
  EXPECT_EQ(Remove("tree", true), absl::OkStatus());
  EXPECT_EQ(share_->Find("tree"), nullptr);
  EXPECT_NE(share_->Find("elsewhere/precious"), nullptr);
}

TEST_F(RemovalTest, AJunctionInAFolderGoesAndWhatIsBehindItStays) {
  AddJunction("tree/deep/junction");
  EXPECT_EQ(Remove("tree", true), absl::OkStatus());
  EXPECT_EQ(share_->Find("tree"), nullptr);
  EXPECT_NE(share_->Find("elsewhere/precious"), nullptr);
}

TEST_F(RemovalTest, AJunctionThatIsNamedGoesAndWhatIsBehindItStays) {
  for (const bool with_content : {false, true}) {
    AddJunction("junction");
    EXPECT_EQ(Remove("junction", with_content), absl::OkStatus());
    EXPECT_EQ(share_->Find("junction"), nullptr);
    EXPECT_NE(share_->Find("elsewhere/precious"), nullptr);
  }
}

}  // namespace
}  // namespace dfscsi::dfsctl
