#include "node-agent/testing/scripted_server.h"

#include <stdio.h>

#include <algorithm>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "node-agent/smb/wire/utf16.h"
#include "node-agent/testing/scripted_connection.h"
#include "node-agent/testing/scripted_opens.h"

namespace dfscsi::testing {
namespace {

constexpr size_t kMostLogged = 100'000;

bool SameName(std::string_view a, std::string_view b) {
  return smb::wire::FoldCaseUtf8(a) == smb::wire::FoldCaseUtf8(b);
}

}  // namespace

uint64_t ContentHash(smb::wire::Bytes content) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const uint8_t byte : content) hash = (hash ^ byte) * 0x100000001b3;
  return hash;
}

ScriptedServer::ScriptedServer(std::string name)
    : name_(std::move(name)), opens_(std::make_unique<ScriptedOpens>(*this)) {}
ScriptedServer::~ScriptedServer() = default;

ScriptedShare& ScriptedServer::AddShare(std::string_view name) {
  std::unique_ptr<ScriptedShare>& share = shares_[smb::wire::FoldCaseUtf8(name)];
  share = std::make_unique<ScriptedShare>();
  return *share;
}

void ScriptedServer::RemoveShare(std::string_view name) {
  DisconnectTrees(name);
  shares_.erase(smb::wire::FoldCaseUtf8(name));
}

ScriptedShare* ScriptedServer::FindShare(std::string_view name) {
  const auto share = shares_.find(smb::wire::FoldCaseUtf8(name));
  return share == shares_.end() ? nullptr : share->second.get();
}

void ScriptedServer::AddUser(const std::string& user, std::string password) {
  passwords_.SetPassword(user, std::move(password));
}

void ScriptedServer::AddDomain(std::string domain, std::vector<std::string> controllers) {
  domains_[std::move(domain)] = std::move(controllers);
}

// --- Serving

runtime::Task<void> ScriptedServer::Serve(runtime::SocketAddress on) {
  auto listener = runtime::Loop::Current().network().Listen(on);
  if (!listener.ok()) {
    fprintf(stderr, "%s: cannot listen on %s: %s\n", name_.c_str(), on.ToString().c_str(),
            std::string(listener.status().message()).c_str());
    co_return;
  }
  struct Listening {
    std::vector<runtime::SocketAddress>& all;
    runtime::SocketAddress address;
    ~Listening() { std::erase(all, address); }
  } listening{listening_, (*listener)->local()};
  // A new process: the one before it took its memory along.
  if (listening_.empty()) opens_->ForgetVolatile();
  listening_.push_back(listening.address);
  runtime::TaskGroup connections;
  struct Serving {
    static runtime::Task<void> Run(ScriptedServer* server, std::unique_ptr<runtime::Stream> stream,
                                   int number) {
      ScriptedConnection connection(*server, std::move(stream), number);
      co_await connection.Run();
    }
  };
  while (true) {
    // Ends with the process.
    auto stream = co_await (*listener)->Accept(runtime::Deadline::Never());
    if (!stream.ok()) co_return;
    connections.Spawn(
        Serving::Run(this, *std::move(stream), static_cast<int>(++connections_ever_)));
  }
}

void ScriptedServer::CloseConnections(Closing how) {
  for (ScriptedConnection* const connection : connections_) connection->Close(how);
}

void ScriptedServer::HangConnections(absl::Time until) {
  for (ScriptedConnection* const connection : connections_) connection->Hang(until);
}

void ScriptedServer::ExpireSessions() {
  for (const auto& [id, session] : sessions_) session->expired = true;
}

void ScriptedServer::DeleteSessions() {
  while (!sessions_.empty()) {
    const uint64_t id = sessions_.begin()->first;
    sessions_.begin()->second->connection->ForgetSession(id);
    EndSession(id, /*keep_durable=*/false);
  }
}

void ScriptedServer::EndSession(uint64_t id, bool keep_durable) {
  const auto found = sessions_.find(id);
  if (found == sessions_.end()) return;
  const std::shared_ptr<ScriptedSession> session = found->second;
  sessions_.erase(found);
  opens_->EndSession(*session, keep_durable);
}

void ScriptedServer::BreakLeases(std::string_view share, std::string_view path, uint32_t state) {
  ScriptedShare* const in = FindShare(share);
  const ScriptedFile* const file = in == nullptr ? nullptr : in->Find(path);
  if (file != nullptr) opens_->BreakOthers(*file, {}, std::nullopt, state);
}

