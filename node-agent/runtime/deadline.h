// When a wait ends at the latest, and who may end it earlier.
//
// Every function that waits takes a Deadline by value and hands it on. A wait that the deadline
// ends returns kDeadlineExceeded; one that its CancelSource ends returns kCancelled. After either,
// clean-up code may wait again with a Deadline of its own: nothing is thrown, and no state is left
// behind.

#ifndef NODE_AGENT_RUNTIME_DEADLINE_H_
#define NODE_AGENT_RUNTIME_DEADLINE_H_

#include <utility>

#include "absl/time/time.h"
#include "node-agent/runtime/list.h"

namespace dfscsi::runtime {

class Wait;

namespace internal {

struct CancelLink : ListNode {};
struct CancelChildLink : ListNode {};

// What the copies of one CancelSource's deadlines share. Counted without atomics: it belongs to one
// loop.
class CancelState : public CancelChildLink {
 public:
  void Ref() { ++refs_; }
  void Unref() {
    if (--refs_ == 0) delete this;
  }
  bool cancelled() const { return cancelled_; }
  void Cancel();
  void AddWait(Wait& wait);
  // The child is cancelled with this one. A child of a cancelled state is cancelled at once.
  void AddChild(CancelState& child);

 private:
  int refs_ = 0;
  bool cancelled_ = false;
  List<Wait, CancelLink> waits_;
  List<CancelState, CancelChildLink> children_;
};

class CancelRef {
 public:
  CancelRef() = default;
  explicit CancelRef(CancelState* state) : state_(state) {
    if (state_ != nullptr) state_->Ref();
  }
  CancelRef(const CancelRef& other) : CancelRef(other.state_) {}
  CancelRef(CancelRef&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
  CancelRef& operator=(CancelRef other) noexcept {
    std::swap(state_, other.state_);
    return *this;
  }
  ~CancelRef() {
    if (state_ != nullptr) state_->Unref();
  }
  CancelState* get() const { return state_; }

 private:
  CancelState* state_ = nullptr;
};

}  // namespace internal

// A value: copy it freely, within one loop.
class Deadline {
 public:
  // Never ends by itself. For waits whose end another mechanism guarantees; say which in a comment.
  static Deadline Never() { return Deadline(); }
  static Deadline At(absl::Time when) { return Deadline(when, {}); }
  // From the current loop's Now().
  static Deadline After(absl::Duration duration);

  absl::Time when() const { return when_; }
  bool cancelled() const { return cancel_.get() != nullptr && cancel_.get()->cancelled(); }

  // The same cancellation, and the earlier of both times.
  Deadline Before(absl::Time when) const { return Deadline(when < when_ ? when : when_, cancel_); }
  Deadline Within(absl::Duration duration) const;

 private:
  friend class CancelSource;
  friend class Wait;

  Deadline() = default;
  Deadline(absl::Time when, internal::CancelRef cancel) : when_(when), cancel_(std::move(cancel)) {}

  absl::Time when_ = absl::InfiniteFuture();
  internal::CancelRef cancel_;
};

// Makes deadlines that it can cancel. Cancelling reaches every wait under any of them, and every
// CancelSource made from one. Not thread-safe (one loop). Its destructor does not cancel.
class CancelSource {
 public:
  CancelSource() : CancelSource(Deadline::Never()) {}
  // Also cancelled when `parent` is; its deadline() ends no later than `parent`.
  explicit CancelSource(const Deadline& parent);

  Deadline deadline() const { return Deadline(when_, state_); }
  bool cancelled() const { return state_.get()->cancelled(); }
  // Ends every wait with kCancelled. The waiting coroutines run on the loop's next turn.
  void Cancel() { state_.get()->Cancel(); }

 private:
  absl::Time when_;
  internal::CancelRef state_;
};

}  // namespace dfscsi::runtime

#endif  // NODE_AGENT_RUNTIME_DEADLINE_H_
