#include "node-agent/fuse/session.h"

#define FUSE_USE_VERSION 35
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <mutex>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "node-agent/base/death_points.h"
#include "node-agent/base/log.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/fuse/killed_process.h"
#include "node-agent/fuse/operations.h"
#include "node-agent/fuse/statx.h"
#include "node-agent/state/logon_guard.h"
#include "node-agent/vfs/errno.h"
#include "node-agent/vfs/filesystem.h"

namespace dfscsi::fuse {
namespace {

using state::RequestArena;
using state::RequestSlot;
using state::SlotState;

// Requests read in one go before other coroutines have their turn.
constexpr int kReadsPerTurn = 64;
constexpr size_t kMostEarlyInterrupts = 64;

void LogOfLibfuse(fuse_log_level, const char* format, va_list arguments) {
  char line[512];
  vsnprintf(line, sizeof(line), format, arguments);
  LogWarning("libfuse: ", absl::StripTrailingAsciiWhitespace(line));
}

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

const fuse_in_header& HeaderOf(RequestSlot slot) {
  return *reinterpret_cast<const fuse_in_header*>(slot.request().data());
}

// WRITE, FLUSH and FSYNC begin with it.
uint64_t HandleOf(RequestSlot slot) {
  uint64_t fh = 0;
  if (slot.request().size() >= sizeof(fuse_in_header) + sizeof(fh)) {
    memcpy(&fh, slot.request().data() + sizeof(fuse_in_header), sizeof(fh));
  }
  return fh;
}

// What a recorded answer to OPEN, OPENDIR or CREATE gives the kernel; 0: none.
uint64_t OpenedBy(RequestSlot slot) {
  const uint32_t opcode = slot.opcode();
  if (opcode != FUSE_OPEN && opcode != FUSE_OPENDIR && opcode != FUSE_CREATE) return 0;
  const size_t before = opcode == FUSE_CREATE ? sizeof(fuse_entry_out) : 0;
  fuse_open_out opened = {};
  if (slot.error() != 0 || slot.reply().size() < before + sizeof(opened)) return 0;
  memcpy(&opened, slot.reply().data() + before, sizeof(opened));
  return opened.fh;
}

bool MayTellKeptError(uint32_t opcode) {
  return opcode == FUSE_WRITE || opcode == FUSE_FLUSH || opcode == FUSE_FSYNC;
}

// Where an append is to be written is all that the next agent needs to know it by: its name.
state::Guid GuidOf(uint64_t offset) {
  const uint64_t stored = offset + 1;  // 0, an empty name: kNoOffset.
  state::Guid guid = {};
  memcpy(guid.data(), &stored, sizeof(stored));
  return guid;
}

uint64_t OffsetOf(const state::Guid& guid) {
  uint64_t stored = 0;
  memcpy(&stored, guid.data(), sizeof(stored));
  return stored - 1;
}
static_assert(vfs::kNoOffset + 1 == 0);

}  // namespace

absl::StatusOr<std::unique_ptr<Session>> Session::Make(Config config,
                                                       std::unique_ptr<runtime::FdWatch> watch,
                                                       vfs::Filesystem& filesystem, ArenaRoom& room,
                                                       BufferPool& buffers,
                                                       std::function<void()> on_gone) {
  static std::once_flag log_is_set;
  std::call_once(log_is_set, [] { fuse_set_log_func(LogOfLibfuse); });
  std::unique_ptr<Session> session(new Session(std::move(config), std::move(watch), filesystem,
                                               room, buffers, std::move(on_gone)));
  RETURN_IF_ERROR(session->ReplayInit());
  return session;
}

Session::Session(Config config, std::unique_ptr<runtime::FdWatch> watch,
                 vfs::Filesystem& filesystem, ArenaRoom& room, BufferPool& buffers,
                 std::function<void()> on_gone)
    : config_(std::move(config)),
      filesystem_(filesystem),
      room_(room),
      buffers_(buffers),
      on_gone_(std::move(on_gone)),
      watch_(std::move(watch)) {}

Session::~Session() {
  closing_ = true;
  reading_.reset();
  operations_.reset();  // Their replies abandon what they had not answered.
  watch_.reset();
  if (libfuse_ != nullptr) fuse_session_destroy(libfuse_);
}

absl::Status Session::ReplayInit() {
  char name[] = "dfs-node-agent";
  char* arguments[] = {name, nullptr};
  fuse_args args = FUSE_ARGS_INIT(1, arguments);
  const fuse_lowlevel_ops& operations = Operations();
  libfuse_ = fuse_session_new(&args, &operations, sizeof(operations), this);
  fuse_opt_free_args(&args);  // It made a copy of its own.
  if (libfuse_ == nullptr) return absl::InternalError("fuse: no session");
  UniqueFd fd(fcntl(config_.fuse_fd.get(), F_DUPFD_CLOEXEC, 0));
  if (!fd) return absl::ErrnoToStatus(errno, "fuse: dup");
  fuse_custom_io io = {};
  io.writev = WriteHook;
  io.read = ReadHook;
  if (fuse_session_custom_io(libfuse_, &io, fd.get()) != 0) {
    return absl::InternalError("fuse: custom_io");
  }
  (void)fd.release();  // fuse_session_destroy() closes it.

  if (config_.init_in.size() < sizeof(fuse_in_header) + 16) {
    return absl::FailedPreconditionError("fuse: the recorded INIT is too short");
  }
  // libfuse reads it in place, and wants it aligned.
  std::vector<uint64_t> aligned((config_.init_in.size() + 7) / 8);
  memcpy(aligned.data(), config_.init_in.data(), config_.init_in.size());
  fuse_buf buffer = {};
  buffer.size = config_.init_in.size();
  buffer.mem = aligned.data();
  replaying_ = true;
  replay_error_ = -1;  // Not answered at all.
  fuse_session_process_buf(libfuse_, &buffer);
  replaying_ = false;
  if (replay_error_ != 0 || fuse_session_exited(libfuse_) != 0) {
    return absl::FailedPreconditionError("fuse: libfuse refuses the recorded INIT");
  }
  return absl::OkStatus();
}

// ---- Reading ----

void Session::Start() {
  reading_ = std::make_unique<runtime::TaskGroup>();
  reading_->Spawn(ReadLoop());
}

void Session::StopReading() { reading_.reset(); }

runtime::Task<absl::Status> Session::WaitUntilIdle(runtime::Deadline deadline) {
  while (!IsIdle()) CO_RETURN_IF_ERROR(co_await idle_.WaitForNotify(deadline));
  co_return absl::OkStatus();
}

runtime::Task<void> Session::ReadLoop() {
  int failures = 0;
  while (true) {
    switch (ReadSome()) {
      case ReadSomeResult::kEmptyOrEnough:
        failures = 0;
        // Ends with the session, which owns this coroutine.
        if (!(co_await watch_->WaitReadable(runtime::Deadline::Never())).ok()) co_return;
        break;
      case ReadSomeResult::kNoSlot: {
        const ArenaRoom::Waiter waiter(room_);
        (void)co_await room_.WaitForSlot(runtime::Deadline::After(absl::Seconds(1)));
        break;
      }
      case ReadSomeResult::kFull: {
        CancelKilled();
        const ArenaRoom::Waiter waiter(room_);
        (void)co_await room_.WaitForFreed(runtime::Deadline::After(absl::Seconds(1)));
        break;
      }
      case ReadSomeResult::kFailed:
        // Nothing that a kernel says. Go on, but do not spin.
        if (++failures == 1) LogError("mount ", config_.mount_id, ": reading requests failed");
        (void)co_await runtime::Sleep(absl::Milliseconds(100), runtime::Deadline::Never());
        break;
      case ReadSomeResult::kGone:
        on_gone_();
        co_return;
    }
  }
}

Session::ReadSomeResult Session::ReadSome() {
  for (int i = 0; i < kReadsPerTurn; ++i) {
    const RequestArena::Read read =
        room_.arena().ReadRequest(config_.fuse_fd.get(), config_.mount_id);
    switch (read.result) {
      case RequestArena::ReadResult::kRequest:
        Pass(DeathPoint::kRequestFilled);
        if ((read.slot.big() || read.slot.parked()) && room_.arena().IsShort()) room_.AskToGrow();
        Process(read.slot);
        break;
      case RequestArena::ReadResult::kEmpty:
        return ReadSomeResult::kEmptyOrEnough;
      case RequestArena::ReadResult::kNoSlot:
        return ReadSomeResult::kNoSlot;
      case RequestArena::ReadResult::kFull:
        return ReadSomeResult::kFull;
      case RequestArena::ReadResult::kGone:
        return ReadSomeResult::kGone;
      case RequestArena::ReadResult::kFailed:
        ++counters_.read_failures;
        return ReadSomeResult::kFailed;
    }
  }
  return ReadSomeResult::kEmptyOrEnough;
}

void Session::Adopt(const std::vector<RequestSlot>& slots) {
  std::vector<state::FileHandle> answered;
  for (const RequestSlot slot : slots) {
    if (slot.state() != SlotState::kDone) continue;
    if (const uint64_t opened = OpenedBy(slot); opened != 0) answered.push_back(opened);
  }
  filesystem_.CloseUndelivered(answered);
  for (const RequestSlot slot : slots) {
    if (slot.state() != SlotState::kAcknowledged) continue;
    ++counters_.adopted_requests;
    (void)WriteAnswer(slot.unique(), 0, slot.reply());  // As below.
    Process(slot);
  }
  for (const RequestSlot slot : slots) {
    if (slot.state() == SlotState::kAcknowledged) {
      continue;
    } else if (slot.state() == SlotState::kDone) {
      ++counters_.adopted_answers;
      if (slot.error() != 0 && MayTellKeptError(slot.opcode())) {
        filesystem_.NoteErrorTold(HandleOf(slot), slot.error());
      }
      // ENOENT: the kernel has it already.
      (void)WriteAnswer(slot.unique(), slot.error(), slot.reply());
      Pass(DeathPoint::kAdoptedAnswerSent);
      room_.Free(slot);
    } else {
      ++counters_.adopted_requests;
      Process(slot);
      Pass(DeathPoint::kAdoptedRequestRun);
    }
  }
}

void Session::Process(RequestSlot slot) {
  const fuse_in_header& header = HeaderOf(slot);
  ++counters_.requests[std::min<uint32_t>(header.opcode, SessionCounters::kOpcodes - 1)];
  if (header.opcode == FUSE_INTERRUPT) {
    ProcessInterrupt(slot);
    return;
  }
  const bool acknowledged = slot.state() == SlotState::kAcknowledged;
  if (!acknowledged && IsOwnRequest(header.pid) && header.opcode != FUSE_FORGET &&
      header.opcode != FUSE_BATCH_FORGET) {
    // A thread of ours that waits for an answer of ours waits for ever.
    ++counters_.own_requests;
    (void)WriteAnswer(header.unique, EDEADLK, {});
    room_.Free(slot);
    return;
  }
  decoding_ = slot;
  taken_ = false;
  fuse_buf buffer = {};
  buffer.size = slot.request().size();
  buffer.mem = slot.request().data();
  std::optional<GetattrRequest> getattr;
  if (header.opcode == kFuseStatx) getattr = GetattrOf({slot.request().data(), buffer.size});
  if (getattr.has_value()) {
    buffer.size = sizeof(*getattr);
    buffer.mem = &*getattr;
  }
  fuse_session_process_buf(libfuse_, &buffer);
  // libfuse itself answered what has no callback: ENOSYS.
  if (!taken_) room_.Free(slot);
  decoding_ = RequestSlot();
}

bool Session::IsOwnRequest(uint32_t pid) const {
  // The pid is that of the thread. 0: the kernel's own, or somebody outside our namespace.
  return config_.check_own_requests && pid != 0 &&
         syscall(SYS_tgkill, own_pid_, static_cast<pid_t>(pid), 0) == 0;
}

// ---- Requests in flight ----

void Request::NoteSent(uint64_t server_key, uint64_t offset) {
  Pass(DeathPoint::kChangeUnmarked);
  arena->MarkStarted(slot, GuidOf(offset), server_key);
  Pass(DeathPoint::kChangeMarked);
}

uint64_t Request::held_bytes() const {
  // Parked ones are of a server that is away, or too many.
  if (!may_answer_early || slot.parked() || !session->answers_early()) return 0;
  return slot.big() ? state::kBigPayloadBytes : state::kSmallPayloadBytes;
}

void Request::Acknowledge() { session->AnswerEarly(*this); }

absl::Duration Request::age() const {
  return absl::Nanoseconds(static_cast<int64_t>(state::ArenaNowNs() - slot.arrived_ns()));
}

std::unique_ptr<Request> Session::Begin(fuse_req* libfuse) {
  auto request = std::make_unique<Request>();
  request->libfuse = libfuse;
  request->session = this;
  request->arena = &room_.arena();
  request->slot = decoding_;
  request->answered_early = decoding_.state() == SlotState::kAcknowledged;
  if (decoding_.state() == SlotState::kStarted || request->answered_early) {
    request->sent_before = decoding_.server();
    request->offset_before = OffsetOf(decoding_.create_guid());
  }
  if (config_.moves) request->moves_before = config_.moves();
  taken_ = true;
  if (request->answered_early) {
    ++acknowledged_;
    fuse_reply_none(std::exchange(request->libfuse, nullptr));
    return request;
  }
  requests_[request->slot.unique()] = request.get();
  TakeEarlyInterrupt(*request);
  return request;
}

void Session::RunForget(fuse_req* libfuse, absl::FunctionRef<void()> apply) {
  taken_ = true;
  if (decoding_.state() == SlotState::kStarted) {
    // A dead predecessor had begun with it. One count too many leaks a record until the unmount;
    // one too few would name another file.
    ++counters_.dropped_forgets;
  } else {
    room_.arena().MarkStarted(decoding_);
    Pass(DeathPoint::kForgetStarted);
    apply();
    Pass(DeathPoint::kForgetApplied);
  }
  fuse_reply_none(libfuse);
  room_.Free(decoding_);
}

void Session::AnswerEarly(Request& request) {
  fuse_write_out answer = {};
  const char* const body = request.slot.request().data() + sizeof(fuse_in_header);
  answer.size = reinterpret_cast<const fuse_write_in*>(body)->size;
  const absl::Span<const char> bytes(reinterpret_cast<const char*>(&answer), sizeof(answer));
  room_.arena().MarkAcknowledged(request.slot, bytes);
  Pass(DeathPoint::kEarlyRecorded);
  request.answered_early = true;
  requests_.erase(request.slot.unique());
  ++acknowledged_;
  ++counters_.answers;
  ++counters_.early_answers;
  if (WriteAnswer(request.slot.unique(), 0, bytes) != 0) ++counters_.undelivered;
  Pass(DeathPoint::kEarlyAnswered);
  fuse_reply_none(std::exchange(request.libfuse, nullptr));
  if (request.interrupt) room_.Free(std::exchange(request.interrupt, RequestSlot()));
}

bool Session::Answer(std::unique_ptr<Request> request, absl::FunctionRef<int(fuse_req*)> reply) {
  if (request->answered_early) {
    Pass(DeathPoint::kEarlyEnded);
    room_.Free(request->slot);
    --acknowledged_;
    if (IsIdle()) idle_.NotifyAll();
    return true;
  }
  if (request->age() > config_.slow) TellSlow(*request, /*answered=*/true);
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
                   .moves = config_.moves ? config_.moves() - request.moves_before : 0});
}

