#include "node-agent/testing/engine_simulation_schedule.h"

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "node-agent/runtime/sim_world.h"
#include "node-agent/testing/engine_simulation_lab.h"

namespace dfscsi::simulation {
namespace {

using runtime::SimRandom;

constexpr std::array<const char*, kFaultsOfWriters> kNames = {
    "slow",           "loss",        "stall",           "expire",
    "one credit",     "pending",     "kill agent",      "hand over",
    "unmount",        "kill",        "reset",           "freeze",
    "silent",         "cut",         "half-open",       "heavy loss",
    "power off",      "flap",        "no session",      "no tree",
    "unshare",        "small reads", "pending forever", "throttle",
    "kill all roots", "kill all",    "name server",     "retarget",
    "nest",           "interlink",   "remove link",     "lose answer",
    "hang",           "break leases"};

// What is drawn more often than the others.
constexpr Fault kUsual[] = {Fault::kKill, Fault::kReset, Fault::kFreeze, Fault::kCut,
                            Fault::kRetarget};

bool IsOfAServer(Fault fault) {
  switch (fault) {
    case Fault::kStall:
    case Fault::kKillAgent:
    case Fault::kHandOver:
    case Fault::kUnmount:
    case Fault::kAllRoots:
    case Fault::kAllTargets:
    case Fault::kNameServer:
    case Fault::kRetarget:
    case Fault::kNest:
    case Fault::kInterlink:
    case Fault::kRemoveLink:
      return false;
    default:
      return true;
  }
}

bool IsOfALink(Fault fault) {
  return fault == Fault::kRetarget || fault == Fault::kNest || fault == Fault::kInterlink ||
         fault == Fault::kRemoveLink;
}

Event DrawEvent(SimRandom& random, bool mild) {
  Event event;
  if (mild) {
    event.fault = static_cast<Fault>(random.Below(static_cast<uint64_t>(kLastMildFault) + 1));
  } else if (random.Chance(0.3)) {
    event.fault = kUsual[random.Below(std::size(kUsual))];
  } else {
    event.fault = static_cast<Fault>(random.Below(kFaults));
  }
  // Targets more often than namespace servers.
  event.server = static_cast<int>(random.Chance(0.3) ? random.Below(Lab::kRoots)
                                                     : Lab::kRoots + random.Below(3));
  // Many short ones, some that outlast every clock of the client but the write grace.
  event.lasts = random.Chance(0.6) ? random.Between(absl::Milliseconds(1), absl::Seconds(2))
                                   : random.Between(absl::Seconds(1), absl::Seconds(12));
  if (random.Chance(0.05)) event.lasts += absl::Seconds(20);  // Beyond what progress may take.
  event.detail = random.Next();
  if (event.fault == Fault::kKillAgent && random.Chance(0.6)) {
    event.lasts = absl::Milliseconds(20);  // A standby.
  }
  // Who waits for an answer that the server has promised is not moved to another one.
  if (event.fault == Fault::kPending || event.fault == Fault::kPendingForEver) {
    event.lasts = std::min(event.lasts, absl::Seconds(10));
  }
  if (event.fault == Fault::kStall) event.lasts = std::min(event.lasts, absl::Seconds(6));
  return event;
}

smb::Options DrawOptions(SimRandom& random) {
  using smb::wire::Dialect;
  smb::Options options;
  constexpr Dialect kHighest[] = {Dialect::k311, Dialect::k311, Dialect::k311, Dialect::k302,
                                  Dialect::k210};
  options.highest_dialect = kHighest[random.Below(std::size(kHighest))];
  options.lowest_dialect = Dialect::k210;
  constexpr uint32_t kReads[] = {1 << 20, 1 << 20, 65536, 16384};
  options.max_read_bytes = kReads[random.Below(std::size(kReads))];
  return options;
}

}  // namespace

std::string Event::ToString() const {
  std::string line =
      absl::StrCat("  at ", absl::FormatDuration(at), ": ", kNames[static_cast<size_t>(fault)]);
  constexpr const char* kServerNames[] = {"root1", "root2", "t1", "t2", "t3"};
  if (IsOfAServer(fault)) absl::StrAppend(&line, " ", kServerNames[server]);
  absl::StrAppend(&line, " for ", absl::FormatDuration(lasts));
  return line;
}

Schedule Schedule::Draw(uint64_t seed) {
  // Mixed twice: the generator's streams of neighbouring seeds overlap.
  SimRandom random(SimRandom(seed + 77).Next());
  Schedule schedule{.seed = seed};
  schedule.mild = random.Chance(0.2);
  constexpr uint32_t kTtls[] = {2, 6, 30, 600};
  schedule.ttl_seconds = kTtls[random.Below(std::size(kTtls))];
  schedule.smb = DrawOptions(random);
  schedule.encrypt = random.Chance(0.15);
  schedule.save_cache = random.Chance(0.5);
  schedule.mounts = random.Chance(0.4) ? 2 : 1;
  schedule.applications = 2 + static_cast<int>(random.Below(4));
  // A few seeds are busy, most leave their servers time to be forgotten.
  schedule.longest_pause = random.Chance(0.1) ? absl::Milliseconds(200)
                                              : random.Between(absl::Seconds(1), absl::Seconds(4));
  schedule.fragmentation = random.Chance(0.2) ? 0.3 : 0.02;
  const int count = 2 + static_cast<int>(random.Below(9));
  const absl::Duration spread = random.Between(absl::Seconds(2), absl::Seconds(20));
  for (int i = 0; i < count; ++i) {
    Event event = DrawEvent(random, schedule.mild);
    event.at = absl::Seconds(1) + random.Between(absl::ZeroDuration(), spread);
    schedule.events.push_back(event);
  }
  // Equal times do not happen: they are drawn in nanoseconds.
  std::sort(schedule.events.begin(), schedule.events.end(),
            [](const Event& a, const Event& b) { return a.at < b.at; });
  return schedule;
}

namespace {

void DrawBreaks(uint64_t seed, std::vector<Event>& events) {
  SimRandom random(SimRandom(seed + 8'888).Next());
  const int count = static_cast<int>(random.Below(6));
  for (int i = 0; i < count; ++i) {
    Event event;
    event.fault = Fault::kBreakLeases;
    event.server = Lab::kRoots + static_cast<int>(random.Below(3));
    event.lasts = random.Between(absl::Milliseconds(10), absl::Seconds(5));
    event.detail = random.Next();
    event.at = absl::Seconds(1) + random.Between(absl::ZeroDuration(), absl::Seconds(20));
    events.push_back(event);
  }
}

}  // namespace

Schedule Schedule::DrawWithWriters(uint64_t seed) {
  constexpr uint64_t kOtherWorlds = uint64_t{1} << 40;
  Schedule schedule = Draw(seed + kOtherWorlds);
  schedule.seed = seed;
  schedule.write_behind = seed % 2 == 1;  // No draw: the others stay as they are.
  SimRandom random(SimRandom(seed + 7'777).Next());
  schedule.applications = 1;
  schedule.writers = 1 + static_cast<int>(random.Below(3));
  schedule.server_appends = random.Chance(0.5);
  const int count = schedule.mild ? 0 : static_cast<int>(random.Below(6));
  for (int i = 0; i < count; ++i) {
    Event event;
    event.fault = random.Chance(0.6) ? Fault::kLoseAnswer : Fault::kHang;
    event.server = Lab::kRoots + static_cast<int>(random.Below(3));
    event.lasts = random.Between(absl::Milliseconds(10), absl::Seconds(8));
    event.detail = random.Next();
    event.at = absl::Seconds(1) + random.Between(absl::ZeroDuration(), absl::Seconds(20));
    schedule.events.push_back(event);
  }
  DrawBreaks(seed, schedule.events);
  std::sort(schedule.events.begin(), schedule.events.end(),
            [](const Event& a, const Event& b) { return a.at < b.at; });
  return schedule;
}

Schedule Schedule::DrawWithSharers(uint64_t seed) {
  constexpr uint64_t kOtherWorlds = uint64_t{1} << 42;
  Schedule schedule = DrawWithWriters(seed + kOtherWorlds);
  schedule.seed = seed;
  schedule.write_behind = seed % 2 == 1;
  schedule.single_targets = seed / 2 % 2 == 1;
  SimRandom random(SimRandom(seed + 9'999).Next());
  schedule.writers = 1 + static_cast<int>(random.Below(2));
  schedule.sharers = 1 + static_cast<int>(random.Below(3));
  if (schedule.single_targets) {
    std::erase_if(schedule.events, [](const Event& event) { return IsOfALink(event.fault); });
  }
  // Answers to renames and removals are lost more often.
  const int count = schedule.mild ? 0 : static_cast<int>(random.Below(8));
  for (int i = 0; i < count; ++i) {
    Event event;
    event.fault = random.Chance(0.6) ? Fault::kLoseAnswer : Fault::kKillAgent;
    event.server = Lab::kRoots + static_cast<int>(random.Below(3));
    event.lasts = event.fault == Fault::kKillAgent
                      ? absl::Milliseconds(20)
                      : random.Between(absl::Milliseconds(10), absl::Seconds(4));
    event.detail = random.Next() / 4 * 4 + 1;  // SET_INFO.
    event.at = absl::Seconds(1) + random.Between(absl::ZeroDuration(), absl::Seconds(20));
    schedule.events.push_back(event);
  }
  std::sort(schedule.events.begin(), schedule.events.end(),
            [](const Event& a, const Event& b) { return a.at < b.at; });
  return schedule;
}

Schedule Schedule::DrawWithLockers(uint64_t seed) {
  constexpr uint64_t kOtherWorlds = uint64_t{1} << 41;
  Schedule schedule = DrawWithWriters(seed + kOtherWorlds);
  schedule.seed = seed;
  schedule.write_behind = seed % 2 == 1;
  schedule.lockers = 1 + schedule.writers;  // Two at least, so that they exclude each other.
  schedule.writers = 0;
  return schedule;
}

bool Schedule::AllAnswersInTime() const {
  int slow = 0;
  for (const Event& event : events) {
    if (event.fault == Fault::kLoss) return false;
    if (event.fault == Fault::kSlow) ++slow;
  }
  return mild && slow <= 1;
}

bool Schedule::FirstTargetsServe() const {
  return mild && std::none_of(events.begin(), events.end(), [](const Event& event) {
           return event.fault == Fault::kSlow || event.fault == Fault::kLoss ||
                  event.fault == Fault::kPending;
         });
}

absl::Duration Schedule::end() const {
  absl::Duration end = absl::Seconds(2);
  for (const Event& event : events) end = std::max(end, event.at + event.lasts);
  return end;
}

std::string Schedule::ToString() const {
  std::string text =
      absl::StrCat("seed ", seed, mild ? ", mild" : "", ": ", mounts, " mounts, ", applications,
                   " applications each, pauses to ", absl::FormatDuration(longest_pause), ", TTL ",
                   ttl_seconds, " s, reads of ", smb.max_read_bytes, ", dialect ",
                   absl::Hex(static_cast<int>(smb.highest_dialect)), encrypt ? ", encrypted" : "",
                   save_cache ? ", cache saved" : "");
  if (writers > 0) {
    absl::StrAppend(&text, ", ", writers, " writers each, appending by ",
                    server_appends ? "the server" : "a lock");
  }
  if (sharers > 0) absl::StrAppend(&text, ", ", sharers, " sharers of each");
  if (single_targets) text += ", one target of each link";
  if (write_behind) text += ", written behind";
  if (lockers > 0) absl::StrAppend(&text, ", ", lockers, " owners of locks each");
  for (const Event& event : events) absl::StrAppend(&text, "\n", event.ToString());
  return text;
}

}  // namespace dfscsi::simulation
