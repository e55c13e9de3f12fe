// The request arena as the sessions of one loop see it: freeing a slot wakes who waits for one, and
// a shortage asks for more memory.

#ifndef NODE_AGENT_FUSE_ARENA_ROOM_H_
#define NODE_AGENT_FUSE_ARENA_ROOM_H_

#include <cstdint>
#include <functional>

#include "absl/status/status.h"
#include "node-agent/runtime/deadline.h"
#include "node-agent/runtime/wait.h"
#include "node-agent/state/request_arena.h"

namespace dfscsi::fuse {

// Not thread-safe; one loop.
class ArenaRoom {
 public:
  // `grow` asks the mounter for a step, at most one at a time; NoteGrown() follows, whatever the
  // answer was. `arena` must outlive this.
  ArenaRoom(state::RequestArena& arena, std::function<void()> grow)
      : arena_(arena), grow_(std::move(grow)) {}

  state::RequestArena& arena() { return arena_; }

  void Free(state::RequestSlot slot) {
    arena_.Free(slot);
    if (waiting_ > 0) changed_.NotifyAll();
  }

  // No slot was to be had: asks for more, and waits until one is freed or added. Somebody always
  // frees: a request that waits for a server is in a small slot or parked, and big ones are then
  // free.
  runtime::Wait WaitForSlot(runtime::Deadline deadline) {
    ++shortages_;
    AskToGrow();
    return changed_.WaitForNotify(std::move(deadline));
  }
  // A mount has more large requests waiting than there is room for: it is not read until one of
  // them is answered.
  runtime::Wait WaitForFreed(runtime::Deadline deadline) {
    ++stops_;
    return changed_.WaitForNotify(std::move(deadline));
  }
  struct Waiter {
    explicit Waiter(ArenaRoom& the_room) : room(the_room) { ++room.waiting_; }
    ~Waiter() { --room.waiting_; }
    ArenaRoom& room;
  };

  void AskToGrow() {
    if (growing_) return;
    growing_ = true;
    grow_();
  }
  void NoteGrown() {
    growing_ = false;
    changed_.NotifyAll();
  }

  // How often a mount could not be read for want of a slot.
  int64_t shortages() const { return shortages_; }
  // How often one was not read because what is parked had reached its limit.
  int64_t stops() const { return stops_; }

 private:
  state::RequestArena& arena_;
  const std::function<void()> grow_;
  runtime::Condition changed_;
  int waiting_ = 0;
  bool growing_ = false;
  int64_t shortages_ = 0;
  int64_t stops_ = 0;
};

}  // namespace dfscsi::fuse

#endif  // NODE_AGENT_FUSE_ARENA_ROOM_H_
