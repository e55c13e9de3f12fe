// One TCP connection to one SMB2 server: framing, MessageIds and credits, many requests in flight,
// signing and encryption, and the signs of life that failover is decided by.
//
// Source: [MS-SMB2] 3.2.1.3, 3.2.4.1, 3.2.5.1.

#ifndef NODE_AGENT_SMB_CONNECTION_H_
#define NODE_AGENT_SMB_CONNECTION_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/runtime/network.h"
#include "node-agent/runtime/wait.h"
#include "node-agent/smb/frame_reader.h"
#include "node-agent/smb/options.h"
#include "node-agent/smb/security.h"
#include "node-agent/smb/sequence_window.h"
#include "node-agent/smb/wire/header.h"
#include "node-agent/smb/wire/negotiate.h"

namespace dfscsi::smb {

// One command of a frame, before the connection gives it a MessageId.
struct Request {
  wire::Command command = wire::Command::kEcho;
  uint32_t tree_id = 0;
  bool related = false;  // Acts on what the part before it opened.
  // Bytes that the request carries or that its answer may carry, whichever is more: it pays with
  // one credit for each 64 KiB of them.
  uint32_t largest_payload_bytes = 0;
  // Room for the header, then the body.
  std::vector<uint8_t> message = std::vector<uint8_t>(wire::kHeaderSize);
  // Of WRITE: sent behind `message`. Must live until the call returns.
  wire::Bytes payload;
  // Of READ: where the data goes. Must live until the call returns or is destroyed.
  wire::MutableBytes read_into;
};

// Encodes a body behind the header's room: MakeRequest(kClose, EncodeCloseRequest, close).
template <class Encode, class Body>
Request MakeRequest(wire::Command command, Encode encode, const Body& body) {
  Request request;
  request.command = command;
  wire::Writer writer(&request.message, 0);
  encode(body, writer);
  return request;
}

struct Response {
  wire::Header header;
  std::vector<uint8_t> body;
  size_t read_bytes = 0;  // Of READ: how many bytes of read_into were filled.
};

// Not thread-safe; one loop. Held by shared_ptr: a call keeps its connection.
class Connection : public std::enable_shared_from_this<Connection> {
 public:
  // Takes a connected stream and negotiates. `host` is the server's name for messages and NETNAME.
  // Errors, after each of which nothing remains:
  //   kUnavailable        the stream failed: another target may do
  //   kDeadlineExceeded, kCancelled
  //   kFailedPrecondition the server speaks no dialect, or no algorithm, that the options allow
  //   kDataLoss           it broke the protocol
  static runtime::Task<absl::StatusOr<std::shared_ptr<Connection>>> Negotiate(
      std::unique_ptr<runtime::Stream> stream, std::string host, Options options,
      runtime::Deadline deadline);

  Connection(std::unique_ptr<runtime::Stream> stream, std::string host, Options options);
  ~Connection();

  // Sends `requests` as one frame (a compound if more than one) and returns their responses, in
  // order. A response with an error status is a response; look at header.status.
  //
  // If the caller is cancelled or destroyed the answer is discarded when it comes; a request that
  // the server had already begun to wait over (STATUS_PENDING) is cancelled there. Errors:
  //   kUnavailable  the frame was not sent: nothing was executed
  //   kAborted      it was sent, and the connection was lost: it may have been executed
  //   kDeadlineExceeded, kCancelled: as kAborted, if it had been sent
  //   kDataLoss     the server broke the protocol, or a signature was wrong; the connection is
  //   closed
  runtime::Task<absl::StatusOr<std::vector<Response>>> Call(std::vector<Request> requests,
                                                            runtime::Deadline deadline);

  // Ends every call in flight. `why` becomes close_reason().
  void Close(absl::Status why);

  bool closed() const { return closed_; }
  const absl::Status& close_reason() const { return close_reason_; }
  // Requests are outstanding and the server has been silent for too long. Clears itself by any
  // byte.
  bool suspect() const { return suspect_; }
  // Notified when closed() or suspect() changes.
  runtime::Condition& health_changed() { return health_changed_; }

  const std::string& host() const { return host_; }
  const Options& options() const { return options_; }
  const wire::NegotiateResponse& negotiated() const { return negotiated_; }
  runtime::SocketAddress peer() const { return stream_->peer(); }
  uint32_t max_read_bytes() const;
  uint32_t max_transact_bytes() const;
  // Smoothed time from request to response.
  absl::Duration round_trip() const { return round_trip_; }
  // Credits that a caller may count on having at once, for the choice of request sizes.
  int available_credits() const { return window_.available(); }
  // Frames sent since the connection was made: a compound counts once.
  int64_t frames_sent() const { return frames_sent_; }

  // For Session: what signs and encrypts from now on.
  SecurityContext& security() { return security_; }
  PreauthHash& preauth() { return preauth_; }

 private:
  struct Pending;
  struct CallState;
  class CallGuard;

  runtime::Task<absl::Status> DoNegotiate(runtime::Deadline deadline);
  absl::Status CheckNegotiated();
  absl::Status EncodeFrame(CallState& call);
  void Enqueue(std::vector<uint8_t> bytes, std::shared_ptr<CallState> call);
  runtime::Task<void> WriteLoop();
  bool WriteSome();  // False: not everything could be written now.
  runtime::Task<void> ReadLoop();
  runtime::Task<void> Watch();
  absl::Status HandleFrame(wire::Bytes frame, bool was_encrypted);
  absl::Status HandlePart(const wire::Part& part, bool was_encrypted);
  void Complete(Pending& pending, const wire::Header& header, wire::Bytes body);
  wire::MutableBytes PlaceForRead(wire::Bytes peek, uint32_t frame_size);
  void SendCancel(const Pending& pending);
  void NoteReceived();

  // Constant after construction.
  const Options options_;
  const std::string host_;
  std::unique_ptr<runtime::Stream> stream_;

  wire::NegotiateResponse negotiated_;
  SecurityContext security_;
  PreauthHash preauth_;
  SequenceWindow window_;
};

}  // namespace dfscsi::smb

#endif  // NODE_AGENT_SMB_CONNECTION_H_
