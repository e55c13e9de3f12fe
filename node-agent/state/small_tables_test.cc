// The vault, the log-on guard and the heartbeat.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "node-agent/state/heartbeat.h"
#include "node-agent/state/logon_guard.h"
#include "node-agent/state/store_deaths.h"
#include "node-agent/state/vault.h"

namespace dfscsi::state {
namespace {

bool Holds(int fd, uint64_t bytes, std::string_view text) {
  auto memory = SharedMemory::Map(fd, bytes);
  const std::string_view all(memory->data(), bytes);
  return all.find(text) != std::string_view::npos;
}

TEST(VaultTest, ASecretLivesAsLongAsItsMount) {
  UniqueFd fd = *Vault::Create();
  Vault vault = *Vault::Map(fd.get());
  ASSERT_TRUE(vault.Put(1, Secret("user\0password-one")).ok());
  ASSERT_TRUE(vault.Put(2, Secret("password-two")).ok());
  ASSERT_TRUE(vault.Put(2, Secret("password-new")).ok());
  Vault next = *Vault::Map(fd.get());
  EXPECT_EQ(next.Get(2)->Expose(), "password-new");
  EXPECT_FALSE(Holds(fd.get(), Vault::kBytes, "password-two"));
  EXPECT_FALSE(next.Get(3).has_value());
  next.Erase(2);
  EXPECT_FALSE(next.Get(2).has_value());
  EXPECT_FALSE(Holds(fd.get(), Vault::kBytes, "password-new"));
  next.EraseAllBut({5, 6});
  EXPECT_FALSE(next.Get(1).has_value());
  EXPECT_FALSE(Holds(fd.get(), Vault::kBytes, "password"));
}

TEST(VaultTest, HasBounds) {
  UniqueFd fd = *Vault::Create();
  Vault vault = *Vault::Map(fd.get());
  EXPECT_TRUE(vault.Put(1, Secret(std::string(Vault::kMaxSecretBytes, 'x'))).ok());
  EXPECT_EQ(vault.Get(1)->Expose().size(), Vault::kMaxSecretBytes);
  EXPECT_EQ(vault.Put(2, Secret(std::string(Vault::kMaxSecretBytes + 1, 'x'))).code(),
            absl::StatusCode::kInvalidArgument);
  for (uint32_t id = 2; id <= 1'023; ++id) ASSERT_TRUE(vault.Put(id, Secret("x")).ok());
  EXPECT_EQ(vault.Put(2'000, Secret("x")).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_FALSE(Vault::Map(LogonGuard::Create()->get()).ok());
}

TEST(VaultTest, ADeathAfterAnyStoreKeepsOneOfTheTwoAndLeavesNoRest) {
  for (long stores = 0;; ++stores) {
    UniqueFd fd = *Vault::Create();
    Vault vault = *Vault::Map(fd.get());
    ASSERT_TRUE(vault.Put(1, Secret("the-old-one")).ok());
    const bool ended = RunUntilStore(stores, [&] { (void)vault.Put(1, Secret("the-new-one")); });
    Vault next = *Vault::Map(fd.get());
    next.EraseAllBut({1});
    const auto got = next.Get(1);
    ASSERT_TRUE(got.has_value()) << stores;
    EXPECT_THAT(std::string(got->Expose()), testing::AnyOf("the-old-one", "the-new-one"));
    if (got->Expose() == "the-old-one") {
      EXPECT_FALSE(Holds(fd.get(), Vault::kBytes, "the-n")) << stores;
    }
    next.Erase(1);
    EXPECT_FALSE(Holds(fd.get(), Vault::kBytes, "the-")) << stores;
    if (ended) break;
  }
}

TEST(LogonGuardTest, ARefusalOutlivesTheAgent) {
  UniqueFd fd = *LogonGuard::Create();
  LogonGuard guard = *LogonGuard::Map(fd.get());
  const uint64_t key = guard.Key("fs1.corp", "alice");
  EXPECT_EQ(guard.NotBefore(key), absl::ZeroDuration());
  const absl::Duration then = BoottimeNow() + absl::Minutes(15);
  guard.Refuse(key, then);
  LogonGuard next = *LogonGuard::Map(fd.get());
  EXPECT_EQ(next.Key("fs1.corp", "alice"), key);
  EXPECT_EQ(next.NotBefore(key), then);
  EXPECT_EQ(next.NotBefore(next.Key("fs1.corp", "bob")), absl::ZeroDuration());
  EXPECT_NE(next.Key("fs1.cor", "palice"), key);
  next.Accept(key, 99);
  EXPECT_EQ(guard.NotBefore(key), absl::ZeroDuration());
  EXPECT_EQ(guard.PreviousSessionId(key), 99u);
  EXPECT_EQ(guard.client_guid(), next.client_guid());
  EXPECT_NE(guard.client_guid(), Guid{});
  EXPECT_FALSE(Holds(fd.get(), LogonGuard::kBytes, "alice"));
}

TEST(LogonGuardTest, WhatIsForgivenIsForgivenForEveryAgentAndSessionsStay) {
  UniqueFd fd = *LogonGuard::Create();
  LogonGuard guard = *LogonGuard::Map(fd.get());
  guard.Accept(1, 99);
  guard.Refuse(1, BoottimeNow() + absl::Minutes(5));
  guard.Refuse(2, BoottimeNow() + absl::Minutes(5));
  guard.ForgiveAll();
  LogonGuard next = *LogonGuard::Map(fd.get());
  EXPECT_EQ(next.NotBefore(1), absl::ZeroDuration());
  EXPECT_EQ(next.NotBefore(2), absl::ZeroDuration());
  EXPECT_EQ(next.PreviousSessionId(1), 99u);
}

TEST(LogonGuardTest, AFullGuardForgetsTheOneIdleLongest) {
  UniqueFd fd = *LogonGuard::Create();
  LogonGuard guard = *LogonGuard::Map(fd.get());
  const absl::Duration then = absl::Hours(1'000'000);
  for (uint64_t key = 1; key <= LogonGuard::kRecords; ++key) guard.Refuse(key, then);
  guard.Refuse(1, then);
  guard.Refuse(5'000, then);
  EXPECT_EQ(guard.NotBefore(1), then);
  EXPECT_EQ(guard.NotBefore(2), absl::ZeroDuration());
  EXPECT_EQ(guard.NotBefore(3), then);
  EXPECT_EQ(guard.NotBefore(5'000), then);
}

TEST(HeartbeatTest, EachAgentHasItsLine) {
  UniqueFd fd = *Heartbeat::Create();
  Heartbeat mounter = *Heartbeat::Map(fd.get());
  Heartbeat agent = *Heartbeat::Map(fd.get());
  agent.Beat(3);
  agent.Beat(3);
  EXPECT_EQ(mounter.Count(3), 2u);
  EXPECT_EQ(mounter.Count(2), 0u);
  mounter.Clear(3);
  EXPECT_EQ(agent.Count(3), 0u);
}

TEST(SharedMemoryTest, NobodyCanShrinkIt) {
  UniqueFd fd = *CreateSharedMemory("test", 8'192);
  EXPECT_NE(ftruncate(fd.get(), 0), 0);
  EXPECT_NE(ftruncate(fd.get(), 16'384), 0);
  auto memory = SharedMemory::Map(fd.get(), 8'192);
  ASSERT_TRUE(memory.ok());
  EXPECT_TRUE(memory->Populate(0, 8'192).ok());
}

}  // namespace
}  // namespace dfscsi::state
