// One TCP connection to one SMB2 server: framing, MessageIds and credits, many requests in flight,
// signing and encryption, and the signs of life that failover is decided by.
//
// Source: [MS-SMB2] 3.2.1.3, 3.2.4.1, 3.2.5.1.

#ifndef NODE_AGENT_SMB_CONNECTION_H_
#define NODE_AGENT_SMB_CONNECTION_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/runtime/network.h"
#include "node-agent/runtime/wait.h"
#include "node-agent/smb/options.h"
#include "node-agent/smb/security.h"
#include "node-agent/smb/sequence_window.h"
#include "node-agent/smb/silence_clock.h"
#include "node-agent/smb/wire/break.h"
#include "node-agent/smb/wire/header.h"
#include "node-agent/smb/wire/negotiate.h"

namespace dfscsi::smb {

struct Response {
  wire::Header header;
  std::vector<uint8_t> message;  // Header and body.
  wire::Bytes body() const { return wire::Bytes(message).subspan(wire::kHeaderSize); }
  size_t read_bytes = 0;  // Of READ: how many bytes of read_into were filled.
};

// One command of a frame, before the connection gives it a MessageId.
struct Request {
  wire::Command command = wire::Command::kEcho;
  uint32_t tree_id = 0;
  bool related = false;  // Acts on what the part before it opened.
  // Bytes that the request carries or that its answer may carry, whichever is more: it pays with
  // one credit for each 64 KiB of them.
  uint32_t largest_payload_bytes = 0;
  bool changes = false;          // Something on the server is different once it was executed.
  bool must_sign = false;        // Even where signing is not required.
  bool replay = false;           // It may have been executed before ([MS-SMB2] 3.2.4.1.10).
  bool well_formed = true;       // False: a name or length did not fit its field; Call refuses it.
  std::vector<uint8_t> message;  // Room for the header, then the body.
  // Of WRITE: sent behind `message`. Must live until the call returns.
  wire::Bytes payload;
  // Of READ: where the data goes. Must live until the call returns or is destroyed.
  wire::MutableBytes read_into;
  // Called with the answer if it comes when nobody waits for it any more: gives back what the
  // server gave us (a handle, a lock). Runs in the connection's reader, or in a destructor: it must
  // neither wait nor end the connection.
  std::function<void(const Response&)> on_late;
};

// Encodes a body behind the header's room: MakeRequest(kClose, EncodeCloseRequest, close).
template <class Encode, class Body>
Request MakeRequest(wire::Command command, Encode encode, const Body& body) {
  Request request;
  request.command = command;
  request.changes = command == wire::Command::kWrite || command == wire::Command::kSetInfo;
  wire::Writer writer(&request.message);
  writer.Zero(wire::kHeaderSize);
  encode(body, writer);
  request.well_formed = writer.ok();
  return request;
}

// ECHO, CANCEL, LOGOFF, TREE_DISCONNECT.
Request MakeEmptyRequest(wire::Command command);

// The credits that a request costs ([MS-SMB2] 3.2.4.1.5).
int ChargeOf(const Request& request);

// Makes a related request one of its own, on this file.
void NameFile(const wire::FileId& file_id, Request& request);

// Not thread-safe; one loop. Whoever calls holds it until the call has returned.
class Connection {
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
  // If the caller is cancelled or destroyed the answer goes to Request::on_late when it comes; a
  // request that the server has begun to wait over (STATUS_PENDING) is cancelled there. Errors:
  //   kUnavailable  the frame was not sent: nothing was executed
  //   kResourceExhausted  so was a single request, for the server has come to grant fewer credits
  //                 than it costs: in smaller pieces it may be
  //   kAborted      it was sent, or a part of it was, and the connection was lost: it may have been
  //                 executed
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
  const wire::NegotiateRequest& negotiate_request() const { return negotiate_request_; }
  runtime::SocketAddress peer() const { return stream_->peer(); }
  uint32_t max_read_bytes() const;
  uint32_t max_write_bytes() const;
  uint32_t max_transact_bytes() const;
  // The most credits that one request may cost; it is split where it would cost more.
  int largest_charge() const { return window_.largest_charge(); }
  // By how much the server's clock was ahead of ours when it was asked, or a little less; nullopt:
  // it did not say.
  std::optional<absl::Duration> clock_ahead() const { return clock_ahead_; }
  // Frames sent since the connection was made: a compound counts once.
  int64_t frames_sent() const { return frames_sent_; }

