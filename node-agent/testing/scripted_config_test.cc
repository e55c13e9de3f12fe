#include "node-agent/testing/scripted_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace dfscsi::testing {
namespace {

using ::testing::HasSubstr;

TEST(ScriptedConfigTest, DescribesAServer) {
  ScriptedServer server("t1");
  ScriptedConfig config(server);
  ASSERT_EQ(config.ApplyAll(R"(# a server
listen 127.0.0.1:1445
listen [::1]:1445
user alice secret
option signing_required
option highest_dialect 3.0.2
option signing cmac hmac
option dfs off
option most_credits 1
share data
  dir empty
  file a/b 100
  files many/x 10 5
  text who "on t1"
  symlink s a/b
  deny who
share dfs root
  link docs ttl=5 version=4 failback t1/data t2/data/sub / t3/data
  targets t1/dfs t2/dfs
domain corp.test dc1.corp.test
rule command=READ path=a/b share=data times=2 delay=2s pending status=STATUS_ACCESS_DENIED reset
)"),
            absl::OkStatus());
  ASSERT_EQ(config.listen().size(), 2u);
  EXPECT_EQ(config.listen()[1].ToString(), "[::1]:1445");
  EXPECT_TRUE(server.options().signing_required);
  EXPECT_FALSE(server.options().dfs);
  EXPECT_EQ(server.options().highest_dialect, smb::wire::Dialect::k302);
  EXPECT_EQ(server.options().signing_algorithms.size(), 2u);
  ScriptedShare* const data = server.FindShare("DATA");
  ASSERT_NE(data, nullptr);
  EXPECT_EQ(data->Find("A/B")->size, 100u);
  EXPECT_EQ(data->Find("many")->children.size(), 10u);
  EXPECT_EQ(*data->Find("who")->text, "on t1");
  EXPECT_TRUE(data->Find("who")->denied);
  const ScriptedReferral& docs = server.FindShare("dfs")->Find("docs")->referral;
  ASSERT_EQ(docs.targets.size(), 3u);
  EXPECT_EQ(docs.ttl_seconds, 5u);
  EXPECT_TRUE(docs.targets[2].starts_set);
  EXPECT_FALSE(docs.targets[1].starts_set);
  EXPECT_EQ(server.FindShare("dfs")->root_referral.targets.size(), 2u);
}

TEST(ScriptedConfigTest, WhatItIsToldOfWriting) {
  ScriptedServer server("t1");
  ScriptedConfig config(server);
  ASSERT_EQ(config.ApplyAll("option leases off\n"
                            "option appends off\n"
                            "option most_written 1000\n"
                            "option max_write 65536\n"
                            "option durable_seconds 5\n"
                            "share plain\n"
                            "share data writable persistent posix\n"),
            absl::OkStatus());
  EXPECT_FALSE(server.options().leases);
  EXPECT_FALSE(server.options().appends);
  EXPECT_EQ(server.options().most_written_bytes, 1000u);
  EXPECT_EQ(server.options().max_write_bytes, 65536u);
  EXPECT_EQ(server.options().durable_for, absl::Seconds(5));
  EXPECT_FALSE(server.FindShare("plain")->writable);
  const ScriptedShare* const data = server.FindShare("data");
  EXPECT_TRUE(data->writable && data->persistent_handles && data->posix_unlink);
}

TEST(ScriptedConfigTest, NamesWhatItDoesNotUnderstand) {
  const struct {
    const char* text;
    const char* message;
  } kCases[] = {
      {"share a\nfrobnicate\n", "line 2: \"frobnicate\""},
      {"listen here", "\"here\""},
      {"option colour blue", "\"colour\""},
      {"option highest_dialect 1.0", "\"1.0\""},
      {"rule command=JUMP", "\"JUMP\""},
      {"rule status=STATUS_NO_SUCH_STATUS", "NO_SUCH_STATUS"},
      {"rule delay=soon", "\"soon\""},
      {"text a b", "\"text\""},
      {"share a\ntext b \"c", "quote"},
      {"share a\nfile b many", "\"many\""},
      {"share a\ndeny nosuch", "\"nosuch\""},
  };
  for (const auto& test : kCases) {
    ScriptedServer server("t1");
    ScriptedConfig config(server);
    const absl::Status status = config.ApplyAll(test.text);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << test.text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(test.message));
  }
}

TEST(ScriptedConfigTest, CountsNothingAtFirst) {
  ScriptedServer server("t1");
  ScriptedConfig config(server);
  const absl::StatusOr<std::string> counts = config.Apply("counts");
  ASSERT_TRUE(counts.ok());
  EXPECT_THAT(*counts, HasSubstr("frames 0\n"));
  EXPECT_THAT(*counts, HasSubstr("violations 0\n"));
}

}  // namespace
}  // namespace dfscsi::testing
