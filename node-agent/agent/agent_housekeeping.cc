// What an agent does beside its calls: the arena's size, what is due now and then, and the end.

#include <malloc.h>
#include <unistd.h>

#include <map>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "node-agent/agent/agent.h"
#include "node-agent/base/log.h"

namespace dfscsi::agent {

using runtime::Deadline;
using runtime::Task;
using state::RequestArena;

namespace {

constexpr absl::Duration kHousekeepingPeriod = absl::Seconds(2);
constexpr absl::Duration kSavePeriod = absl::Seconds(60);
constexpr absl::Duration kSaveTime = absl::Seconds(10);
constexpr absl::Duration kStepIdleTime = absl::Seconds(30);
// A step that was refused is not asked for again at once.
constexpr absl::Duration kGrowAgainAfter = absl::Seconds(1);
// LOGOFF and CLOSE are on their way; nobody waits for their answers.
constexpr absl::Duration kGoodbyeTime = absl::Milliseconds(100);
constexpr absl::Duration kWriteOutPause = absl::Milliseconds(5);

}  // namespace

// ---- The arena's size ----

void Agent::AskToGrow() { tasks_.Spawn(Grow()); }

Task<void> Agent::Grow() {
  const uint64_t unused = memory_->arena->unused_steps();
  if (unused != 0) {  // Granted to a predecessor.
    AddStep(__builtin_ctzll(unused));
  } else {
    const absl::StatusOr<state::Message> answer =
        co_await link_.Request(state::GrowArena(), Deadline::After(kMounterTime));
    const auto* error = answer.ok() ? std::get_if<state::Error>(&*answer) : nullptr;
    if (error != nullptr) LogWarning("the arena does not grow: ", error->text);
    if (!answer.ok() || error != nullptr) {
      (void)co_await runtime::Sleep(kGrowAgainAfter, Deadline::Never());
    }
  }
  if (engine_ != nullptr) engine_->room.NoteGrown();
}

void Agent::TakeStep(const state::StepGranted& step) {
  memory_->granted_steps = step.granted_steps;
  if (generation_ != 0) {
    AddStep(static_cast<int>(step.step));
  } else if (const absl::Status status = memory_->arena->Prepare(step.granted_steps);
             !status.ok()) {
    LogWarning("arena: ", status.message());
  }
}

void Agent::AddStep(int step) {
  // Small requests are in big slots only when there is no small one left.
  const auto kind = memory_->arena->GetUsage().small_free == 0 ? RequestArena::StepKind::kSmall
                                                               : RequestArena::StepKind::kMixed;
  const absl::Status status = memory_->arena->AddStep(step, kind);
  if (!status.ok()) LogError("arena: ", status.message());
}

// ---- Timers ----

Task<void> Agent::Beat() {
  while (true) {
    if (memory_.has_value()) memory_->heartbeat->Beat(memory_->heartbeat_line);
    (void)co_await runtime::Sleep(state::kHeartbeatPeriod / 2, Deadline::Never());
  }
}

Task<void> Agent::KeepHouse() {
  absl::Time saved = loop_.Now();
  absl::Time step_checked = loop_.Now();
  int64_t shortages = 0;
  while (true) {
    (void)co_await runtime::Sleep(kHousekeepingPeriod, Deadline::Never());
    if (engine_ == nullptr || draining_) continue;
    engine_->buffers.Trim();
    for (const std::map<uint32_t, KnownMount>* mounts : {&mounts_, &leaving_}) {
      for (const auto& [id, known] : *mounts) {
        if (known.served != nullptr) known.served->session().ReportSlow();
      }
    }
    // What a mount held lies between what others hold: without this the heap grows for a thousand
    // mounts before it is full of holes enough.
    if (std::exchange(trim_due_, false)) malloc_trim(0);
    // What was learned at once, for a successor; new expiry times now and then.
    if (engine_->CacheChanged() || loop_.Now() - saved >= kSavePeriod) {
      saved = loop_.Now();
      co_await engine_->SaveCache(Deadline::After(kSaveTime));
      if (engine_ == nullptr || draining_) continue;
    }
    if (loop_.Now() - step_checked < kStepIdleTime) continue;
    step_checked = loop_.Now();
    // A step goes back after half a minute in which nobody wanted for a slot.
    if (std::exchange(shortages, engine_->room.shortages()) != engine_->room.shortages()) continue;
    const int step = memory_->arena->RemoveIdleStep();
    if (step > 0) {
      const absl::StatusOr<state::Message> answer = co_await link_.Request(
          state::ReturnStep{static_cast<uint32_t>(step)}, Deadline::After(kMounterTime));
      // Without an answer it may yet be taken back; a new mounter says what is granted.
      if (answer.ok() && std::holds_alternative<state::Error>(*answer)) {
        memory_->arena->SetGranted(memory_->granted_steps);
      }
    }
  }
}

Task<void> Agent::WatchIdle() {
  while (true) {
    (void)co_await runtime::Sleep(absl::Seconds(1), Deadline::Never());
    if (!mounts_.empty() || !leaving_.empty() || calls_in_progress_ > 0) busy_at_ = loop_.Now();
    const absl::Duration limit = generation_ == 0 ? kStandbyIdleTime : kIdleTime;
    if (loop_.Now() - busy_at_ < limit || draining_) continue;
    LogInfo("nothing is mounted: the end");
    if (generation_ != 0) {
      co_await engine_->SaveCache(Deadline::After(kSaveTime));
      (void)unlink(absl::StrCat(flags_.socket_dir, "/agent.sock").c_str());
      (void)unlink(absl::StrCat(flags_.socket_dir, kCredentialSocketName).c_str());
    }
    Drain();
  }
}

// ---- The end ----

void Agent::Drain() {
  if (std::exchange(ending_, true)) return;
  tasks_.Spawn(DrainAndStop());
}

Task<void> Agent::WriteOut() {
  const Deadline deadline = Deadline::After(kWriteOutTime);
  while (true) {
    size_t left = 0;
    for (const std::map<uint32_t, KnownMount>* mounts : {&mounts_, &leaving_}) {
      for (const auto& [id, known] : *mounts) {
        if (known.served == nullptr) continue;
        known.served->session().StopAnsweringEarly();
        left += known.served->session().acknowledged();
      }
    }
    if (left == 0) co_return;
    if (!(co_await runtime::Sleep(kWriteOutPause, deadline)).ok()) {
      LogWarning("draining: ", left, " writes that were acknowledged are left to the next agent");
      co_return;
    }
  }
}

// The successor may begin as soon as the mounter sees our hang-up; from then on nothing here
// touches the shared memory.
Task<void> Agent::DrainAndStop() {
  if (generation_ != 0) co_await WriteOut();
  draining_ = true;
  link_.Send(state::Draining());
  if (generation_ != 0) {
    LogInfo("draining");
    const Deadline deadline = Deadline::After(kDrainTime);
    for (auto& [id, known] : mounts_) {
      if (known.served != nullptr) known.served->session().StopReading();
    }
    for (auto& [id, known] : mounts_) {
      if (known.served != nullptr) {
        (void)co_await known.served->session().WaitUntilIdle(deadline);
      }
    }
    // What is left of these has nobody after us.
    while (!leaving_.empty() && loop_.Now() < deadline.when()) {
      (void)co_await runtime::Sleep(kLeavingPause, deadline);
    }
    // The successor need not ask what we know. If the disk is slow, it asks.
    if (engine_->CacheChanged()) co_await engine_->SaveCache(deadline);
    engine_->sessions.ForgetSessions();
    for (auto& [id, known] : mounts_) known.served.reset();
    leaving_.clear();
    generation_ = 0;
  }
  mounts_.clear();
  link_.Close();
  (void)co_await runtime::Sleep(kGoodbyeTime, Deadline::Never());
  stopped_.Set();
}

}  // namespace dfscsi::agent
