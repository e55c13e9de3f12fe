// A client of the simulated machine room, for tests: two namespace roots, three file servers, and
// operations that say which server they were run on.
//
//   ClientLab lab;
//   EXPECT_EQ(lab.Where("//root1/dfs/link/who"), "t1");
//   lab.servers().Kill("t1");
//   EXPECT_EQ(lab.Where("//root1/dfs/link/who"), "t2");

#ifndef NODE_AGENT_DFS_CLIENT_TEST_LAB_H_
#define NODE_AGENT_DFS_CLIENT_TEST_LAB_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "node-agent/dfs/client.h"
#include "node-agent/dfs/domain_cache.h"
#include "node-agent/dfs/path.h"
#include "node-agent/dfs/referral_cache.h"
#include "node-agent/dfs/target_health.h"
#include "node-agent/runtime/sim_network.h"
#include "node-agent/runtime/sim_world.h"
#include "node-agent/smb/connection.h"
#include "node-agent/smb/session.h"
#include "node-agent/smb/session_pool.h"
#include "node-agent/testing/scripted_lab.h"

namespace dfscsi::dfs {

// One operation: STAT of a path.
struct Call {
  bool done = false;
  absl::Status status;
  absl::Status last;  // Of the last run.
  std::string host;   // Where it was run last.
  uint64_t epoch = 0;
  int runs = 0;
  absl::Time began, ended;
  std::shared_ptr<smb::Tree> tree;  // Kept if asked for, as an open file keeps it.
  runtime::CancelSource cancel;

  absl::Duration took() const { return ended - began; }
  // The host, or the error.
  std::string Outcome() const {
    if (!done) return "waits";
    return status.ok() ? host : std::string(absl::StatusCodeToString(status.code()));
  }
};
using CallPtr = std::shared_ptr<Call>;

class ClientLab {
 public:
  // root1 and root2 have the namespace "dfs"; t1, t2, t3 the share "data"; "link" leads to all
  // three. `memory` may be null.
  explicit ClientLab(ClientOptions options = {}, uint64_t seed = 1, smb::Options smb = {},
                     smb::SessionMemory* memory = nullptr)
      : lab_(seed) {
    for (const char* root : {"root1", "root2"}) {
      testing::ScriptedShare& share = lab_.AddServer(root).AddShare("dfs");
      share.dfs_root = true;
      share.root_referral.targets = {"root1/dfs", "root2/dfs"};
      share.AddText("plain", root);
    }
    for (const char* target : {"t1", "t2", "t3"}) {
      testing::ScriptedShare& share = lab_.AddServer(target).AddShare("data");
      share.AddText("who", target);
      share.AddText("deep/base/who", target);
    }
    AddLink("link", {.targets = {"t1/data", "t2/data", "t3/data"}});
    lab_.agent().RunNow([&] {
      pool_ = std::make_unique<smb::SessionPool>(std::move(smb), lab_.authenticators(), memory);
      calls_ = std::make_unique<runtime::TaskGroup>();
    });
    AddClient(std::move(options));
  }
  ~ClientLab() {
    lab_.agent().RunNow([this] {
      for (const CallPtr& call : started_) call->tree = nullptr;
      calls_.reset();
      clients_.clear();
      pool_.reset();
    });
  }

  testing::ScriptedLab& servers() { return lab_; }
  runtime::SimWorld& world() { return lab_.world(); }
  runtime::SimNetwork& network() { return lab_.network(); }
  smb::SessionPool& pool() { return *pool_; }
  ReferralCache& cache() { return cache_; }
  DomainCache& domains() { return domains_; }
  TargetHealthTable& health() { return health_; }
  Client& client(size_t i = 0) { return *clients_.at(i); }
  ClientCounters counters(size_t i = 0) { return clients_.at(i)->counters(); }

  void AddClient(ClientOptions options, const char* source = "//root1/dfs") {
    lab_.agent().RunNow([&] {
      clients_.push_back(std::make_unique<Client>(*DfsPath::Parse(source), lab_.credential(),
                                                  std::move(options), *pool_, cache_, domains_,
                                                  health_));
    });
  }
  // The same on both roots.
  void AddLink(const std::string& path, const testing::ScriptedReferral& referral) {
    for (const char* root : {"root1", "root2"}) {
      Root(root).Remove(path);
      Root(root).AddLink(path, referral);
    }
  }
  void RemoveFromRoots(const std::string& path) {
    for (const char* root : {"root1", "root2"}) Root(root).Remove(path);
  }
  testing::ScriptedShare& Root(const std::string& name) {
    return *lab_.server(name).FindShare("dfs");
  }

