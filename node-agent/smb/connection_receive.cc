// The way in: framing, the data of READs straight into its place, decryption, signatures, and whom
// a response belongs to.

#include <string.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "node-agent/base/death_points.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/smb/connection.h"
#include "node-agent/smb/connection_internal.h"
#include "node-agent/smb/wire/io.h"

namespace dfscsi::smb {
namespace {

// Header, fixed body and slack of the largest answer that we ask for.
constexpr uint32_t kFrameSlack = 65536;

// What is left of a stream that was closed.
class EndedStream : public runtime::Stream {
 public:
  explicit EndedStream(runtime::SocketAddress peer) : peer_(peer) {}

  Progress TryRead(absl::Span<const iovec>) override { return Ended(); }
  Progress TryWrite(absl::Span<const iovec>) override { return Ended(); }
  runtime::Task<absl::Status> WaitReadable(runtime::Deadline) override { co_return Ended(); }
  runtime::Task<absl::Status> WaitWritable(runtime::Deadline) override { co_return Ended(); }
  runtime::TcpProgress progress() override { return {}; }
  runtime::SocketAddress peer() const override { return peer_; }
  void ResetOnClose() override {}

 private:
  static absl::Status Ended() { return absl::UnavailableError("the connection was closed"); }

  const runtime::SocketAddress peer_;
};

}  // namespace

// Reads frames from the stream. Small ones pass through a staging buffer; the data of a READ that
// comes alone in a plain frame goes from the socket to where its caller wants it.
class Connection::Receiver {
 public:
  explicit Receiver(Connection& connection) : connection_(connection), staging_(kStagingSize) {}

  // Returns the error that ends the connection.
  runtime::Task<absl::Status> Run() {
    while (true) {
      CO_RETURN_IF_ERROR(co_await Stage(wire::kFramePrefixSize));
      CO_ASSIGN_OR_RETURN(const uint32_t size,
                          wire::DecodeFramePrefix(staged().first(wire::kFramePrefixSize),
                                                  connection_.LargestFrame()));
      begin_ += wire::kFramePrefixSize;
      bool direct = false;
      if (size > wire::kReadResponsePeekSize) {
        CO_RETURN_IF_ERROR(co_await Stage(wire::kReadResponsePeekSize));
        wire::Header header;
        if (connection_.FindDirectRead(staged().first(wire::kReadResponsePeekSize), size,
                                       &header) != nullptr) {
          direct = true;
          CO_RETURN_IF_ERROR(co_await ReadDirect(header, size));
        }
      }
      if (!direct) CO_RETURN_IF_ERROR(co_await ReadWhole(size));
      // By us. What the server still has to say (that a lease is broken, say) waits for nobody.
      if (connection_.closed_) co_return connection_.close_reason_;
    }
  }

 private:
  static constexpr size_t kStagingSize = 65536;
  // While large READs are in flight, what follows a payload is mostly the next payload: do not
  // stage much of it.
  static constexpr size_t kShortStage = 4096;

  wire::Bytes staged() const { return wire::Bytes(staging_).subspan(begin_, end_ - begin_); }

  // Waits until at least `size` bytes are staged. REQUIRES: size <= kShortStage.
  runtime::Task<absl::Status> Stage(size_t size) {
    while (end_ - begin_ < size) {
      if (begin_ == end_) begin_ = end_ = 0;
      if (staging_.size() - begin_ < kShortStage) {
        memmove(staging_.data(), staging_.data() + begin_, end_ - begin_);
        end_ -= begin_;
        begin_ = 0;
      }
      const iovec into{staging_.data() + end_, StageRoom()};
      CO_ASSIGN_OR_RETURN(const size_t n, co_await ReadSome({&into, 1}));
      end_ += n;
    }
    co_return absl::OkStatus();
  }

  size_t StageRoom() const {
    const size_t room = staging_.size() - end_;
    return connection_.large_reads_ > 0 ? std::min(room, kShortStage) : room;
  }

