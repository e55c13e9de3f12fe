// Session: how requests end. The answer, its journal, and what is told of slow ones.

#define FUSE_USE_VERSION 35
#include <errno.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <string.h>
#include <sys/uio.h>

#include <utility>

#include "node-agent/base/death_points.h"
#include "node-agent/base/log.h"
#include "node-agent/fuse/session.h"
#include "node-agent/fuse/session_internal.h"
#include "node-agent/fuse/statx.h"
#include "node-agent/vfs/filesystem.h"

namespace dfscsi::fuse {

using state::RequestSlot;

namespace {

// Whether an answer must be remembered until the kernel has it, because computing it again is not
// the same: it counts a lookup or makes a handle, or (FLUSH, SETLK) sets locks, which their owner
// may have changed since. Of a change the error, too: an application that
// was told of it must not find the change made later.
bool NeedsJournal(uint32_t opcode, int error) {
  switch (opcode) {
    case FUSE_LOOKUP:
    case FUSE_OPEN:
    case FUSE_OPENDIR:
      return error == 0;
    case FUSE_GETATTR:
    case FUSE_READLINK:
    case FUSE_READ:
    case FUSE_READDIR:
    case FUSE_READDIRPLUS:
    case FUSE_STATFS:
    case FUSE_ACCESS:
    case FUSE_GETXATTR:
    case FUSE_LISTXATTR:
    case FUSE_LSEEK:
    case FUSE_GETLK:
    case FUSE_FSYNCDIR:
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
    case kFuseStatx:
      return false;
    case FUSE_FSYNC:  // It may tell of an earlier write, and does so once.
      return error != 0;
    default:
      return true;
  }
}

}  // namespace

void Session::AnswerEarly(Request& request) {
  fuse_write_out answer = {};
  const char* const body = request.slot.request().data() + sizeof(fuse_in_header);
  answer.size = reinterpret_cast<const fuse_write_in*>(body)->size;
  const absl::Span<const char> bytes(reinterpret_cast<const char*>(&answer), sizeof(answer));
  room_.arena().MarkAcknowledged(request.slot, bytes);
  Pass(DeathPoint::kEarlyRecorded);
  request.answered_early = true;
  requests_.erase(request.slot.unique());
  early_.insert(&request);
  ++counters_.answers;
  ++counters_.early_answers;
  if (WriteAnswer(request.slot.unique(), 0, bytes) != 0) ++counters_.undelivered;
  Pass(DeathPoint::kEarlyAnswered);
  fuse_reply_none(std::exchange(request.libfuse, nullptr));
  if (request.interrupt) room_.Free(std::exchange(request.interrupt, RequestSlot()));
}

bool Session::Answer(std::unique_ptr<Request> request, absl::FunctionRef<int(fuse_req*)> reply) {
  if (request->age() > config_.slow) TellSlow(*request, /*answered=*/true);
  if (request->answered_early) {
    Pass(DeathPoint::kEarlyEnded);
    room_.Free(request->slot);
    early_.erase(request.get());
    if (IsIdle()) idle_.NotifyAll();
    return true;
  }
  answering_ = request.get();
  write_error_ = 0;
  (void)reply(request->libfuse);
  answering_ = nullptr;
  ++counters_.answers;
  Pass(DeathPoint::kAnswerWritten);
  requests_.erase(request->slot.unique());
  // The answer is in the journal, and the slot not free yet: the next agent tells it once, too.
  if (request->kept_error != 0) {
    filesystem_.NoteErrorTold(HandleOf(request->slot), request->kept_error);
  }
  // So for a handle: the journal names it until the slot is free.
  if (request->opened != 0 && write_error_ == 0) filesystem_.HandleDelivered(request->opened);
  room_.Free(request->slot);
  if (request->interrupt) room_.Free(request->interrupt);
  if (IsIdle()) idle_.NotifyAll();
  return write_error_ == 0;
}

void Session::TellSlow(const Request& request, bool answered) {
  // Who waits for a lock waits for another program.
  if (request.slot.opcode() == FUSE_SETLKW) return;
  config_.on_slow({.opcode = request.slot.opcode(),
                   .node = HeaderOf(request.slot).nodeid,
                   .age = request.age(),
                   .answered = answered,
                   .behind = request.answered_early,
                   .moves = config_.moves ? config_.moves() - request.moves_before : 0});
}

void Session::ReportIfSlow(Request& request) {
  if (request.slow_reported || request.age() <= config_.slow) return;
  request.slow_reported = true;
  TellSlow(request, /*answered=*/false);
}

void Session::ReportSlow() {
  for (const auto& [unique, request] : requests_) ReportIfSlow(*request);
  for (Request* const request : early_) ReportIfSlow(*request);
}

void Session::CountError(int error) {
  ++counters_.error_answers;
  if (error == EIO) ++counters_.eio_answers;
}

void Session::LoseEarly(std::unique_ptr<Request> request) {
  filesystem_.LoseWrite(HandleOf(request->slot));
  (void)Answer(std::move(request), [](fuse_req*) { return 0; });
}

void Session::Abandon(std::unique_ptr<Request> request) {
  if (request->answered_early) {
    early_.erase(request.get());
    return;
  }
  fuse_reply_none(request->libfuse);
  requests_.erase(request->slot.unique());
}

int Session::WriteAnswer(uint64_t unique, int error, absl::Span<const char> body) {
  fuse_out_header header = {};
  header.len = static_cast<uint32_t>(sizeof(header) + body.size());
  header.error = -error;
  header.unique = unique;
  iovec parts[2] = {{&header, sizeof(header)}, {const_cast<char*>(body.data()), body.size()}};
  return writev(config_.fuse_fd.get(), parts, body.empty() ? 1 : 2) < 0 ? errno : 0;
}

ssize_t Session::WriteHook(int, iovec* parts, int count, void* session) {
  return static_cast<Session*>(session)->OnWrite(parts, count);
}

ssize_t Session::ReadHook(int, void*, size_t, void*) {
  errno = ENOSYS;  // Reading is ours; libfuse is never asked to.
  return -1;
}

ssize_t Session::OnWrite(iovec* parts, int count) {
  auto* const header = static_cast<fuse_out_header*>(parts[0].iov_base);
  if (replaying_) {
    replay_error_ = -header->error;
    return header->len;
  }
  if (answering_ != nullptr) Journal(*answering_, parts, count);
  StatxOut statx;
  if (answering_ != nullptr && answering_->slot.opcode() == kFuseStatx && count == 2 &&
      parts[1].iov_len == sizeof(fuse_attr_out)) {
    statx = StatxOf(*static_cast<const fuse_attr_out*>(parts[1].iov_base), answering_->born);
    parts[1] = {&statx, sizeof(statx)};
    header->len = sizeof(fuse_out_header) + sizeof(statx);
  }
  if (writev(config_.fuse_fd.get(), parts, count) >= 0) return header->len;
  write_error_ = errno;
  if (write_error_ == ENOENT || write_error_ == ENODEV) {
    ++counters_.undelivered;  // Aborted, or unmounted.
  } else {
    ++counters_.write_failures;
    LogError("mount ", config_.mount_id, ": the kernel refuses an answer to opcode ",
             answering_ != nullptr ? answering_->slot.opcode() : 0, ": ", strerror(write_error_));
    CountError(EIO);
    (void)WriteAnswer(header->unique, EIO, {});
  }
  return header->len;  // libfuse would print its own line.
}

void Session::Journal(const Request& request, const iovec* parts, int count) {
  const auto& header = *static_cast<const fuse_out_header*>(parts[0].iov_base);
  const uint32_t opcode = request.slot.opcode();
  if (!NeedsJournal(opcode, -header.error)) return;
  const absl::Span<const char> body =
      count == 2
          ? absl::MakeConstSpan(static_cast<const char*>(parts[1].iov_base), parts[1].iov_len)
          : absl::Span<const char>();
  if (count > 2 || body.size() > state::kReplyJournalBytes) return;  // None of ours is longer.
  Pass(DeathPoint::kAnswerKnown);
  if (MayTellKeptError(opcode)) {
    MarkTellsKeptError(room_.arena(), request.slot, request.kept_error != 0);
  }
  room_.arena().MarkDone(request.slot, -header.error, body);
  Pass(DeathPoint::kAnswerRecorded);
}

}  // namespace dfscsi::fuse
