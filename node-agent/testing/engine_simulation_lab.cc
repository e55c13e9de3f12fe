#include "node-agent/testing/engine_simulation_lab.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "node-agent/smb/wire/utf16.h"

namespace dfscsi::simulation {
namespace {

using runtime::SimLoop;
using runtime::SimPath;
using testing::ScriptedFile;
using testing::ScriptedShare;

// How long after its re-creation a link may still be taken for absent: a negative referral entry,
// then a directory that the kernel was told is empty.
constexpr absl::Duration kAbsenceIsRemembered = absl::Seconds(12);

constexpr int kDeepestLink = 4;

// One copy's tree. Made once for each target, not for each seed. File ids differ between copies, as
// they do between servers.
const ScriptedFile& CopyOf(int target) {
  static auto* const copies = new std::map<int, ScriptedShare>();
  auto [it, made] = copies->try_emplace(target);
  ScriptedShare& share = it->second;
  if (made) {
    for (int i = 0; i < 10 * target; ++i) share.AddFile("other", 1), share.Remove("other");
    for (size_t i = 0; i < kFileBytes.size(); ++i) {
      share.AddFile(FileName(static_cast<int>(i)), kFileBytes[i]);
    }
    for (int i = 0; i < kManyEntries; ++i) share.AddFile(absl::StrCat("many/", EntryName(i)), 10);
    for (int i = 0; i < kLargeEntries; ++i) share.AddFile(absl::StrCat("large/", EntryName(i)), 10);
  }
  return *share.root();
}

}  // namespace

std::string FileName(int i) { return absl::StrCat("file", i); }
std::string EntryName(int i) { return absl::StrCat("entry", i); }

// --- A server

Server::Server(runtime::SimWorld& world, runtime::SimHost& client, int index,
               const std::string& name, const std::string& address)
    : world_(world),
      client_(client),
      scripted_(name),
      host_(world.network().AddNamedHost(name, {*runtime::IpAddress::Parse(address)})),
      listen_{*runtime::IpAddress::Parse(address), 445},
      well_since_(world.now()) {
  scripted_.AddUser("user", "secret");
  if (index >= Lab::kRoots) {
    const ScriptedFile& copy = CopyOf(index);
    ScriptedShare& data = scripted_.AddShare("data");
    data.root()->children = copy.children;
    data.listing_order = static_cast<uint64_t>(index);
    ScriptedShare& alt = scripted_.AddShare("alt");
    alt.AddDirectory("sub").children = copy.children;
    alt.listing_order = static_cast<uint64_t>(index) + 10;
  }
  Start();
}

Server::~Server() = default;

void Server::Begin() {
  if (++wrong_ == 1) wrong_times_.emplace_back(world_.now(), absl::InfiniteFuture());
  well_since_ = absl::InfiniteFuture();
}

void Server::End() {
  if (--wrong_ != 0) return;
  well_since_ = world_.now();
  wrong_times_.back().second = world_.now();
}

bool Server::well_at(absl::Time when) const {
  return std::none_of(wrong_times_.begin(), wrong_times_.end(), [when](const auto& wrong) {
    return wrong.first <= when && when <= wrong.second;
  });
}

void Server::Start() {
  if (process_ != nullptr) return;
  process_ = std::make_unique<SimLoop>(world_, host_, name());
  process_->RunNow([this] { process_->Spawn(scripted_.Serve(listen_)); });
}

void Server::Kill() { process_.reset(); }

void Server::Freeze(bool frozen) {
  if (process_ == nullptr) return;
  if (frozen) {
    process_->Freeze();
  } else {
    process_->Unfreeze();
  }
}

void Server::PowerOff() {
  host_.PowerOff();
  process_.reset();
}

void Server::PowerOn() {
  host_.PowerOn();
  Start();
}

void Server::ResetConnections() { world_.network().ResetConnections(client_, host_); }

void Server::BreakLeases(uint32_t state) {
  if (process_ == nullptr) return;
  process_->RunNow([this, state] { scripted_.BreakAllLeases(state); });
}

void Server::ApplyPath() {
  for (const bool to_server : {true, false}) {
    SimPath path;
    path.latency += path_.latency;
    path.loss = path_.loss;
    if ((to_server ? path_.cut_in : path_.cut_out) > 0) path.fate = SimPath::Fate::kDropped;
    world_.network().SetPath(to_server ? client_ : host_, to_server ? host_ : client_, path);
  }
}

// --- The lab

Lab::Lab(runtime::SimWorld& world, runtime::SimHost& client, uint32_t ttl_seconds)
    : world_(world), ttl_seconds_(ttl_seconds) {
  const std::pair<const char*, const char*> hosts[] = {{"root1", "10.0.0.11"},
                                                       {"root2", "10.0.0.12"},
                                                       {"t1", "10.0.0.21"},
                                                       {"t2", "10.0.0.22"},
                                                       {"t3", "10.0.0.23"}};
  for (const auto& [name, address] : hosts) {
    servers_.push_back(
        std::make_unique<Server>(world, client, static_cast<int>(servers_.size()), name, address));
  }
  for (int root = 0; root < kRoots; ++root) {
    for (const char* share : {"dfs", "ns2"}) {
      ScriptedShare& dfs = servers_[root]->scripted().AddShare(share);
      dfs.dfs_root = true;
      dfs.root_referral.targets = {absl::StrCat("root1/", share), absl::StrCat("root2/", share)};
      dfs.root_referral.ttl_seconds = ttl_seconds;
    }
  }
  const std::pair<const char*, LinkPlan> links[] = {
      {"dfs/two", {.targets = {"t1/data", "t2/data"}}},
      {"dfs/three", {.targets = {"t3/data", "t2/data", "t1/data"}}},
      {"dfs/nested", {.targets = {"root2/dfs/three", "root1/dfs/three"}}},
      {"dfs/inter", {.targets = {"root1/ns2/one", "root2/ns2/one"}, .interlink = true}},
      {"ns2/one", {.targets = {"t2/data", "t3/data"}}}};
  for (const auto& [path, plan] : links) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(path, '/');
    Link& link = links_[path] = {.share = parts.first, .plan = plan, .changed = world.now()};
    for (int root = 0; root < kRoots; ++root) Publish(root, parts.second, link);
  }
}

