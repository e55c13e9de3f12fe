#include "node-agent/testing/engine_simulation.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "node-agent/runtime/sim_network.h"
#include "node-agent/state/request_arena.h"

namespace dfscsi::simulation {

using smb::wire::Command;
using smb::wire::NtStatus;
using testing::Closing;

namespace {

constexpr absl::Duration kProgressCheck = absl::Milliseconds(250);
// After the last fault: back-offs, negative entries and what the kernel was told run out.
constexpr absl::Duration kToGetOn = absl::Seconds(60);
// Closes that are sent when the applications have gone.
constexpr absl::Duration kMissingIsRemembered = absl::Seconds(12);
constexpr absl::Duration kToLetGo = absl::Seconds(5);

const runtime::SimWorld* simulated_world = nullptr;  // There is one at a time.

}  // namespace

Simulation::Simulation(Schedule schedule, bool verbose)
    : schedule_(std::move(schedule)),
      world_(schedule_.seed),
      host_(world_.network().AddHost("node", {*runtime::IpAddress::Parse("10.0.0.100")})),
      oracle_(world_) {
  world_.set_verbose(verbose);
  simulated_world = &world_;
  state::SetArenaClockForTest(
      [] { return static_cast<uint64_t>(absl::ToUnixNanos(simulated_world->now())); });
  world_.network().set_fragmentation(schedule_.fragmentation);
  lab_ = std::make_unique<Lab>(world_, host_, schedule_.ttl_seconds);
  if (schedule_.single_targets) lab_->LeaveFirstTargets();
  for (int i = 0; i < Lab::kServers; ++i) {
    testing::ScriptedServer& server = lab_->server(i).scripted();
    server.options().encrypt_sessions = schedule_.encrypt;
    server.options().appends = schedule_.server_appends;
    if (!verbose) continue;
    server.set_script([this, &server](const testing::ScriptedRequest& request) {
      world_.Log(absl::StrCat(server.name(), " ", request.connection, ": ",
                              std::string(smb::wire::CommandName(request.header.command)), " ",
                              request.header.message_id, " +", request.header.credit_charge, " ",
                              request.share, "/", request.path));
      return std::nullopt;
    });
  }
  node_ = std::make_unique<Node>(
      world_, host_, oracle_,
      NodeOptions{.smb = schedule_.smb,
                  .referral_ttl_min = absl::Seconds(std::min<uint32_t>(schedule_.ttl_seconds, 5)),
                  .write_behind = schedule_.write_behind,
                  .save_cache = schedule_.save_cache});
  workload_ = std::make_unique<Workload>(*node_, *lab_, oracle_, schedule_.longest_pause);
  if (schedule_.lockers > 0) {
    lockers_ = std::make_unique<Lockers>(*node_, *lab_, oracle_, schedule_.longest_pause,
                                         schedule_.FirstTargetsServe(), schedule_.single_targets);
  }
  if (schedule_.writers > 0) {
    writers_ = std::make_unique<Writers>(*node_, *lab_, oracle_, schedule_.longest_pause,
                                         schedule_.FirstTargetsServe(), schedule_.single_targets);
  }
  node_->StartAgent();
  for (int i = 0; i < schedule_.mounts; ++i) StartApplications(SourceOf(i));
  world_.After(kProgressCheck, [this] { CheckProgress(); });
}

Simulation::~Simulation() {
  node_.reset();
  state::SetArenaClockForTest(nullptr);
}

void Simulation::StartApplications(const std::string& source) {
  const std::shared_ptr<Mount> mount = node_->AddMount(source);
  workload_->Start(mount, schedule_.applications);
  if (writers_ != nullptr) writers_->Start(mount, schedule_.writers, schedule_.sharers);
  if (lockers_ != nullptr) lockers_->Start(mount, schedule_.lockers);
}

std::string Simulation::SourceOf(int mount) const {
  return mount % 2 == 0 ? "//root1/dfs" : "//root2/dfs";
}

void Simulation::CheckProgress() {
  const absl::Time agent_since = node_->agent_well_since();
  for (const auto& [id, mount] : node_->mounts()) {
    const absl::Time source_since = SourceServedSince(*mount);
    mount->ForEachPending([&](const RequestRecord& record) {
      oracle_.CheckProgress(record, std::max(lab_->ServedSince(record.link), source_since),
                            agent_since);
    });
  }
  world_.After(kProgressCheck, [this] { CheckProgress(); });
}

// Who knows nothing of a namespace yet can ask only the server that the mount names.
absl::Time Simulation::SourceServedSince(const Mount& mount) {
  Server& server = lab_->server(mount.source() == SourceOf(0) ? 0 : 1);
  absl::Time began = mount.made();
  if (!schedule_.save_cache && !node_->agent_starts().empty()) {
    began = std::max(began, node_->agent_starts().back());
  }
  const bool knows = server.well_at(began) && server.well_at(began + absl::Seconds(1));
  return knows ? absl::InfinitePast() : server.well_since();
}

bool Simulation::RunUntil(const std::function<bool()>& done, absl::Duration limit) {
  const bool ended = world_.RunUntil(
      [&] {
        node_->Pump();
        return oracle_.failed() || done();
      },
      limit);
  return ended && !oracle_.failed();
}

bool Simulation::RunFor(absl::Duration duration) {
  (void)RunUntil([] { return false; }, duration);
  return !oracle_.failed();
}

bool Simulation::Run() {
  for (const Event& event : schedule_.events) {
    world_.After(event.at, [this, &event] { Apply(event); });
  }
  if (!RunFor(schedule_.end() + absl::Seconds(1))) return false;
  workload_->set_calm();
  if (writers_ != nullptr) writers_->set_calm();
  if (lockers_ != nullptr) lockers_->set_calm();
  const std::vector<Workload::Progress> before = workload_->progress();
  const std::vector<Writers::Progress> steps =
      writers_ == nullptr ? std::vector<Writers::Progress>() : writers_->progress();
  const auto got_on = [&] {
    return workload_->AllGotOnSince(before) && (steps.empty() || writers_->AllGotOnSince(steps));
  };
  if (!RunUntil(got_on, kToGetOn)) {
    if (!oracle_.failed()) oracle_.Violation("somebody does not get on");
    return false;
  }
  Finish();
  return !oracle_.failed();
}

void Simulation::Finish() {
  workload_->Stop();
  if (writers_ != nullptr) writers_->Stop();
  if (lockers_ != nullptr) lockers_->Stop();
  if (lockers_ != nullptr || schedule_.sharers > 0) {
    // What is locked now nobody touches any more: the next agent holds it again by itself.
    if (node_->agent_runs()) node_->KillAgent();
    node_->StartAgent();
  }
  const auto ended = [this] {
    return workload_->running() == 0 && (writers_ == nullptr || writers_->running() == 0) &&
           (lockers_ == nullptr || lockers_->running() == 0);
  };
  if (!RunUntil(ended, kToGetOn)) {
    if (!oracle_.failed()) oracle_.Violation("an application does not end");
    return;
  }
  if (!RunFor(kToLetGo)) return;
  if (writers_ != nullptr) writers_->CheckEnd();
  node_->ExpectNothingHeld();
  oracle_.CheckConnects(node_->agent_starts());
  for (int i = 0; i < Lab::kServers; ++i) {
    testing::ScriptedServer& server = lab_->server(i).scripted();
    if (!server.violations().empty()) oracle_.Violation(server.violations().front());
    // What a dead agent had open on a server that was cut off then is the server's to find out; so
    // is what TCP has not told it yet.
    const std::vector<absl::Time>& deaths = node_->agent_deaths();
    const bool knows = std::all_of(deaths.begin(), deaths.end(), [&](absl::Time death) {
      return lab_->server(i).well_at(death);
    });
    const bool told = !world_.network().HasNotHeardAll(lab_->server(i).host());
    if (server.opens() != 0 && knows && told) {
      oracle_.Violation(absl::StrCat(server.name(), ": ", server.opens(), " opens are left over"));
    }
  }
  const dfs::ClientCounters counters = node_->counters();
  if (schedule_.mild && counters.failovers != 0) {
    oracle_.Violation(absl::StrCat(counters.failovers, " false failovers"));
  }
  if (schedule_.AllAnswersInTime() && counters.suspicions != 0) {
    oracle_.Violation(absl::StrCat(counters.suspicions, " false suspicions"));
  }
}

// --- Faults

void Simulation::Wrong(Server& server, absl::Duration lasts, std::function<void()> end) {
  server.Begin();
  world_.After(lasts, [&server, end = std::move(end)] {
    end();
    server.End();
  });
}

void Simulation::Kill(Server& server, absl::Duration lasts) {
  server.Kill();
  Wrong(server, lasts, [&server] { server.Start(); });
}

void Simulation::Flap(Server& server, absl::Duration lasts, int times) {
  const absl::Duration each = lasts / times;
  for (int i = 0; i < times; ++i) {
    world_.After(each * i, [&server] { server.Kill(); });
    world_.After(each * i + each / 2, [&server] { server.Start(); });
  }
  Wrong(server, lasts, [&server] { server.Start(); });
}

void Simulation::MountAgain(const std::string& source) {
  if (const absl::Duration rest = node_->stalled_until() - world_.now();
      rest > absl::ZeroDuration()) {
    world_.After(rest + absl::Milliseconds(1), [this, source] { MountAgain(source); });
    return;
  }
  if (!workload_->stopping()) StartApplications(source);
}

void Simulation::Remount(uint64_t detail, absl::Duration lasts) {
  if (node_->mounts().empty()) return;
  if (const absl::Duration rest = node_->stalled_until() - world_.now();
      rest > absl::ZeroDuration()) {
    // Nobody can make an agent do anything that stands still.
    world_.After(rest + absl::Milliseconds(1), [this, detail, lasts] { Remount(detail, lasts); });
    return;
  }
  auto victim = node_->mounts().begin();
  std::advance(victim, detail % node_->mounts().size());
  const std::string source = victim->second->source();
  node_->Unmount(victim->first);
  world_.After(lasts, [this, source] { StartApplications(source); });
}

void Simulation::Apply(const Event& event) {
  world_.Log(absl::StrCat("FAULT", event.ToString()));
  switch (event.fault) {
    case Fault::kStall:
      node_->StallAgent(event.lasts);
      break;
    case Fault::kKillAgent:
      node_->KillAgent();
      world_.After(event.lasts, [this] { node_->StartAgent(); });
      break;
    case Fault::kHandOver:
      node_->HandOver(absl::Milliseconds(100), std::min(event.lasts, absl::Milliseconds(50)));
      break;
    case Fault::kUnmount:
      Remount(event.detail, event.lasts);
      break;
    case Fault::kAllRoots:
      for (int i = 0; i < Lab::kRoots; ++i) Kill(lab_->server(i), event.lasts);
      break;
    case Fault::kAllTargets:
      for (int i = Lab::kRoots; i < Lab::kServers; ++i) Kill(lab_->server(i), event.lasts);
      break;
    case Fault::kNameServer:
      world_.network().set_name_server(event.detail % 2 == 0
                                           ? runtime::SimNetwork::NameServer::kSilent
                                           : runtime::SimNetwork::NameServer::kFails);
      for (int i = 0; i < Lab::kServers; ++i) {
        Wrong(lab_->server(i), event.lasts, [this] {
          world_.network().set_name_server(runtime::SimNetwork::NameServer::kAnswers);
        });
      }
      break;
    case Fault::kRetarget:
    case Fault::kNest:
    case Fault::kInterlink:
    case Fault::kRemoveLink:
      ApplyToLink(event);
      break;
    default:
      ApplyToServer(event);
      break;
  }
}

void Simulation::ApplyToLink(const Event& event) {
  runtime::SimRandom random(event.detail);
  const std::string link = event.fault == Fault::kRetarget && random.Chance(0.5) ? "three" : "two";
  const absl::Duration lag = random.Chance(0.5)
                                 ? absl::ZeroDuration()
                                 : random.Between(absl::ZeroDuration(), absl::Seconds(3));
  LinkPlan plan;
  if (event.fault == Fault::kNest) {
    plan.targets = {"root1/dfs/three", "root2/dfs/three"};
  } else if (event.fault == Fault::kInterlink) {
    plan = {.targets = {"root2/ns2/one", "root1/ns2/one"}, .interlink = true};
  } else {
    std::vector<std::string> all = {"t1/data", "t2/data", "t3/data", "t1/alt/sub", "t3/alt/sub"};
    for (size_t i = all.size() - 1; i > 0; --i) std::swap(all[i], all[random.Below(i + 1)]);
    all.resize(1 + random.Below(3));
    plan.targets = all;
  }
  if (event.fault == Fault::kRemoveLink) {
    lab_->ChangeLink(link, {.targets = {}, .present = false}, lag);
    world_.After(event.lasts, [this, link, plan, lag] { lab_->ChangeLink(link, plan, lag); });
    return;
  }
  lab_->ChangeLink(link, plan, lag);
}

void Simulation::LoseAnswers(Server& server, const Event& event) {
  constexpr Command kChanges[] = {Command::kWrite, Command::kSetInfo, Command::kCreate,
                                  Command::kClose};
  server.scripted().AddRule({.command = kChanges[event.detail % std::size(kChanges)],
                             .share = "data",
                             .skip = static_cast<int64_t>(event.detail / 4 % 3),
                             .times = static_cast<int64_t>(1 + event.detail / 16 % 2),
                             .action = {.drop = true, .close = Closing::kReset}});
  world_.After(event.lasts, [&server] { server.scripted().ClearRules(); });
}

void Simulation::ApplyToServer(const Event& event) {
  Server& server = lab_->server(event.server);
  testing::ScriptedServer& scripted = server.scripted();
  const char* const share = event.server < Lab::kRoots ? "dfs" : "data";
  const absl::Duration lasts = event.lasts;
  const auto clear_rules = [&scripted] { scripted.ClearRules(); };
  switch (event.fault) {
    case Fault::kSlow:
      server.path().latency += absl::Milliseconds(static_cast<int64_t>(event.detail % 250));
      server.ApplyPath();
      world_.After(lasts, [&server] {
        server.path().latency = absl::ZeroDuration();
        server.ApplyPath();
      });
      break;
    case Fault::kLoss:
      server.path().loss = 0.05;
      server.ApplyPath();
      world_.After(lasts, [&server] {
        server.path().loss = 0;
        server.ApplyPath();
      });
      break;
    case Fault::kExpire:
      scripted.ExpireSessions();
      break;
    case Fault::kOneCredit:
      scripted.options().most_credits = 1;
      world_.After(lasts, [&scripted] { scripted.options().most_credits = 512; });
      break;
    case Fault::kPending:
      scripted.AddRule({.command = event.detail % 2 == 0 ? Command::kRead : Command::kCreate,
                        .times = static_cast<int64_t>(1 + event.detail % 5),
                        .action = {.delay = std::max(lasts, absl::Seconds(1)), .pending = true}});
      world_.After(lasts, clear_rules);
      break;
    case Fault::kKill:
      Kill(server, lasts);
      break;
    case Fault::kReset:
      server.ResetConnections();
      break;
    case Fault::kFreeze:
      server.Freeze(true);
      Wrong(server, lasts, [&server] { server.Freeze(false); });
      break;
    case Fault::kSilent:
      scripted.options().silent = true;
      Wrong(server, lasts, [&scripted] {
        scripted.options().silent = false;
        scripted.CloseConnections(Closing::kReset);  // What it left unanswered stays so.
      });
      break;
    case Fault::kCut:
    case Fault::kHalfOpen: {
      const int in = event.fault == Fault::kCut || event.detail % 2 == 0 ? 1 : 0;
      const int out = event.fault == Fault::kCut || in == 0 ? 1 : 0;
      server.path().cut_in += in;
      server.path().cut_out += out;
      server.ApplyPath();
      Wrong(server, lasts, [&server, in, out] {
        server.path().cut_in -= in;
        server.path().cut_out -= out;
        server.ApplyPath();
      });
      break;
    }
    case Fault::kHeavyLoss:
      server.path().loss = 0.2;
      server.ApplyPath();
      Wrong(server, lasts, [&server] {
        server.path().loss = 0;
        server.ApplyPath();
      });
      break;
    case Fault::kPowerOff:
      server.PowerOff();
      Wrong(server, lasts, [&server] { server.PowerOn(); });
      break;
    case Fault::kFlap:
      Flap(server, lasts, static_cast<int>(2 + event.detail % 6));
      break;
    case Fault::kDeleteSessions:
      scripted.DeleteSessions();
      break;
    case Fault::kDisconnectTree:
      scripted.DisconnectTrees(share);
      break;
    case Fault::kUnshare:
      scripted.FindShare(share)->connect_status = NtStatus::kBadNetworkName;
      scripted.DisconnectTrees(share);
      server.set_missing_until(world_.now() + lasts + kMissingIsRemembered);
      Wrong(server, lasts,
            [&scripted, share] { scripted.FindShare(share)->connect_status = NtStatus::kSuccess; });
      break;
    case Fault::kSmallReads:
      scripted.options().max_read_bytes = 65536;
      server.ResetConnections();
      world_.After(lasts, [&scripted] { scripted.options().max_read_bytes = 1 << 20; });
      break;
    case Fault::kPendingForEver:
      scripted.AddRule({.command = event.detail % 2 == 0 ? Command::kRead : Command::kCreate,
                        .times = static_cast<int64_t>(1 + event.detail % 3),
                        .action = {.delay = absl::InfiniteDuration(), .pending = true}});
      Wrong(server, lasts, [&scripted] {
        scripted.ClearRules();
        scripted.CloseConnections(Closing::kReset);
      });
      break;
    case Fault::kLoseAnswer:
      LoseAnswers(server, event);
      break;
    case Fault::kBreakLeases:
      for (int64_t i = 0; i < 8; ++i) {
        world_.After(lasts * i / 8, [&server, to = event.detail >> (2 * i)] {
          constexpr uint32_t kTo[] = {0, smb::wire::kLeaseRead, 0,
                                      smb::wire::kLeaseRead | smb::wire::kLeaseHandle};
          server.BreakLeases(kTo[to % 4]);
        });
      }
      break;
    case Fault::kHang:
      scripted.HangConnections(world_.now() + lasts);
      // What was read by then is executed afterwards all the same.
      if (event.detail % 2 == 0) {
        world_.After(lasts / 4, [&server] { server.ResetConnections(); });
      }
      Wrong(server, lasts, [] {});
      break;
    case Fault::kThrottle:
      scripted.AddRule({.command = event.detail % 2 == 0 ? Command::kCreate : Command::kTreeConnect,
                        .times = static_cast<int64_t>(1 + event.detail % 4),
                        .action = {.status = NtStatus::kInsuffServerResources}});
      Wrong(server, lasts, clear_rules);
      break;
    default:
      break;
  }
}

}  // namespace dfscsi::simulation
