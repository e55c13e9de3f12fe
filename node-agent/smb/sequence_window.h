// Hands out SMB2 MessageIds, and with them the right to send.

#ifndef NODE_AGENT_SMB_SEQUENCE_WINDOW_H_
#define NODE_AGENT_SMB_SEQUENCE_WINDOW_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "node-agent/runtime/deadline.h"
#include "node-agent/runtime/task.h"
#include "node-agent/runtime/wait.h"

namespace dfscsi::smb {

// The credits of one connection: a request of charge N uses up N consecutive MessageIds. A charge
// covers 64 KiB of payload, so a 1 MiB READ charges 16. Source: [MS-SMB2] 3.2.4.1.5, 3.1.5.2.
//
// Not thread-safe; one loop. First come, first served: a large request is not starved by small
// ones.
class SequenceWindow {
 public:
  enum class Purpose {
    kRequest,
    kSignOfLife,  // ECHO and break acknowledgements: may use the credits kept back for them.
  };

  // Waits for `charge` credits, takes them, and returns the first MessageId.
  //
  // Errors. Nothing was sent, so the operation may be repeated elsewhere:
  //   kDeadlineExceeded, kCancelled  the server granted too little in time
  //   kUnavailable                   the connection was closed; or the server has taken all credits
  //                                  back, and waiting would be for ever
  //   kResourceExhausted             the same, but smaller charges may be taken: ask for less
  runtime::Task<absl::StatusOr<uint64_t>> Acquire(int charge, Purpose purpose,
                                                  runtime::Deadline deadline);

  // A response came for a request of charge `charge`; it grants `credits` new ones.
  void Return(int charge) { outstanding_ -= charge; }
  void Grant(int credits);

  // Wakes every waiter with kUnavailable. May be called twice.
  void Close();

  int available() const { return credits_; }
  // All that the server lets us have, in use or not. A larger charge than this (less what is kept
  // back) would wait for ever.
  int total() const { return credits_ + outstanding_; }
  int largest_charge() const;

 private:
  bool MayTake(int charge, Purpose purpose) const;
  int kept_back() const { return total() >= 16 ? 2 : 0; }

  int credits_ = 1;  // For NEGOTIATE.
  int outstanding_ = 0;
  uint64_t next_message_id_ = 0;
  bool closed_ = false;
  runtime::Mutex turn_;  // Held by the first in the queue while it waits for credits.
  runtime::Condition changed_;
};

}  // namespace dfscsi::smb

#endif  // NODE_AGENT_SMB_SEQUENCE_WINDOW_H_