void Session::ReportSlow() {
  for (const auto& [unique, request] : requests_) {
    if (request->slow_reported || request->age() <= config_.slow) continue;
    request->slow_reported = true;
    TellSlow(*request, /*answered=*/false);
  }
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
  if (request->answered_early) return;
  fuse_reply_none(request->libfuse);
  requests_.erase(request->slot.unique());
}

// ---- Interrupts ----

void Session::ProcessInterrupt(RequestSlot slot) {
  ++counters_.interrupts;
  if (slot.request().size() < sizeof(fuse_in_header) + sizeof(fuse_interrupt_in)) {
    ++counters_.malformed;
    room_.Free(slot);
    return;
  }
  const uint64_t unique =
      reinterpret_cast<const fuse_interrupt_in*>(slot.request().data() + sizeof(fuse_in_header))
          ->unique;
  const auto it = requests_.find(unique);
  if (it != requests_.end()) {
    AttachInterrupt(*it->second, slot);
    return;
  }
  // Its request is not here yet, or was answered a moment ago. The kernel is asked to say it again
  // (EAGAIN) when another request has come; if it has been answered by then, it says nothing.
  ++counters_.early_interrupts;
  early_interrupts_.push_back({unique, slot});
  if (early_interrupts_.size() > kMostEarlyInterrupts) {
    (void)WriteAnswer(early_interrupts_.front().slot.unique(), EAGAIN, {});
    room_.Free(early_interrupts_.front().slot);
    early_interrupts_.pop_front();
  }
}

