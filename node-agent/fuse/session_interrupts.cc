// Session: who waits no longer for his request.

#include <errno.h>
#include <linux/fuse.h>

#include <algorithm>
#include <vector>

#include "node-agent/fuse/killed_process.h"
#include "node-agent/fuse/session.h"
#include "node-agent/fuse/session_internal.h"

namespace dfscsi::fuse {

using state::RequestSlot;

namespace {

constexpr size_t kMostEarlyInterrupts = 64;

}  // namespace

void Session::ProcessInterrupt(RequestSlot slot) {
  ++counters_.interrupts;
  if (slot.request().size() < sizeof(fuse_in_header) + sizeof(fuse_interrupt_in)) {
    ++counters_.malformed;
    room_.Free(slot);
    return;
  }
  const uint64_t unique =
      reinterpret_cast<const fuse_interrupt_in*>(slot.request().data() + sizeof(fuse_in_header))
          ->unique;
  const auto it = requests_.find(unique);
  if (it != requests_.end()) {
    AttachInterrupt(*it->second, slot);
    return;
  }
  // Its request is not here yet, or was answered a moment ago. The kernel is asked to say it again
  // (EAGAIN) when another request has come; if it has been answered by then, it says nothing.
  ++counters_.early_interrupts;
  early_interrupts_.push_back({unique, slot});
  if (early_interrupts_.size() > kMostEarlyInterrupts) {
    (void)WriteAnswer(early_interrupts_.front().slot.unique(), EAGAIN, {});
    room_.Free(early_interrupts_.front().slot);
    early_interrupts_.pop_front();
  }
}

void Session::TakeEarlyInterrupt(Request& request) {
  if (early_interrupts_.empty()) return;
  auto it = std::find_if(early_interrupts_.begin(), early_interrupts_.end(),
                         [&](const auto& early) { return early.unique == request.slot.unique(); });
  const bool mine = it != early_interrupts_.end();
  if (!mine) it = early_interrupts_.begin();
  const RequestSlot slot = it->slot;
  early_interrupts_.erase(it);
  if (mine) {
    AttachInterrupt(request, slot);
  } else {
    (void)WriteAnswer(slot.unique(), EAGAIN, {});
    room_.Free(slot);
  }
}

void Session::AttachInterrupt(Request& request, RequestSlot interrupt) {
  if (request.interrupt) {
    room_.Free(interrupt);
    return;
  }
  request.interrupt = interrupt;
  operations_->Spawn(CancelAfterGrace(request.slot.unique()));
}

void Session::CancelKilled() {
  if (!config_.check_own_requests) return;  // Its pids are not ours.
  std::vector<uint64_t> killed;
  for (const auto& [unique, request] : requests_) {
    const uint32_t thread = HeaderOf(request->slot).pid;
    if (thread != 0 && IsBeingKilled(thread)) killed.push_back(unique);
  }
  for (const uint64_t unique : killed) {
    const auto it = requests_.find(unique);
    if (it != requests_.end()) it->second->cancel.Cancel();
  }
}

runtime::Task<void> Session::CancelAfterGrace(uint64_t unique) {
  (void)co_await runtime::Sleep(kInterruptGrace, runtime::Deadline::Never());
  // The number is not used again in the life of the connection.
  const auto it = requests_.find(unique);
  if (it != requests_.end()) it->second->cancel.Cancel();
}

}  // namespace dfscsi::fuse
