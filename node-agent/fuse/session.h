// One mount's conversation with the kernel: reads requests into the arena, starts a coroutine for
// each, and writes what it answers.
//
//   /dev/fuse --read--> arena slot --libfuse decodes--> operations.cc --> vfs::Filesystem
//   /dev/fuse <-writev-- reply.h <--libfuse encodes----------------------------'
//
// libfuse decodes and encodes and does nothing else: INIT is replayed from what the mounter
// recorded (the kernel has had its answer), reading is ours, and writing passes through our hook,
// which journals the answers that must not be computed twice.
//
// A session that is destroyed answers nothing: what it had not answered stays in the arena, and the
// next agent runs it.
//
// Not thread-safe; one loop.

#ifndef NODE_AGENT_FUSE_SESSION_H_
#define NODE_AGENT_FUSE_SESSION_H_

#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "node-agent/base/unique_fd.h"
#include "node-agent/fuse/arena_room.h"
#include "node-agent/fuse/buffer_pool.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/runtime/real_loop.h"
#include "node-agent/state/request_arena.h"
#include "node-agent/vfs/change.h"

struct fuse_req;
struct fuse_session;

namespace dfscsi::vfs {
class Filesystem;
}

namespace dfscsi::fuse {

class Session;

// One request between its reading and its answer, or, of a WRITE that is acknowledged early, its
// end. Owned by the Reply that will answer it.
struct Request : vfs::ChangeJournal {
  void NoteSent(uint64_t server_key, uint64_t offset) override;
  uint64_t sent_to() const override { return sent_before; }
  uint64_t sent_offset() const override { return offset_before; }
  absl::Duration age() const override;
  uint64_t held_bytes() const override;
  bool is_of_pages() const override { return of_pages; }
  void Acknowledge() override;
  bool acknowledged() const override { return answered_early; }

  Session* session = nullptr;
  state::RequestArena* arena = nullptr;
  fuse_req* libfuse = nullptr;
  state::RequestSlot slot;
  int64_t moves_before = 0;  // Config::moves() when it came.
  bool slow_reported = false;
  bool may_answer_early = false;        // A WRITE that nothing in its flags forbids it.
  bool answered_early = false;          // libfuse has forgotten it.
  uint64_t opened = 0;                  // The handle that its answer gives the kernel.
  bool of_pages = false;                // A WRITE of mapped pages.
  int kept_error = 0;                   // Of an earlier write of the handle: told by the answer.
  std::optional<absl::Time> born = {};  // For the answer to STATX.
  uint64_t sent_before = 0;             // By a dead agent, to this server.
  uint64_t offset_before = vfs::kNoOffset;
  state::RequestSlot interrupt;  // Kept until the answer, so that the next agent knows of it, too.
  runtime::CancelSource cancel;
};

// What is told of an operation that takes long.
struct SlowRequest {
  uint32_t opcode = 0;
  uint64_t node = 0;
  absl::Duration age;
  bool answered = false;  // False: it still waits.
  // A WRITE that was acknowledged early: it is the server that does not have it, or (`answered`)
  // that had it late.
  bool behind = false;
  int64_t moves = 0;  // Of the mount's operations, meanwhile.
};

// For metrics; all since the session was made.
struct SessionCounters {
  static constexpr int kOpcodes = 64;
  std::array<int64_t, kOpcodes> requests = {};
  int64_t answers = 0;
  int64_t error_answers = 0;   // Of them, errors that the file system gave.
  int64_t eio_answers = 0;     // Of them, EIO.
  int64_t unanswered = 0;      // A reply object died unanswered: EIO was sent. A bug.
  int64_t undelivered = 0;     // The kernel did not want the answer any more (ENOENT).
  int64_t write_failures = 0;  // It refused an answer: EIO was sent instead.
  int64_t read_failures = 0;
  int64_t interrupts = 0;
  int64_t early_interrupts = 0;  // Came before their request, or after its answer.
  int64_t own_requests = 0;      // Of this process: refused.
  int64_t adopted_requests = 0;  // Run again for a dead predecessor.
  int64_t adopted_answers = 0;   // Answers sent again for it.
  int64_t early_answers = 0;     // WRITEs acknowledged before their server had them.
  int64_t dropped_forgets = 0;
  int64_t malformed = 0;  // Not what a kernel sends.
};

class Session {
 public:
  struct Config {
    uint32_t mount_id = 0;
    UniqueFd fuse_fd;                // Non-blocking.
    std::string init_in;             // As the kernel sent it, fuse_in_header first.
    bool check_own_requests = true;  // Pids in requests are this process's namespace's.
    // Called for an operation that takes longer than `slow`: by ReportSlow(), and when it is
    // answered; or, of a WRITE that is acknowledged early, when it has ended.
    absl::Duration slow = absl::InfiniteDuration();
    std::function<void(const SlowRequest&)> on_slow = {};
    // Operations of the mount that were run again on another target, so far.
    std::function<int64_t()> moves = {};
  };
  // How long an operation may go on after the process that waits for it got a signal. Most signals
  // do not kill: with a server that answers, nobody sees EINTR; with a silent one, SIGKILL ends the
  // process soon.
  static constexpr absl::Duration kInterruptGrace = absl::Milliseconds(300);

  // `watch` watches config.fuse_fd; both are given up. `filesystem`, `room` and `buffers` must
  // outlive the session. `on_gone` is called, once and from the loop, when the file system has been
  // unmounted. FailedPrecondition: libfuse does not understand the INIT.
  static absl::StatusOr<std::unique_ptr<Session>> Make(Config config,
                                                       std::unique_ptr<runtime::FdWatch> watch,
                                                       vfs::Filesystem& filesystem, ArenaRoom& room,
                                                       BufferPool& buffers,
                                                       std::function<void()> on_gone);
  Session(const Session&) = delete;
  ~Session();