void Session::TakeEarlyInterrupt(Request& request) {
  if (early_interrupts_.empty()) return;
  auto it = std::find_if(early_interrupts_.begin(), early_interrupts_.end(),
                         [&](const auto& early) { return early.unique == request.slot.unique(); });
  const bool mine = it != early_interrupts_.end();
  if (!mine) it = early_interrupts_.begin();
  const RequestSlot slot = it->slot;
  early_interrupts_.erase(it);
  if (mine) {
    AttachInterrupt(request, slot);
  } else {
    (void)WriteAnswer(slot.unique(), EAGAIN, {});
    room_.Free(slot);
  }
}

void Session::AttachInterrupt(Request& request, RequestSlot interrupt) {
  if (request.interrupt) {
    room_.Free(interrupt);
    return;
  }
  request.interrupt = interrupt;
  operations_->Spawn(CancelAfterGrace(request.slot.unique()));
}

void Session::CancelKilled() {
  if (!config_.check_own_requests) return;  // Its pids are not ours.
  std::vector<uint64_t> killed;
  for (const auto& [unique, request] : requests_) {
    const uint32_t thread = HeaderOf(request->slot).pid;
    if (thread != 0 && IsBeingKilled(thread)) killed.push_back(unique);
  }
  for (const uint64_t unique : killed) {
    const auto it = requests_.find(unique);
    if (it != requests_.end()) it->second->cancel.Cancel();
  }
}

