// The way out: headers, signatures, encryption, the write queue.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "node-agent/base/death_points.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/smb/connection.h"
#include "node-agent/smb/connection_internal.h"
#include "node-agent/smb/wire/session.h"

namespace dfscsi::smb {
namespace {

constexpr int kEnoughCredits = 512;  // Thirty-two READs of 1 MiB.
constexpr uint32_t kBytesPerCredit = 65536;

}  // namespace

int ChargeOf(const Request& request) {
  const uint32_t bytes = std::max<uint32_t>(request.largest_payload_bytes, 1);
  return static_cast<int>((bytes - 1) / kBytesPerCredit + 1);
}

Request MakeEmptyRequest(wire::Command command) {
  Request request;
  request.command = command;
  wire::Writer writer(&request.message);
  writer.Zero(wire::kHeaderSize);
  wire::EncodeEmptyBody(writer);
  return request;
}

void Connection::FillHeader(Request& request, uint64_t message_id, int charge) {
  wire::Header header;
  header.command = request.command;
  // 2.0.2 and NEGOTIATE itself know no charge.
  const bool large_mtu = (negotiated_.capabilities & wire::kCapLargeMtu) != 0;
  header.credit_charge = large_mtu ? static_cast<uint16_t>(charge) : 0;
  header.credits = static_cast<uint16_t>(charge + (window_.total() < kEnoughCredits ? 64 : 0));
  header.message_id = message_id;
  header.tree_id = request.tree_id;
  header.session_id = security_.session_id;
  if (request.related) header.flags |= wire::kFlagRelated;
  if (security_.dialect >= wire::Dialect::k300) {
    header.channel_sequence = channel_sequence_;
    if (request.replay) header.flags |= wire::kFlagReplay;
  }
  std::vector<uint8_t> bytes;
  bytes.reserve(wire::kHeaderSize);
  wire::Writer writer(&bytes);
  wire::EncodeHeader(header, writer);
  std::copy(bytes.begin(), bytes.end(), request.message.begin());
}

void Connection::SignPart(Request& request, bool encrypt) {
  if (request.command == wire::Command::kSessionSetup && !encrypt) {
    preauth_.Update(wire::Bytes(request.message));
  }
  if (encrypt || !security_.has_keys()) return;
  if (!security_.signing && !request.must_sign) return;
  const wire::Bytes parts[] = {request.message, request.payload};
  security_.Sign(absl::MakeSpan(request.message), parts);
}

Connection::Outgoing Connection::EncodeFrame(const std::shared_ptr<CallState>& call,
                                             uint64_t first_id) {
  Outgoing frame;
  frame.call = call;
  call->first_message_id = first_id;
  call->remaining = call->requests.size();
  call->responses.resize(call->requests.size());

  const bool encrypt = security_.encrypting() &&
                       call->requests.front().command != wire::Command::kSessionSetup &&
                       call->requests.front().command != wire::Command::kNegotiate;
  if (pending_.empty()) {
    silence_.OnBusy(runtime::Loop::Current().Now());
    silence_changed_.NotifyAll();
  }
  uint64_t message_id = first_id;
  for (size_t i = 0; i < call->requests.size(); ++i) {
    Request& request = call->requests[i];
    const int charge = ChargeOf(request);
    FillHeader(request, message_id, charge);
    if (i + 1 < call->requests.size()) {
      // The padding belongs to the part: it is signed with it ([MS-SMB2] 3.2.4.1.4).
      request.message.resize((request.message.size() + 7) / 8 * 8);
      wire::PatchNextCommand(absl::MakeSpan(request.message),
                             static_cast<uint32_t>(request.message.size()));
    }
    SignPart(request, encrypt);
    if (request.command == wire::Command::kNegotiate) {
      preauth_.Update(wire::Bytes(request.message));
    }

    Pending pending;
    pending.call = call;
    pending.index = i;
    pending.sent = {.command = request.command,
                    .message_id = message_id,
                    .session_id = security_.session_id,
                    .tree_id = request.tree_id,
                    .async_id = std::nullopt};
    pending.charge = charge;
    pending.encrypted = encrypt;
    pending.read_into = request.read_into;
    pending.large = request.read_into.size() >= kLargeRead;
    if (pending.large) ++large_reads_;
    pending.sent_at = runtime::Loop::Current().Now();
    pending_.emplace(message_id, std::move(pending));
    message_id += charge;
  }

  size_t size = 0;
  for (const Request& request : call->requests) {
    size += request.message.size() + request.payload.size();
  }
  if (encrypt) {
    std::vector<wire::Bytes> parts;
    for (const Request& request : call->requests) {
      parts.push_back(request.message);
      if (!request.payload.empty()) parts.push_back(request.payload);
    }
    frame.bytes.resize(wire::kFramePrefixSize + wire::kTransformHeaderSize + size);
    const auto prefix = wire::FramePrefix(static_cast<uint32_t>(wire::kTransformHeaderSize + size));
    std::copy(prefix.begin(), prefix.end(), frame.bytes.begin());
    security_.Encrypt(parts, absl::MakeSpan(frame.bytes).subspan(wire::kFramePrefixSize));
    return frame;
  }
  const auto prefix = wire::FramePrefix(static_cast<uint32_t>(size));
  frame.bytes.reserve(wire::kFramePrefixSize + size - call->requests.back().payload.size());
  frame.bytes.insert(frame.bytes.end(), prefix.begin(), prefix.end());
  for (const Request& request : call->requests) {
    frame.bytes.insert(frame.bytes.end(), request.message.begin(), request.message.end());
  }
  // Only the last part may carry a payload, so that it follows its message on the wire.
  frame.payload = call->requests.back().payload;
  return frame;
}

void Connection::Send(Outgoing frame) {
  ++frames_sent_;
  outgoing_.push_back(std::move(frame));
  // WriteLoop runs behind what is ready now: requests that came in together leave in one write.
  if (!writing_) outgoing_changed_.NotifyAll();
}

bool Connection::WriteSome() {
  constexpr size_t kMostPieces = 32;
  while (!outgoing_.empty()) {
    iovec pieces[kMostPieces];
    size_t count = 0;
    for (Outgoing& frame : outgoing_) {
      if (count + 2 > kMostPieces) break;
      size_t skip = frame.written;
      for (const wire::Bytes piece : {wire::Bytes(frame.bytes), frame.payload}) {
        const size_t gone = std::min(skip, piece.size());
        skip -= gone;
        if (gone == piece.size()) continue;
        pieces[count++] = {const_cast<uint8_t*>(piece.data()) + gone, piece.size() - gone};
      }
    }
    const runtime::Stream::Progress progress = stream_->TryWrite({pieces, count});
    if (!progress.ok()) {
      Close(progress.status());
      return true;
    }
    if (!progress->has_value()) return false;
    size_t written = **progress;
    while (written > 0) {
      Outgoing& frame = outgoing_.front();
      if (frame.call != nullptr) frame.call->on_the_wire = true;
      const size_t left = frame.bytes.size() + frame.payload.size() - frame.written;
      const size_t here = std::min(written, left);
      frame.written += here;
      written -= here;
      if (here < left) continue;
      if (IsDeathArmed() && frame.call != nullptr) PassSent(frame.call->requests);
      outgoing_.pop_front();
    }
  }
  return true;
}

runtime::Task<void> Connection::WriteLoop() {
  while (!closed_) {
    if (WriteSome()) {
      // Ends with the next frame or the connection.
      if (!(co_await outgoing_changed_.WaitForNotify(runtime::Deadline::Never())).ok()) co_return;
      continue;
    }
    writing_ = true;
    // Ends with the stream: a peer that takes nothing is found by Watch, and its owner closes us.
    const absl::Status status = co_await stream_->WaitWritable(runtime::Deadline::Never());
    writing_ = false;
    if (!status.ok()) Close(status);
  }
}

void Connection::SendCancel(Pending& pending) {
  if (std::exchange(pending.cancelled, true)) return;
  // Uses the MessageId of what it cancels, no credit, and has no answer ([MS-SMB2] 3.2.4.24).
  Request cancel = MakeEmptyRequest(wire::Command::kCancel);
  wire::Header header;
  header.command = cancel.command;
  header.message_id = pending.sent.message_id;
  header.session_id = pending.sent.session_id;
  if (pending.sent.async_id.has_value()) {
    header.flags |= wire::kFlagAsync;
    header.async_id = *pending.sent.async_id;
  } else {
    header.tree_id = pending.sent.tree_id;
  }
  std::vector<uint8_t> bytes;
  wire::Writer header_writer(&bytes);
  wire::EncodeHeader(header, header_writer);
  std::copy(bytes.begin(), bytes.end(), cancel.message.begin());

  Outgoing frame;
  if (security_.encrypting()) {
    const wire::Bytes parts[] = {cancel.message};
    const size_t size = wire::kTransformHeaderSize + cancel.message.size();
    frame.bytes.resize(wire::kFramePrefixSize + size);
    const auto prefix = wire::FramePrefix(static_cast<uint32_t>(size));
    std::copy(prefix.begin(), prefix.end(), frame.bytes.begin());
    security_.Encrypt(parts, absl::MakeSpan(frame.bytes).subspan(wire::kFramePrefixSize));
  } else {
    SignPart(cancel, /*encrypt=*/false);
    const auto prefix = wire::FramePrefix(static_cast<uint32_t>(cancel.message.size()));
    frame.bytes.assign(prefix.begin(), prefix.end());
    frame.bytes.insert(frame.bytes.end(), cancel.message.begin(), cancel.message.end());
  }
  Send(std::move(frame));
}

void Connection::Abandon(const std::shared_ptr<CallState>& call) {
  call->abandoned = true;
  // What is half written must be finished, or framing is lost; and MessageIds must not be skipped.
  // So the frame stays in the queue, with a copy of what its caller is about to free.
  for (Outgoing& frame : outgoing_) {
    if (frame.call != call || frame.payload.empty()) continue;
    frame.bytes.insert(frame.bytes.end(), frame.payload.begin(), frame.payload.end());
    frame.payload = {};
  }
  uint64_t message_id = call->first_message_id;
  for (size_t i = 0; i < call->requests.size(); ++i) {
    Request& request = call->requests[i];
    if (const auto found = pending_.find(message_id); found != pending_.end()) {
      Pending& pending = found->second;
      pending.call = nullptr;
      pending.read_into = {};
      pending.on_late = std::move(request.on_late);
      if (pending.sent.async_id.has_value() && !closed_) SendCancel(pending);
    } else if (request.on_late && !call->responses[i].message.empty()) {
      // It had come, and its caller went before it could look.
      request.on_late(call->responses[i]);
    }
    message_id += ChargeOf(request);
  }
}

}  // namespace dfscsi::smb