void ScriptedServer::BreakAllLeases(uint32_t state) {
  std::set<const ScriptedFile*> files;
  std::vector<const ScriptedFile*> in_order;  // Of keys, which a seed draws.
  for (const auto& [id, lease] : opens_->leases()) {
    if (files.insert(lease.file.get()).second) in_order.push_back(lease.file.get());
  }
  for (const ScriptedFile* const file : in_order) {
    opens_->BreakOthers(*file, {}, std::nullopt, state);
  }
}

int ScriptedServer::locks(std::string_view share, std::string_view path) {
  ScriptedShare* const in = FindShare(share);
  const ScriptedFile* const file = in == nullptr ? nullptr : in->Find(path);
  return file == nullptr ? -1 : static_cast<int>(file->locks.size());
}

bool ScriptedServer::IsLockedByFormer(const ScriptedFile& file) const {
  const auto is_former = [&](const ScriptedLock& lock) {
    return std::none_of(sessions_.begin(), sessions_.end(), [&](const auto& session) {
      if (session.second->connection->number() != connections_ever_) return false;
      const auto& opens = session.second->opens;
      return std::any_of(opens.begin(), opens.end(), [&](const auto& open) {
        return open.second.id.persistent_id == lock.owner;
      });
    });
  };
  return std::any_of(file.locks.begin(), file.locks.end(), is_former);
}

std::vector<uint32_t> ScriptedServer::leases(std::string_view share, std::string_view path) const {
  const auto in = shares_.find(smb::wire::FoldCaseUtf8(share));
  const ScriptedFile* const file = in == shares_.end() ? nullptr : in->second->Find(path);
  std::vector<uint32_t> states;
  for (const auto& [id, lease] : opens_->leases()) {
    if (file != nullptr && lease.file.get() == file) states.push_back(lease.state);
  }
  return states;
}

int ScriptedServer::durable_opens() const { return opens_->durable(); }

void ScriptedServer::DisconnectTrees(std::string_view share) {
  for (const auto& [id, session] : sessions_) {
    std::set<uint32_t> gone;
    for (const auto& [tree_id, tree] : session->trees) {
      if (SameName(tree.share, share)) gone.insert(tree_id);
    }
    for (const uint32_t tree_id : gone) session->trees.erase(tree_id);
    for (auto at = session->opens.begin(); at != session->opens.end();) {
      if (!gone.contains(at->second.tree_id)) {
        ++at;
        continue;
      }
      ScriptedOpen open = std::move(at->second);
      at = session->opens.erase(at);
      opens_->End(std::move(open));
    }
  }
}

// --- The script and the log

Action ScriptedServer::Decide(const ScriptedRequest& request) {
  if (script_) {
    if (std::optional<Action> action = script_(request)) return *std::move(action);
  }
  for (UsedRule& used : rules_) {
    const Rule& rule = used.rule;
    if (rule.command.has_value() && *rule.command != request.header.command) continue;
    if (rule.fsctl.has_value() && rule.fsctl != request.fsctl) continue;
    if (rule.share.has_value() && !SameName(*rule.share, request.share)) continue;
    if (rule.path.has_value() && !SameName(*rule.path, request.path)) continue;
    const int64_t seen = used.seen;
    if (seen >= rule.skip && seen - rule.skip >= rule.times) continue;  // Used up.
    ++used.seen;
    if (seen >= rule.skip) return rule.action;
  }
  return {};
}

void ScriptedServer::Record(ScriptedRequest request) {
  ++counts_[request.header.command];
  if (request.fsctl == smb::wire::Fsctl::kDfsGetReferrals ||
      request.fsctl == smb::wire::Fsctl::kDfsGetReferralsEx) {
    ++referrals_;
  }
  request.body = {};  // It points into a frame that goes away.
  log_.push_back(std::move(request));
  if (log_.size() > kMostLogged) log_.pop_front();
}

void ScriptedServer::Violation(int connection, std::string_view what) {
  violations_.push_back(absl::StrCat(name_, ", connection ", connection, ": ",
                                     absl::string_view(what.data(), what.size())));
}

int64_t ScriptedServer::Count(smb::wire::Command command) const {
  const auto count = counts_.find(command);
  return count == counts_.end() ? 0 : count->second;
}

int64_t ScriptedServer::CountReferrals() const { return referrals_; }

void ScriptedServer::ClearLog() {
  log_.clear();
  counts_.clear();
  referrals_ = 0;
  frames_ = 0;
}

int ScriptedServer::sessions() const {
  return static_cast<int>(std::count_if(sessions_.begin(), sessions_.end(),
                                        [](const auto& one) { return one.second->valid; }));
}

int ScriptedServer::opens() const {
  size_t opens = 0;
  for (const auto& [id, session] : sessions_) opens += session->opens.size();
  return static_cast<int>(opens);
}

}  // namespace dfscsi::testing