  // Takes over what RequestArena::Adopt() found of this mount, oldest first: sends answers that are
  // known, runs the rest; WRITEs that were acknowledged before all others. Before Start().
  void Adopt(const std::vector<state::RequestSlot>& slots);

  // Reads requests from now on.
  void Start();
  void StopReading();
  // From now on every WRITE is answered once its server has it.
  void StopAnsweringEarly() { answers_early_ = false; }
  bool answers_early() const { return answers_early_; }
  // OK: every request that was read is answered, and every WRITE that was acknowledged has ended.
  runtime::Task<absl::Status> WaitUntilIdle(runtime::Deadline deadline);

  // Tells of operations that have become slow since the last call.
  void ReportSlow();

  int fuse_fd() const { return config_.fuse_fd.get(); }
  uint32_t mount_id() const { return config_.mount_id; }
  size_t in_flight() const { return requests_.size(); }
  // WRITEs that were answered, and whose server does not have them yet.
  size_t acknowledged() const { return early_.size(); }
  const SessionCounters& counters() const { return counters_; }

  // ---- For operations.cc and reply.h ----

  vfs::Filesystem& filesystem() { return filesystem_; }
  BufferPool& buffers() { return buffers_; }
  void Spawn(runtime::Task<void> operation) { operations_->Spawn(std::move(operation)); }

  // Called by libfuse's callback for the request that is being decoded.
  std::unique_ptr<Request> Begin(fuse_req* libfuse);
  // The request is applied without an answer (FORGET). `apply` must not wait.
  void RunForget(fuse_req* libfuse, absl::FunctionRef<void()> apply);

  // Answers by one of libfuse's fuse_reply_…(). False: the kernel did not take it, so what it would
  // have told the kernel is not known there.
  bool Answer(std::unique_ptr<Request> request, absl::FunctionRef<int(fuse_req*)> reply);
  // Answers a WRITE, which goes on. Its Answer() then only gives its slot back.
  void AnswerEarly(Request& request);
  void CountError(int error);
  // A WRITE that was acknowledged has ended without a word.
  void LoseEarly(std::unique_ptr<Request> request);
  void CountUnanswered() { ++counters_.unanswered; }
  // True in the destructor: requests are let go unanswered.
  bool closing() const { return closing_; }
  // Lets libfuse forget it; the slot stays for the next agent.
  void Abandon(std::unique_ptr<Request> request);

 private:
  struct EarlyInterrupt {
    uint64_t unique;
    state::RequestSlot slot;
  };

  Session(Config config, std::unique_ptr<runtime::FdWatch> watch, vfs::Filesystem& filesystem,
          ArenaRoom& room, BufferPool& buffers, std::function<void()> on_gone);
  absl::Status ReplayInit();
  runtime::Task<void> ReadLoop();
  enum class ReadSomeResult { kEmptyOrEnough, kNoSlot, kFull, kFailed, kGone };
  ReadSomeResult ReadSome();
  void Process(state::RequestSlot slot);
  void ProcessInterrupt(state::RequestSlot slot);
  void AttachInterrupt(Request& request, state::RequestSlot interrupt);
  void TakeEarlyInterrupt(Request& request);
  void TellSlow(const Request& request, bool answered);
  void ReportIfSlow(Request& request);
  runtime::Task<void> CancelAfterGrace(uint64_t unique);
  // While the mount is not read: requests of threads that have been killed.
  void CancelKilled();
  bool IsOwnRequest(uint32_t pid) const;
  bool IsIdle() const { return requests_.empty() && early_.empty(); }
  // Writes a bare answer of ours. Returns 0 or the errno of the write.
  int WriteAnswer(uint64_t unique, int error, absl::Span<const char> body);

  // libfuse's way out. Returns what writev(2) would, errno set.
  ssize_t OnWrite(iovec* parts, int count);
  void Journal(const Request& request, const iovec* parts, int count);
  static ssize_t WriteHook(int fd, iovec* parts, int count, void* session);
  static ssize_t ReadHook(int fd, void* buffer, size_t bytes, void* session);

  const Config config_;
  const pid_t own_pid_ = getpid();
  vfs::Filesystem& filesystem_;
  ArenaRoom& room_;
  BufferPool& buffers_;
  const std::function<void()> on_gone_;
  std::unique_ptr<runtime::FdWatch> watch_;
  fuse_session* libfuse_ = nullptr;

  absl::flat_hash_map<uint64_t, Request*> requests_;  // In flight, by unique.
  std::deque<EarlyInterrupt> early_interrupts_;
  // WRITEs that were acknowledged. Not in requests_: no signal ends them.
  absl::flat_hash_set<Request*> early_;
  runtime::Condition idle_;
  SessionCounters counters_;

  // While libfuse decodes: the slot it works on, and whether a callback took it.
  state::RequestSlot decoding_;
  bool taken_ = false;
  // While libfuse encodes: the request that is being answered, and what the kernel said.
  const Request* answering_ = nullptr;
  int write_error_ = 0;
  // While INIT is replayed: the answer is swallowed.
  bool replaying_ = false;
  int replay_error_ = 0;
  bool closing_ = false;
  bool answers_early_ = true;

  std::unique_ptr<runtime::TaskGroup> reading_;
  std::unique_ptr<runtime::TaskGroup> operations_ = std::make_unique<runtime::TaskGroup>();
};

}  // namespace dfscsi::fuse

#endif  // NODE_AGENT_FUSE_SESSION_H_
