// The file servers of a simulated engine: two namespace servers and three targets that hold equal
// copies, what is wrong with each of them now, and who serves which link.
//
//   root1, root2   //rootN/dfs: two -> t1, t2; three -> t3, t2, t1; nested -> three's namespace
//                  path; inter -> //rootN/ns2/one (an interlink)
//                  //rootN/ns2: one -> t2, t3
//   t1, t2, t3     share "data" (file0 … file3, many/, large/) and share "alt" (the same below
//   sub/)
//
// Faults may overlap: a server is well again when the last one has ended.

#ifndef NODE_AGENT_TESTING_ENGINE_SIMULATION_LAB_H_
#define NODE_AGENT_TESTING_ENGINE_SIMULATION_LAB_H_

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "node-agent/runtime/sim_network.h"
#include "node-agent/runtime/sim_world.h"
#include "node-agent/testing/scripted_server.h"

namespace dfscsi::simulation {

// Content, size and names are functions of the path: what every reader checks against.
inline constexpr std::array<uint64_t, 4> kFileBytes = {300, 5'000, 70'000, 200'000};
inline constexpr int kManyEntries = 40;
inline constexpr int kLargeEntries = 300;
std::string FileName(int i);
std::string EntryName(int i);

// A server, its machine and its process.
class Server {
 public:
  Server(runtime::SimWorld& world, runtime::SimHost& client, int index, const std::string& name,
         const std::string& address);
  ~Server();

  testing::ScriptedServer& scripted() { return scripted_; }
  const std::string& name() const { return scripted_.name(); }
  runtime::SimHost& host() { return host_; }

  // From Begin() until as many End()s: no progress is owed by way of this server. Faults that a
  // client must bear without delay (a slow answer, a small credit) do not begin anything.
  void Begin();
  void End();
  // Infinite future while something is wrong.
  absl::Time well_since() const { return well_since_; }
  bool well_at(absl::Time when) const;

  void Start();
  void Kill();
  void Freeze(bool frozen);
  void PowerOff();
  void PowerOn();
  void ResetConnections();
  // Of all its files, down to `state`.
  void BreakLeases(uint32_t state);

  // The path to the client; Apply() makes it so.
  struct Path {
    absl::Duration latency = absl::ZeroDuration();  // In addition.
    double loss = 0;
    int cut_in = 0;  // Faults that cut what comes to the server, and from it.
    int cut_out = 0;
  };
  Path& path() { return path_; }
  void ApplyPath();

  // Until when its share may be taken for missing.
  absl::Time missing_until() const { return missing_until_; }
  void set_missing_until(absl::Time until) { missing_until_ = std::max(missing_until_, until); }

 private:
  runtime::SimWorld& world_;
  runtime::SimHost& client_;
  testing::ScriptedServer scripted_;
  runtime::SimHost& host_;
  const runtime::SocketAddress listen_;
  std::unique_ptr<runtime::SimLoop> process_;
  Path path_;
  int wrong_ = 0;
  std::vector<std::pair<absl::Time, absl::Time>> wrong_times_;  // From, to.
  absl::Time missing_until_ = absl::InfinitePast();
  absl::Time well_since_;
};

// A link's referral, the same on both namespace servers but for a change that is on its way.
struct LinkPlan {
  std::vector<std::string> targets;
  bool interlink = false;
  bool present = true;
};

class Lab {
 public:
  static constexpr int kRoots = 2;
  static constexpr int kServers = 5;
  // The links of //rootN/dfs that applications use.
  static constexpr std::array<const char*, 4> kLinks = {"two", "three", "nested", "inter"};

  Lab(runtime::SimWorld& world, runtime::SimHost& client, uint32_t ttl_seconds);

  Server& server(int i) { return *servers_[i]; }

  // Changes a link at root1 now and at root2 after `lag` (replication takes its time).
  void ChangeLink(const std::string& link, LinkPlan plan, absl::Duration lag);
  // Each link has its first target only, from now on. Before anybody has asked.
  void LeaveFirstTargets();
  void SetReferralTtl(uint32_t seconds) { ttl_seconds_ = seconds; }

  // Since when every namespace question can be answered by somebody.
  absl::Time NamespaceServedSince() const;
  // Since when somebody serves the link, by a referral that has been the same since. Infinite
  // future: nobody does, or the link is not there.
  absl::Time ServedSince(const std::string& link) const;
  // Until when ENOENT may be seen for the link, because it is or was absent, or because all of its
  // targets say that they have no such share: a time that has passed where it is settled.
  absl::Time UnsettledUntil(const std::string& link) const;

 private:
  struct Link {
    std::string share;  // "dfs" or "ns2"
    LinkPlan plan;
    std::vector<std::string> targets_before;  // Of the plan before: may be cached.
    absl::Time changed;
    absl::Time absent_until = absl::InfinitePast();
  };
  void Publish(int root, const std::string& name, const Link& link);
  absl::Time TargetServedSince(const std::string& target, int depth) const;
  absl::Time MissingUntil(const std::vector<std::string>& targets, int depth) const;
  absl::Time LinkServedSince(const Link& link, int depth) const;

  runtime::SimWorld& world_;
  std::vector<std::unique_ptr<Server>> servers_;
  std::map<std::string, Link> links_;  // By "dfs/two".
  uint32_t ttl_seconds_;
};

}  // namespace dfscsi::simulation

#endif  // NODE_AGENT_TESTING_ENGINE_SIMULATION_LAB_H_