  // At least one byte; the end of the stream is an error.
  runtime::Task<absl::StatusOr<size_t>> ReadSome(absl::Span<const iovec> into) {
    while (true) {
      if (drained_) {
        drained_ = false;
        // Ends with the stream; Watch tells of silence.
        CO_RETURN_IF_ERROR(co_await connection_.stream_->WaitReadable(runtime::Deadline::Never()));
      }
      CO_ASSIGN_OR_RETURN(const size_t n, TryRead(into));
      if (n > 0) co_return n;
    }
  }

  // 0: nothing now, wait first.
  absl::StatusOr<size_t> TryRead(absl::Span<const iovec> into) {
    ASSIGN_OR_RETURN(const std::optional<size_t> n, connection_.stream_->TryRead(into));
    size_t room = 0;
    for (const iovec& piece : into) room += piece.iov_len;
    drained_ = n.value_or(0) < room;
    if (!n.has_value()) return 0;
    if (*n == 0) return absl::UnavailableError("the server closed the connection");
    connection_.NoteReceived();
    return *n;
  }

  runtime::Task<absl::Status> ReadWhole(uint32_t size) {
    std::vector<uint8_t> large;
    wire::MutableBytes frame;
    if (size <= end_ - begin_) {
      frame = absl::MakeSpan(staging_).subspan(begin_, size);
      begin_ += size;
    } else {
      large.resize(size);
      frame = absl::MakeSpan(large);
      CO_RETURN_IF_ERROR(co_await Fill(frame));
    }
    co_return connection_.HandleFrame(frame);
  }

  // From the staging buffer first, then from the stream, staging what follows.
  runtime::Task<absl::Status> Fill(wire::MutableBytes into) {
    size_t filled = TakeStaged(into);
    while (filled < into.size()) {
      begin_ = end_ = 0;
      const iovec pieces[] = {{into.data() + filled, into.size() - filled},
                              {staging_.data(), StageRoom()}};
      CO_ASSIGN_OR_RETURN(const size_t n, co_await ReadSome(pieces));
      const size_t here = std::min(n, into.size() - filled);
      filled += here;
      end_ = n - here;
    }
    co_return absl::OkStatus();
  }

  size_t TakeStaged(wire::MutableBytes into) {
    const size_t n = std::min(into.size(), end_ - begin_);
    memcpy(into.data(), staging_.data() + begin_, n);
    begin_ += n;
    return n;
  }

  runtime::Task<absl::Status> ReadDirect(wire::Header header, uint32_t size) {
    std::array<uint8_t, wire::kReadResponsePeekSize> peek;
    TakeStaged(absl::MakeSpan(peek));
    const size_t length = size - peek.size();
    size_t filled = 0;
    bool whole = true;  // Nobody has taken the destination away.
    while (true) {
      // The caller may go while we wait for bytes, and its buffer with it: look it up each time.
      Pending* const pending = connection_.FindPending(header.message_id);
      if (pending == nullptr) co_return absl::DataLossError("an answer to nothing");
      whole = whole && pending->call != nullptr;
      if (filled == length) break;
      wire::MutableBytes rest = absl::MakeSpan(sink_);
      if (whole) {
        rest = pending->read_into.subspan(filled, length - filled);
      } else {
        sink_.resize(kStagingSize);
        rest = absl::MakeSpan(sink_).first(std::min(sink_.size(), length - filled));
      }
      if (begin_ < end_) {
        filled += TakeStaged(rest);
        continue;
      }
      begin_ = end_ = 0;
      const bool last = rest.size() == length - filled;
      const iovec pieces[] = {{rest.data(), rest.size()},
                              {staging_.data(), last ? StageRoom() : 0}};
      CO_ASSIGN_OR_RETURN(const size_t n, TryRead(pieces));
      if (n == 0) {
        CO_RETURN_IF_ERROR(co_await connection_.stream_->WaitReadable(runtime::Deadline::Never()));
        continue;
      }
      const size_t here = std::min(n, rest.size());
      filled += here;
      end_ = n - here;
    }
    drained_ = false;
    if (whole) {
      Pending* const pending = connection_.FindPending(header.message_id);
      const wire::Bytes parts[] = {peek, pending->read_into.first(length)};
      CO_RETURN_IF_ERROR(connection_.CheckSignature(header, parts, /*was_encrypted=*/false,
                                                    /*must_be_encrypted=*/false));
    }
    Response response;
    response.header = header;
    response.message.assign(peek.begin(), peek.end());
    response.read_bytes = length;
    connection_.Finish(header.message_id, std::move(response));
    co_return absl::OkStatus();
  }

