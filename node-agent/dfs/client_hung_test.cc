// Servers of which one process (one connection's) hangs, while the host serves new connections.

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "node-agent/dfs/client_test_lab.h"

namespace dfscsi::dfs {
namespace {

// The connections that there are answer no more; those made later are served.
int64_t HangConnections(testing::ScriptedServer& server) {
  const int64_t old = server.connections_ever();
  server.set_script(
      [old](const testing::ScriptedRequest& request) -> std::optional<testing::Action> {
        if (request.connection <= old) return testing::Action{.ignore = true};
        return std::nullopt;
      });
  return old;
}

// As Samba: a connection is served by the process that serves others of its ClientGuid.
class ProcessPerClient {
 public:
  explicit ProcessPerClient(testing::ScriptedServer& server) {
    server.set_script([this](const testing::ScriptedRequest& request) { return Serve(request); });
  }
  // Those that there are; who comes with a ClientGuid of theirs is handed to them.
  void Hang() {
    for (const auto& [connection, client] : clients_) hung_.insert(client);
  }

 private:
  std::optional<testing::Action> Serve(const testing::ScriptedRequest& request) {
    constexpr size_t kClientGuidAt = 12;
    if (request.header.command == smb::wire::Command::kNegotiate) {
      clients_[request.connection] = std::string(request.body.begin() + kClientGuidAt,
                                                 request.body.begin() + kClientGuidAt + 16);
    }
    if (hung_.contains(clients_[request.connection])) return testing::Action{.ignore = true};
    return std::nullopt;
  }

