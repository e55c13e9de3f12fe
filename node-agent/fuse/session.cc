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
#include "node-agent/fuse/operations.h"
#include "node-agent/fuse/session_internal.h"
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

void LogOfLibfuse(fuse_log_level, const char* format, va_list arguments) {
  char line[512];
  vsnprintf(line, sizeof(line), format, arguments);
  LogWarning("libfuse: ", absl::StripTrailingAsciiWhitespace(line));
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
    // Before anything is run that may fail, too: its error would be taken for this one.
    if (slot.error() != 0 && MayTellKeptError(slot.opcode()) && TellsKeptError(slot)) {
      filesystem_.NoteErrorTold(HandleOf(slot), slot.error());
    }
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
  // libfuse takes FATTR_FH out of what it is given, in place: whoever runs the request again would
  // not know by which handle it came, and change what has the name by then.
  std::vector<uint64_t> setattr;
  if (header.opcode == FUSE_SETATTR) {
    setattr.resize((buffer.size + 7) / 8);
    memcpy(setattr.data(), slot.request().data(), buffer.size);
    buffer.mem = setattr.data();
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
    early_.insert(request.get());
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

}  // namespace dfscsi::fuse
