#include "node-agent/testing/scripted_lab.h"

#include <utility>

namespace dfscsi::testing {

using runtime::IpAddress;
using runtime::SimLoop;

ScriptedLab::ScriptedLab(uint64_t seed)
    : world_(seed),
      agent_host_(&world_.network().AddHost("agent", {IpAddress::V4({10, 0, 0, 1})})),
      agent_(std::make_unique<SimLoop>(world_, *agent_host_, "agent")) {}

void ScriptedLab::RestartAgent() {
  agent_.reset();
  agent_ = std::make_unique<SimLoop>(world_, *agent_host_, "agent");
}

ScriptedServer& ScriptedLab::AddServer(const std::string& name) {
  Machine& machine = servers_[name];
  const auto number = static_cast<uint8_t>(servers_.size() + 10);
  machine.host = &world_.network().AddNamedHost(name, {IpAddress::V4({10, 0, 0, number})});
  machine.server = std::make_unique<ScriptedServer>(name);
  machine.server->AddUser(kUser, kPassword);
  Start(name);
  return *machine.server;
}

void ScriptedLab::Start(const std::string& name) {
  Machine& machine = servers_.at(name);
  machine.process.reset();
  machine.host->PowerOn();
  machine.process = std::make_unique<SimLoop>(world_, *machine.host, name);
  machine.process->Spawn(machine.server->Serve({IpAddress::V4({}), 445}));
}

void ScriptedLab::PowerOff(const std::string& name) {
  servers_.at(name).host->PowerOff();
  Kill(name);
}

std::vector<std::string> ScriptedLab::Violations() const {
  std::vector<std::string> all;
  for (const auto& [name, machine] : servers_) {
    const std::vector<std::string>& some = machine.server->violations();
    all.insert(all.end(), some.begin(), some.end());
  }
  return all;
}

smb::Credential ScriptedLab::credential() const {
  smb::Credential credential;
  credential.user = kUser;
  credential.password = Secret(kPassword);
  return credential;
}

}  // namespace dfscsi::testing