  std::map<int, std::string> clients_;
  std::set<std::string> hung_;
};

// A mount that was and is no more: its session is in the pool, and nobody's.
void MountOnce(ClientLab& lab, const std::string& source, const std::string& path) {
  std::unique_ptr<Client> once;
  lab.servers().agent().RunNow([&] {
    once = std::make_unique<Client>(*DfsPath::Parse(source), lab.servers().credential(),
                                    ClientOptions(), lab.pool(), lab.cache(), lab.domains(),
                                    lab.health());
  });
  struct Stat {
    static runtime::Task<absl::Status> On(Binding binding) {
      co_return (
          co_await binding.tree->Stat(binding.path, runtime::Deadline::After(absl::Seconds(5))))
          .status();
    }
    static runtime::Task<void> Run(Client& client, DfsPath path) {
      Client::Operation stat = [](Binding binding) { return On(std::move(binding)); };
      EXPECT_TRUE((co_await client.Run(std::move(path), std::move(stat), {},
                                       runtime::Deadline::After(absl::Seconds(30))))
                      .ok());
    }
  };
  ASSERT_TRUE(lab.servers().Run(Stat::Run(*once, *DfsPath::Parse(path))));
  lab.servers().agent().RunNow([&] { once.reset(); });
  lab.RunFor(absl::Seconds(2));
}

TEST(HungSession, OfATargetThatNobodyIsBoundTo_IsReplaced) {
  ClientLab lab;
  MountOnce(lab, "//t1/data", "//t1/data/who");
  const int64_t old = HangConnections(lab.servers().server("t1"));
  lab.AddClient({}, "//t1/data");
  const CallPtr call = lab.Do("//t1/data/who", {.client = 1}, absl::Minutes(2));
  EXPECT_EQ(call->Outcome(), "t1");
  EXPECT_LT(call->took(), absl::Seconds(10));
  EXPECT_LE(lab.servers().server("t1").connections_ever() - old, 2);
}

TEST(HungSession, OfAServerThatHandsNewConnectionsToTheSameProcess_IsReplaced) {
  ClientLab lab;
  ProcessPerClient processes(lab.servers().server("t1"));
  MountOnce(lab, "//t1/data", "//t1/data/who");
  processes.Hang();
  lab.AddClient({}, "//t1/data");
  CallPtr call = lab.Do("//t1/data/who", {.client = 1}, absl::Minutes(2));
  EXPECT_EQ(call->Outcome(), "t1");
  EXPECT_LT(call->took(), absl::Seconds(10));
  // The next one, which is in use.
  processes.Hang();
  call = lab.Do("//t1/data/who", {.client = 1}, absl::Minutes(2));
  EXPECT_EQ(call->Outcome(), "t1");
  EXPECT_LT(call->took(), absl::Seconds(10));
}

// An agent that takes over has its predecessor's ClientGuid, and no session to learn from.
TEST(HungSession, ThatIsNobodysAndHasOurClientGuidIsGoneAround) {
  ClientLab lab;
  ProcessPerClient processes(lab.servers().server("t1"));
  EXPECT_EQ(lab.Where("//root1/dfs/link/who"), "t1");
  processes.Hang();
  lab.servers().agent().RunNow(
      [&] { lab.pool().Retire(*lab.pool().Find("t1", lab.servers().credential().Identity())); });
  lab.AddClient({}, "//t1/data");
  const CallPtr call = lab.Do("//t1/data/who", {.client = 1}, absl::Minutes(2));
  EXPECT_EQ(call->Outcome(), "t1");
  EXPECT_LT(call->took(), absl::Seconds(12));
}

TEST(HungSession, OfARootIsReplacedWhereReferralsAreAsked) {
  ClientLab lab;
  testing::ScriptedShare& inner = lab.servers().AddServer("ns2").AddShare("more");
  inner.dfs_root = true;
  inner.root_referral.targets = {"ns2/more"};
  inner.AddLink("a", {.targets = {"t1/data"}});
  inner.AddLink("b", {.targets = {"t2/data"}});
  lab.AddLink("nested", {.targets = {"ns2/more"}});
  EXPECT_EQ(lab.Where("//root1/dfs/nested/a/who"), "t1");
  const int64_t old = HangConnections(lab.servers().server("ns2"));
  const CallPtr call = lab.Do("//root1/dfs/nested/b/who", {}, absl::Minutes(2));
  EXPECT_EQ(call->Outcome(), "t2");
  EXPECT_LT(call->took(), absl::Seconds(10));
  EXPECT_LE(lab.servers().server("ns2").connections_ever() - old, 2);
}

TEST(HungSession, OfTheOnlyControllerIsReplaced) {
  ClientLab lab;
  std::vector<runtime::Network::Service> services;
  for (const char* dc : {"dc1.corp.test", "dc2.corp.test"}) {
    testing::ScriptedServer& server = lab.servers().AddServer(dc);
    server.AddDomain("corp.test", {"dc1.corp.test", "dc2.corp.test"});
    for (const char* name : {"dfs", "other"}) {
      testing::ScriptedShare& share = server.AddShare(name);
      share.dfs_root = true;
      share.root_referral = {
          .targets = {absl::StrCat(name[0] == 'd' ? "root1" : "root2", ".corp.test/dfs")}};
    }
    services.push_back({dc, 389});
  }
  for (const char* host : {"root1", "root2", "t1", "t2", "t3"}) {
    lab.network().SetName(absl::StrCat(host, ".corp.test"), lab.servers().host(host).addresses());
  }
  lab.network().SetService("_ldap._tcp.dc._msdcs.corp.test", services);
  lab.AddClient({}, "//corp.test/dfs");
  lab.AddClient({}, "//corp.test/other");
  EXPECT_EQ(lab.Do("//corp.test/dfs/plain", {.client = 1})->Outcome(), "root1.corp.test");
  const int64_t old = HangConnections(lab.servers().server("dc1.corp.test"));
  lab.servers().PowerOff("dc2.corp.test");
  const CallPtr call = lab.Do("//corp.test/other/plain", {.client = 2}, absl::Minutes(2));
  EXPECT_EQ(call->Outcome(), "root2.corp.test");
  EXPECT_LT(call->took(), absl::Seconds(15));
  EXPECT_GE(lab.servers().server("dc1.corp.test").connections_ever() - old, 1);
  EXPECT_LE(lab.servers().server("dc1.corp.test").connections_ever() - old, 2);
}

TEST(HungSession, ThatIsOnlySlowIsKeptByItsUsers) {
  ClientLab lab;
  const CallPtr open = lab.Do("//root1/dfs/link/who", {.keep_tree = true});
  ASSERT_EQ(open->Outcome(), "t1");
  testing::ScriptedServer& server = lab.servers().server("t1");
  server.set_script([](const testing::ScriptedRequest&) -> std::optional<testing::Action> {
    return testing::Action{.delay = absl::Seconds(3)};
  });
  const CallPtr call = lab.Do("//root1/dfs/link/who", {.run = {.movable = false}});
  EXPECT_EQ(call->Outcome(), "t1");
  EXPECT_EQ(call->epoch, open->epoch);
  EXPECT_TRUE(open->tree->usable());
}

}  // namespace
}  // namespace dfscsi::dfs
