#include "node-agent/smb/sequence_window.h"

#include <algorithm>

#include "node-agent/base/status_macros.h"

namespace dfscsi::smb {
namespace {

absl::Status ClosedError() { return absl::UnavailableError("the connection is closed"); }

// Credits come with answers, and nothing is asked.
absl::Status NeverError(int credits) {
  if (credits == 0) return absl::UnavailableError("the server has taken its credits back");
  return absl::ResourceExhaustedError("the server grants fewer credits than it did");
}

}  // namespace

bool SequenceWindow::MayTake(int charge, Purpose purpose) const {
  if (purpose == Purpose::kSignOfLife) return credits_ >= charge;
  return credits_ >= charge + kept_back();
}

int SequenceWindow::largest_charge() const { return std::max(1, total() - kept_back()); }

runtime::Task<absl::StatusOr<uint64_t>> SequenceWindow::Acquire(int charge, Purpose purpose,
                                                                runtime::Deadline deadline) {
  if (closed_) co_return ClosedError();
  // Without anybody waiting there is no queue to stand in.
  if (turn_.locked() || !MayTake(charge, purpose)) {
    if (purpose == Purpose::kRequest) {
      CO_ASSIGN_OR_RETURN(runtime::Mutex::Guard first, co_await turn_.Lock(deadline));
      while (!closed_ && !MayTake(charge, purpose)) {
        if (outstanding_ == 0) co_return NeverError(credits_);
        CO_RETURN_IF_ERROR(co_await changed_.WaitForNotify(deadline));
      }
    } else {
      while (!closed_ && !MayTake(charge, purpose)) {
        if (outstanding_ == 0) co_return NeverError(credits_);
        CO_RETURN_IF_ERROR(co_await changed_.WaitForNotify(deadline));
      }
    }
    if (closed_) co_return ClosedError();
  }
  credits_ -= charge;
  outstanding_ += charge;
  const uint64_t first = next_message_id_;
  next_message_id_ += charge;
  co_return first;
}

void SequenceWindow::Grant(int credits) {
  // Windows and Samba stop at 8192; what goes far beyond is nonsense, and must not overflow.
  constexpr int kMost = 1 << 20;
  credits_ = std::min(credits_ + credits, kMost);
  changed_.NotifyAll();
}

void SequenceWindow::Close() {
  closed_ = true;
  changed_.NotifyAll();
}

}  // namespace dfscsi::smb