  struct CallOptions {
    size_t client = 0;
    RunOptions run = {};
    bool keep_tree = false;
    std::string target;                                // RunOnTarget() of this host; empty: Run().
    absl::Duration within = absl::InfiniteDuration();  // The deadline.
  };
  CallPtr Start(const std::string& path, CallOptions options) {
    auto call = std::make_shared<Call>();
    started_.push_back(call);
    lab_.agent().RunNow([&] {
      call->began = runtime::Loop::Current().Now();
      calls_->Spawn(Run(*clients_.at(options.client), *DfsPath::Parse(path), options, call));
    });
    return call;
  }
  CallPtr Start(const std::string& path) { return Start(path, CallOptions()); }

  CallPtr Do(const std::string& path, CallOptions options,
             absl::Duration limit = absl::Minutes(5)) {
    CallPtr call = Start(path, options);
    Finish(call, limit);
    return call;
  }
  CallPtr Do(const std::string& path) { return Do(path, CallOptions()); }
  bool Finish(const CallPtr& call, absl::Duration limit = absl::Minutes(5)) {
    return world().RunUntil([&] { return call->done; }, limit);
  }
  // The server that `path` is on, or the error's name.
  std::string Where(const std::string& path) { return Do(path)->Outcome(); }
  void RunFor(absl::Duration duration) { world().RunFor(duration); }

  // TCP connects to a host so far.
  int Connects(const std::string& host) {
    int count = 0;
    for (const auto& attempt : network().connect_attempts()) {
      for (const runtime::IpAddress& address : lab_.host(host).addresses()) {
        if (attempt.to.address == address) ++count;
      }
    }
    return count;
  }
  // The most TCP connects to a host that began within one second.
  int MostConnectsInASecond(const std::string& host) {
    std::vector<absl::Time> times;
    for (const auto& attempt : network().connect_attempts()) {
      if (attempt.to.address == lab_.host(host).addresses().front()) times.push_back(attempt.when);
    }
    int most = 0;
    for (size_t i = 0; i < times.size(); ++i) {
      int count = 0;
      for (size_t j = i; j < times.size() && times[j] - times[i] < absl::Seconds(1); ++j) ++count;
      most = std::max(most, count);
    }
    return most;
  }

 private:
  struct Stat {
    static runtime::Task<absl::Status> On(Binding binding, CallPtr call, bool keep_tree) {
      ++call->runs;
      call->host = binding.tree->session().connection().host();
      call->epoch = binding.epoch;
      if (keep_tree) call->tree = binding.tree;
      const absl::StatusOr<smb::FileStatus> status =
          co_await binding.tree->Stat(binding.path, call->cancel.deadline());
      call->last = status.status();
      co_return status.status();
    }
  };

  static runtime::Task<void> Run(Client& client, DfsPath path, CallOptions options, CallPtr call) {
    Client::Operation stat = [call, keep = options.keep_tree](Binding binding) {
      return Stat::On(std::move(binding), call, keep);
    };
    const runtime::Deadline deadline = call->cancel.deadline().Within(options.within);
    if (options.target.empty()) {
      call->status = co_await client.Run(std::move(path), std::move(stat), options.run, deadline);
    } else {
      call->status = co_await client.RunOnTarget(
          std::move(path),
          [host = options.target](const DfsPath& target) { return target.HostName() == host; },
          std::move(stat), options.run, deadline);
    }
    call->ended = runtime::Loop::Current().Now();
    call->done = true;
  }

  testing::ScriptedLab lab_;
  ReferralCache cache_;
  DomainCache domains_;
  TargetHealthTable health_;
  std::unique_ptr<smb::SessionPool> pool_;
  std::vector<std::unique_ptr<Client>> clients_;
  std::unique_ptr<runtime::TaskGroup> calls_;
  std::vector<CallPtr> started_;
};

}  // namespace dfscsi::dfs

#endif  // NODE_AGENT_DFS_CLIENT_TEST_LAB_H_
