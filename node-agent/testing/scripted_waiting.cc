// Requests of a scripted server that cannot be answered yet: a CREATE that waits for another
// client's lease, a LOCK that waits for another's. What else is in their frame waits with them.

#include <utility>

#include "node-agent/testing/scripted_connection.h"

namespace dfscsi::testing {

using smb::wire::Command;
using smb::wire::Header;
using smb::wire::NtStatus;

bool ScriptedConnection::HandleCalls(std::vector<Call> calls, smb::wire::Bytes frame) {
  for (size_t i = 0; i < calls.size(); ++i) {
    if (i > 0) FollowOn(calls[i - 1], calls[i]);
    if (!HandlePart(calls[i])) return false;
    if (!calls[i].waits) continue;
    // The frame's bytes are needed for longer than they are there.
    auto batch = std::make_shared<Batch>();
    batch->frame.assign(frame.begin(), frame.end());
    const auto moved = [&](smb::wire::Bytes part) {
      return part.empty()
                 ? part
                 : smb::wire::Bytes(batch->frame)
                       .subspan(static_cast<size_t>(part.data() - frame.data()), part.size());
    };
    for (Call& call : calls) {
      call.message = moved(call.message);
      call.body = moved(call.body);
    }
    batch->calls = std::move(calls);
    tasks_.Spawn(FinishLater(std::move(batch), i));
    return !end_.cancelled();
  }
  std::erase_if(calls, [](const Call& call) { return call.header.command == Command::kCancel; });
  if (!calls.empty()) Answer(std::move(calls));
  return !end_.cancelled();
}

// Part `first` waits; what comes behind it in the frame waits for it.
runtime::Task<void> ScriptedConnection::FinishLater(std::shared_ptr<Batch> batch, size_t first) {
  std::vector<Call>& calls = batch->calls;
  for (size_t i = first; i < calls.size(); ++i) {
    if (i > first) {
      FollowOn(calls[i - 1], calls[i]);
      if (!HandlePart(calls[i])) {
        Close(Closing::kClose);
        co_return;
      }
    }
    if (calls[i].waits) co_await WaitAndRepeat(&calls[i]);
  }
  for (Call& call : calls) {
    if (call.no_reply || call.action.drop) {
      if (call.action.close != Closing::kNothing) Close(call.action.close);
      continue;
    }
    if (call.async_id != 0) call.action.credits = call.action.credits.value_or(0);
    FinishReply(call);
    if (call.async_id != 0) MarkAsync(call, call.async_id);
    Send({&call});
  }
}

runtime::Task<void> ScriptedConnection::WaitAndRepeat(Call* waiting) {
  Call& call = *waiting;
  const uint64_t message_id = call.header.message_id;
  const auto cancel = std::make_shared<runtime::CancelSource>();
  cancellable_[message_id] = cancel;
  call.async_id = ++server_.last_async_id_;
  async_ids_[call.async_id] = message_id;
  SendInterim(call, call.async_id);
  // What it waits for may have happened since it was executed, in this very turn: look again before
  // waiting.
  bool look_again = true;
  while (call.waits) {
    absl::Status woken;
    if (!look_again) {
      woken = co_await server_.opens_->changed().WaitForNotify(
          cancel->deadline().Before(call.waits_until));
    }
    look_again = false;
    server_.opens_->SetNow(runtime::Loop::Current().Now());
    call.waits = false;
    call.waits_until = absl::InfiniteFuture();
    call.reply.clear();
    if (absl::IsCancelled(woken)) {
      ReplyError(call, NtStatus::kCancelled);
      break;
    }
    call.status = CheckSession(call);
    if (call.status == NtStatus::kSuccess) Execute(call);
    if (!call.waits && call.reply.empty()) ReplyError(call, call.status);
  }
  cancellable_.erase(message_id);
  async_ids_.erase(call.async_id);
}

void ScriptedConnection::MarkAsync(Call& call, uint64_t async_id) {
  Header header = *smb::wire::DecodeHeader(call.reply);
  header.flags |= smb::wire::kFlagAsync;
  header.async_id = async_id;
  smb::wire::EncodeHeader(header, absl::MakeSpan(call.reply).first(smb::wire::kHeaderSize));
}

void ScriptedConnection::SendBreak(const smb::wire::LeaseBreakNotification& notification) {
  Header header;
  header.command = Command::kOplockBreak;
  header.flags = smb::wire::kFlagResponse;
  header.message_id = smb::wire::kUnsolicitedMessageId;
  std::vector<uint8_t> message;
  smb::wire::Writer writer(&message);
  smb::wire::EncodeHeader(header, writer);
  smb::wire::EncodeLeaseBreakNotification(notification, writer);
  Queue(std::move(message), {});
}

}  // namespace dfscsi::testing
