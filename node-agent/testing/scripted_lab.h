// A simulated machine room for tests of the client: an agent process, and scripted servers that may
// be killed, started again, frozen and cut off.
//
//   ScriptedLab lab(seed);
//   lab.AddServer("t1").AddShare("data").AddFile("a", 100);
//   ASSERT_TRUE(lab.Run(Check(...)));
//   lab.Kill("t1");

#ifndef NODE_AGENT_TESTING_SCRIPTED_LAB_H_
#define NODE_AGENT_TESTING_SCRIPTED_LAB_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "node-agent/runtime/sim_network.h"
#include "node-agent/runtime/sim_world.h"
#include "node-agent/smb/credential.h"
#include "node-agent/testing/password_log_on.h"
#include "node-agent/testing/scripted_server.h"

namespace dfscsi::testing {

class ScriptedLab {
 public:
  static constexpr char kUser[] = "user";
  static constexpr char kPassword[] = "secret";

  explicit ScriptedLab(uint64_t seed);
  // The agent and the servers die first, then the world.
  ~ScriptedLab() = default;

  runtime::SimWorld& world() { return world_; }
  runtime::SimNetwork& network() { return world_.network(); }
  runtime::SimHost& agent_host() { return *agent_host_; }
  runtime::SimLoop& agent() { return *agent_; }
  // kill -9 of the agent; the next agent() is a new process.
  void RestartAgent();

  // A host with the name in the name table, and a server on it, running, that knows the user.
  ScriptedServer& AddServer(const std::string& name);
  ScriptedServer& server(const std::string& name) { return *servers_.at(name).server; }
  runtime::SimHost& host(const std::string& name) { return *servers_.at(name).host; }
  // REQUIRES: it runs.
  runtime::SimLoop& process(const std::string& name) { return *servers_.at(name).process; }
  bool running(const std::string& name) const { return servers_.at(name).process != nullptr; }
  void Kill(const std::string& name) { servers_.at(name).process.reset(); }
  // Starts the server's process (again), on a host with power.
  void Start(const std::string& name);
  void PowerOff(const std::string& name);
  // What servers saw clients do wrong; empty, or a bug.
  std::vector<std::string> Violations() const;

  PasswordAuthenticators& authenticators() { return authenticators_; }
  smb::Credential credential() const;

  // Runs `task` as the agent; whether it ended within `limit` of virtual time.
  bool Run(runtime::Task<void> task, absl::Duration limit = absl::Minutes(10)) {
    return world_.RunTask(*agent_, std::move(task), limit);
  }

 private:
  struct Machine {
    runtime::SimHost* host = nullptr;
    std::unique_ptr<ScriptedServer> server;
    std::unique_ptr<runtime::SimLoop> process;
  };

  runtime::SimWorld world_;
  PasswordAuthenticators authenticators_;
  runtime::SimHost* agent_host_;
  std::map<std::string, Machine> servers_;
  std::unique_ptr<runtime::SimLoop> agent_;
};

}  // namespace dfscsi::testing

#endif  // NODE_AGENT_TESTING_SCRIPTED_LAB_H_