void Lab::Publish(int root, const std::string& name, const Link& link) {
  ScriptedShare& share = *servers_[root]->scripted().FindShare(link.share);
  if (!link.plan.present) {
    share.Remove(name);
    return;
  }
  testing::ScriptedReferral referral{.version = 4, .ttl_seconds = ttl_seconds_};
  referral.interlink = link.plan.interlink;
  for (const std::string& target : link.plan.targets) referral.targets.emplace_back(target);
  share.AddLink(name, std::move(referral));
}

void Lab::ChangeLink(const std::string& name, LinkPlan plan, absl::Duration lag) {
  Link& link = links_.at(absl::StrCat("dfs/", name));
  world_.Log(absl::StrCat("link ", name, " -> ",
                          plan.present ? absl::StrJoin(plan.targets, ", ") : "nothing"));
  if (!plan.present) {
    link.absent_until = absl::InfiniteFuture();
  } else if (!link.plan.present) {
    link.absent_until = world_.now() + lag + kAbsenceIsRemembered + absl::Seconds(ttl_seconds_);
  }
  link.targets_before = std::move(link.plan.targets);
  link.plan = std::move(plan);
  link.changed = world_.now() + lag;
  Publish(0, name, link);
  world_.After(lag, [this, name] { Publish(1, name, links_.at(absl::StrCat("dfs/", name))); });
}

void Lab::LeaveFirstTargets() {
  for (auto& [path, link] : links_) {
    if (path == "dfs/nested" || path == "dfs/inter") continue;  // They lead to namespaces.
    link.plan.targets.resize(1);
    for (int root = 0; root < kRoots; ++root) Publish(root, path.substr(4), link);
  }
}

absl::Time Lab::NamespaceServedSince() const {
  return std::min(servers_[0]->well_since(), servers_[1]->well_since());
}

absl::Time Lab::TargetServedSince(const std::string& target, int depth) const {
  const std::vector<std::string> parts = absl::StrSplit(target, '/');
  for (int i = kRoots; i < kServers; ++i) {
    if (servers_[i]->name() == parts[0]) return servers_[i]->well_since();
  }
  const auto link = links_.find(absl::StrCat(parts[1], "/", parts[2]));
  if (link == links_.end() || depth > kDeepestLink) return absl::InfiniteFuture();
  return LinkServedSince(link->second, depth + 1);
}

absl::Time Lab::LinkServedSince(const Link& link, int depth) const {
  if (!link.plan.present) return absl::InfiniteFuture();
  absl::Time since = absl::InfiniteFuture();
  for (const std::string& target : link.plan.targets) {
    since = std::min(since, TargetServedSince(target, depth));
  }
  return std::max({since, link.changed, NamespaceServedSince()});
}

absl::Time Lab::ServedSince(const std::string& link) const {
  if (link.empty()) return NamespaceServedSince();
  return LinkServedSince(links_.at(absl::StrCat("dfs/", link)), 0);
}

// When the first of the targets is no longer missing: another one that is lost, not missing, is
// waited for.
absl::Time Lab::MissingUntil(const std::vector<std::string>& targets, int depth) const {
  absl::Time until = targets.empty() ? absl::InfinitePast() : absl::InfiniteFuture();
  for (const std::string& target : targets) {
    const std::vector<std::string> parts = absl::StrSplit(target, '/');
    absl::Time missing = absl::InfinitePast();
    for (const auto& server : servers_) {
      if (server->name() == parts[0]) missing = server->missing_until();
    }
    if (parts.size() == 3 && depth < kDeepestLink) {
      if (const auto link = links_.find(absl::StrCat(parts[1], "/", parts[2]));
          link != links_.end()) {
        missing = std::max({missing, link->second.absent_until,
                            MissingUntil(link->second.plan.targets, depth + 1),
                            MissingUntil(link->second.targets_before, depth + 1)});
      }
    }
    until = std::min(until, missing);
  }
  return until;
}

absl::Time Lab::UnsettledUntil(const std::string& link) const {
  const auto found = links_.find(absl::StrCat("dfs/", link));
  if (found == links_.end()) return absl::InfinitePast();
  const Link& known = found->second;
  return std::max({known.absent_until, MissingUntil(known.plan.targets, 0),
                   MissingUntil(known.targets_before, 0)});
}

}  // namespace dfscsi::simulation