  Connection& connection_;
  std::vector<uint8_t> staging_;
  size_t begin_ = 0;
  size_t end_ = 0;
  // The last read, of a small answer, got less than it could take: nothing is there. While much
  // data streams in, more has mostly come meanwhile.
  bool drained_ = false;
  std::vector<uint8_t> sink_;  // Where abandoned data goes.
};

runtime::Task<void> Connection::ReadLoop() {
  Receiver receiver(*this);
  Close(co_await receiver.Run());
  // The server is to see the end now, and not when the last one who had something open here has
  // noticed: what is open and locked here is in others' way until then.
  if (!writing_) stream_ = std::make_unique<EndedStream>(stream_->peer());
}

uint32_t Connection::LargestFrame() const {
  return std::max(options_.max_read_bytes, uint32_t{1} << 20) + kFrameSlack;
}

void Connection::NoteReceived() {
  silence_.OnBytes(runtime::Loop::Current().Now());
  if (suspect_) {
    suspect_ = false;
    health_changed_.NotifyAll();
    silence_changed_.NotifyAll();
  }
}

Connection::Pending* Connection::FindPending(uint64_t message_id) {
  const auto found = pending_.find(message_id);
  return found == pending_.end() ? nullptr : &found->second;
}

Connection::Pending* Connection::FindDirectRead(wire::Bytes peek, uint32_t frame_size,
                                                wire::Header* header) {
  if (wire::KindOfFrame(peek) != wire::FrameKind::kPlain) return nullptr;
  absl::StatusOr<wire::Header> decoded = wire::DecodeHeader(peek);
  if (!decoded.ok() || decoded->command != wire::Command::kRead ||
      decoded->status != wire::NtStatus::kSuccess || decoded->next_command != 0) {
    return nullptr;
  }
  Pending* const pending = FindPending(decoded->message_id);
  if (pending == nullptr || pending->call == nullptr || pending->encrypted ||
      pending->read_into.empty() || !wire::CheckResponse(*decoded, pending->sent).ok()) {
    return nullptr;
  }
  const absl::StatusOr<wire::ReadResponse> read =
      wire::DecodeReadResponse(peek.subspan(wire::kHeaderSize), frame_size);
  if (!read.ok() || read->data_offset != wire::kReadDataOffset ||
      read->data_length != frame_size - wire::kReadResponsePeekSize ||
      read->data_length > pending->read_into.size()) {
    return nullptr;
  }
  *header = *decoded;
  return pending;
}

absl::Status Connection::HandleFrame(wire::MutableBytes frame) {
  switch (wire::KindOfFrame(frame)) {
    case wire::FrameKind::kPlain:
      return HandlePlainFrame(frame, /*was_encrypted=*/false);
    case wire::FrameKind::kEncrypted: {
      ASSIGN_OR_RETURN(const wire::Bytes plain, security_.Decrypt(frame));
      return HandlePlainFrame(plain, /*was_encrypted=*/true);
    }
    default:
      return absl::DataLossError("the server sent something that is not SMB2");
  }
}

absl::Status Connection::HandlePlainFrame(wire::Bytes frame, bool was_encrypted) {
  wire::PartReader parts(frame);
  while (!parts.done()) {
    ASSIGN_OR_RETURN(const wire::Part part, parts.Next());
    RETURN_IF_ERROR(HandlePart(part, was_encrypted));
  }
  return absl::OkStatus();
}

absl::Status Connection::CheckSignature(const wire::Header& header,
                                        absl::Span<const wire::Bytes> parts, bool was_encrypted,
                                        bool must_be_encrypted) {
  if (was_encrypted) return absl::OkStatus();  // The envelope protects it.
  if (header.status == wire::NtStatus::kUserSessionDeleted && !header.Has(wire::kFlagSigned) &&
      (security_.signing || must_be_encrypted)) {
    // A server that has forgotten the session has no key to sign with ([MS-SMB2] 3.3.5.2.9). It is
    // not believed as an answer, for it proves nothing about the request; it ends the connection,
    // which whoever can forge it could do by a reset, too.
    return absl::AbortedError("the server does not know the session any more");
  }
  // These come before there are keys; Session checks the last of them itself.
  if (header.command == wire::Command::kNegotiate ||
      header.command == wire::Command::kSessionSetup) {
    return absl::OkStatus();
  }
  if (must_be_encrypted) return absl::DataLossError("a plain answer in an encrypted session");
  if (!header.Has(wire::kFlagSigned)) {
    if (security_.signing) return absl::DataLossError("an unsigned answer in a signed session");
    return absl::OkStatus();
  }
  if (!security_.has_keys()) return absl::OkStatus();
  if (!security_.Verify(parts)) return absl::DataLossError("a wrong signature");
  return absl::OkStatus();
}

// Neither signed nor, on some servers, encrypted ([MS-SMB2] 3.2.5.1.3): whoever forges one can make
// us forget what we cached, not what we have not yet written.
absl::Status Connection::HandleBreak(const wire::Part& part) {
  ASSIGN_OR_RETURN(const wire::Break broken, wire::DecodeBreak(part.body));
  if (break_handler_) break_handler_(broken);
  return absl::OkStatus();
}

absl::Status Connection::HandlePart(const wire::Part& part, bool was_encrypted) {
  const wire::Header& header = part.header;
  if (header.message_id == wire::kUnsolicitedMessageId) {
    if (header.command != wire::Command::kOplockBreak) {
      return absl::DataLossError("an unasked-for answer");
    }
    return HandleBreak(part);
  }
  Pending* const pending = FindPending(header.message_id);
  if (pending == nullptr) return absl::DataLossError("an answer to nothing");
  RETURN_IF_ERROR(wire::CheckResponse(header, pending->sent));
  if (wire::IsInterim(header)) {
    pending->sent.async_id = header.async_id;
    window_.Grant(header.credits);
    // Its caller went before the server told by what name to cancel it.
    if (pending->call == nullptr) SendCancel(*pending);
    return absl::OkStatus();
  }
  const wire::Bytes whole[] = {part.message};
  RETURN_IF_ERROR(CheckSignature(header, whole, was_encrypted, pending->encrypted));
  if (header.command == wire::Command::kNegotiate ||
      (header.command == wire::Command::kSessionSetup &&
       header.status == wire::NtStatus::kMoreProcessingRequired)) {
    preauth_.Update(part.message);
  }
  Response response;
  response.header = header;
  if (header.command == wire::Command::kRead && pending->call != nullptr &&
      wire::HasOwnBody(header, part.body)) {
    ASSIGN_OR_RETURN(const wire::ReadResponse read,
                     wire::DecodeReadResponse(part.body, part.message.size()));
    if (read.data_length > pending->read_into.size()) {
      return absl::DataLossError("a READ was answered with more than was asked for");
    }
    if (read.data_length > 0) {
      memcpy(pending->read_into.data(), part.message.data() + read.data_offset, read.data_length);
    }
    response.read_bytes = read.data_length;
  } else {
    response.message.assign(part.message.begin(), part.message.end());
  }
  Finish(header.message_id, std::move(response));
  return absl::OkStatus();
}

void Connection::Finish(uint64_t message_id, Response response) {
  const auto found = pending_.find(message_id);
  Pending pending = std::move(found->second);
  pending_.erase(found);
  window_.Return(pending.charge);
  window_.Grant(response.header.credits);
  if (pending.large) --large_reads_;
  const absl::Time now = runtime::Loop::Current().Now();
  if (!pending.sent.async_id.has_value()) silence_.OnAnswer(now, now - pending.sent_at);
  if (pending_.empty()) silence_.OnIdle();
  if (pending.call == nullptr) {
    if (pending.on_late) pending.on_late(response);
    return;
  }
  CallState& call = *pending.call;
  call.responses[pending.index] = std::move(response);
  if (--call.remaining != 0) return;
  if (IsDeathArmed()) PassAnswered(call.requests);
  call.done.Set();
}

}  // namespace dfscsi::smb