runtime::Task<void> Session::CancelAfterGrace(uint64_t unique) {
  (void)co_await runtime::Sleep(kInterruptGrace, runtime::Deadline::Never());
  // The number is not used again in the life of the connection.
  const auto it = requests_.find(unique);
  if (it != requests_.end()) it->second->cancel.Cancel();
}

// ---- Writing ----

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
  const size_t before = opcode == FUSE_CREATE ? sizeof(fuse_entry_out) : 0;
  if ((opcode == FUSE_OPEN || opcode == FUSE_CREATE) && count == 2 &&
      parts[1].iov_len >= before + sizeof(fuse_open_out)) {
    // libfuse 3.14 has no word for it: writers of one file need not wait for each other.
    auto* const opened =
        reinterpret_cast<fuse_open_out*>(static_cast<char*>(parts[1].iov_base) + before);
    if ((opened->open_flags & FOPEN_DIRECT_IO) != 0) {
      opened->open_flags |= FOPEN_PARALLEL_DIRECT_WRITES;
    }
  }
  if (!NeedsJournal(opcode, -header.error)) return;
  const absl::Span<const char> body =
      count == 2
          ? absl::MakeConstSpan(static_cast<const char*>(parts[1].iov_base), parts[1].iov_len)
          : absl::Span<const char>();
  if (count > 2 || body.size() > state::kReplyJournalBytes) return;  // None of ours is longer.
  Pass(DeathPoint::kAnswerKnown);
  room_.arena().MarkDone(request.slot, -header.error, body);
  Pass(DeathPoint::kAnswerRecorded);
}

}  // namespace dfscsi::fuse