  // For Session: where oplock and lease breaks go, which no request asked for. Called in the
  // reader: it must neither wait nor end the connection. Null: they are ignored.
  void set_break_handler(std::function<void(const wire::Break&)> handler) {
    break_handler_ = std::move(handler);
  }
  // How often the session before this one was lost: what still comes of an older one, over an older
  // connection, is refused by the server ([MS-SMB2] 3.3.5.2.10). 3.x.
  void set_channel_sequence(uint16_t sequence) { channel_sequence_ = sequence; }

  // For Session: what signs and encrypts from now on.
  SecurityContext& security() { return security_; }
  wire::PreauthHash& preauth() { return preauth_; }

 private:
  struct CallState;
  class CallGuard;
  class OpenedGuard;
  // One part of a frame in flight.
  struct Pending {
    std::shared_ptr<CallState> call;  // Null once the caller has gone.
    size_t index = 0;                 // In call->responses.
    wire::SentRequest sent;
    int charge = 1;
    wire::MutableBytes read_into;
    std::function<void(const Response&)> on_late;  // If call is null.
    bool large = false;
    bool encrypted = false;
    bool cancelled = false;  // CANCEL was sent: once is enough.
    absl::Time sent_at;
  };
  // One frame to be written.
  struct Outgoing {
    std::vector<uint8_t> bytes;  // Prefix and messages.
    wire::Bytes payload;         // Of a lone WRITE.
    std::shared_ptr<CallState> call;
    size_t written = 0;
  };

  // A compound that costs more than the server lets us have, in as many frames.
  runtime::Task<absl::StatusOr<std::vector<Response>>> CallOneByOne(std::vector<Request> requests,
                                                                    runtime::Deadline deadline);
  runtime::Task<absl::Status> DoNegotiate(runtime::Deadline deadline);
  absl::Status CheckNegotiated();

  // connection_send.cc
  Outgoing EncodeFrame(const std::shared_ptr<CallState>& call, uint64_t first_id);
  void FillHeader(Request& request, uint64_t message_id, int charge);
  void SignPart(Request& request, bool encrypt);
  void Send(Outgoing frame);
  bool WriteSome();  // False: not everything could be written now.
  runtime::Task<void> WriteLoop();
  void SendCancel(Pending& pending);
  void Abandon(const std::shared_ptr<CallState>& call);

  // connection_receive.cc
  class Receiver;
  runtime::Task<void> ReadLoop();
  absl::Status HandleFrame(wire::MutableBytes frame);
  absl::Status HandlePlainFrame(wire::Bytes frame, bool was_encrypted);
  absl::Status HandlePart(const wire::Part& part, bool was_encrypted);
  absl::Status HandleBreak(const wire::Part& part);
  absl::Status CheckSignature(const wire::Header& header, absl::Span<const wire::Bytes> parts,
                              bool was_encrypted, bool must_be_encrypted);
  // The READ in flight that `peek` (header and fixed body of a plain frame's only part) answers
  // with nothing but its data behind it; null if it is anything else.
  Pending* FindDirectRead(wire::Bytes peek, uint32_t frame_size, wire::Header* header);
  Pending* FindPending(uint64_t message_id);
  void Finish(uint64_t message_id, Response response);
  uint32_t LargestFrame() const;
  void NoteReceived();

  // connection_watch.cc
  runtime::Task<void> Watch();
  runtime::Task<void> SendEcho();

  static constexpr size_t kLargeRead = 65536;

  const Options options_;
  const std::string host_;
  std::unique_ptr<runtime::Stream> stream_;

  wire::NegotiateRequest negotiate_request_;
  wire::NegotiateResponse negotiated_;
  std::optional<absl::Duration> clock_ahead_;
  SecurityContext security_;
  wire::PreauthHash preauth_;
  SequenceWindow window_;
  absl::flat_hash_map<uint64_t, Pending> pending_;  // By MessageId.
  std::deque<Outgoing> outgoing_;
  runtime::Condition outgoing_changed_;
  bool writing_ = false;  // WriteLoop waits for the stream.

  int large_reads_ = 0;  // In flight, of at least kLargeRead.

  bool closed_ = false;
  absl::Status close_reason_;
  bool suspect_ = false;
  runtime::Condition health_changed_;
  SilenceClock silence_;
  runtime::Condition silence_changed_;  // Watch is to look again.
  std::function<void(const wire::Break&)> break_handler_;
  uint16_t channel_sequence_ = 0;
  bool echo_in_flight_ = false;
  int64_t frames_sent_ = 0;

  runtime::TaskGroup tasks_;  // Dies first: its tasks use all of the above.
};

}  // namespace dfscsi::smb

#endif  // NODE_AGENT_SMB_CONNECTION_H_
