// Which targets are worth trying: what happened on them lately, per credential.
//
// A target is up when NEGOTIATE, SESSION_SETUP, TREE_CONNECT and the open of its root have
// succeeded, not when TCP connects. What fails before a share is named (or breaks the connection)
// counts against the host, so that fifty links to one dead server find out once; what fails later
// counts against the one target. Backing off is a time before which a target is not tried; nobody
// sleeps.

#ifndef NODE_AGENT_DFS_TARGET_HEALTH_H_
#define NODE_AGENT_DFS_TARGET_HEALTH_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "node-agent/base/mutex.h"
#include "node-agent/dfs/failure_class.h"
#include "node-agent/dfs/path.h"

namespace dfscsi::dfs {

enum class TargetState {
  kUnknown,  // Never tried, or forgotten.
  kUp,
  kDown,    // Failed; may be tried again from `not_before` on.
  kDenied,  // Refuses the credential; likewise.
};
absl::string_view TargetStateName(TargetState state);

struct TargetStatus {
  TargetState state = TargetState::kUnknown;
  absl::Time since = absl::InfinitePast();        // When it became so.
  absl::Time not_before = absl::InfinitePast();   // kDown, kDenied.
  absl::Duration latency = absl::ZeroDuration();  // Smoothed; zero: not known.
  FailureClass last_failure = FailureClass::kNone;

  bool MayTry(absl::Time now) const { return now >= not_before; }
};

// Thread-safe. `now` is the engine's monotonic clock; `random` is in [0, 1).
class TargetHealthTable {
 public:
  struct Options {
    absl::Duration backoff_min = absl::Milliseconds(200);
    absl::Duration backoff_max = absl::Seconds(5);
    absl::Duration denied_for = absl::Seconds(60);
    // A target that was up for less than this is flapping: its back-off goes on where it was, and
    // nobody fails back to it.
    absl::Duration dwell = absl::Seconds(10);
    size_t capacity = 4096;  // Records; the one not touched for longest goes.
  };
  static constexpr int kConnectsPerSecond = 10;  // Per host, whatever the credential.

  TargetHealthTable();
  explicit TargetHealthTable(Options options);
  ~TargetHealthTable();
  TargetHealthTable(const TargetHealthTable&) = delete;
  TargetHealthTable& operator=(const TargetHealthTable&) = delete;

  const Options& options() const { return options_; }

  // The worse of what is known of the target and of its host.
  TargetStatus Get(const DfsPath& target, absl::string_view credential, absl::Time now);

  // An attempt went all the way, in `latency`.
  void NoteUp(const DfsPath& target, absl::string_view credential, absl::Time now,
              absl::Duration latency);
  // A session with the host was made; of its shares that says nothing.
  void NoteHostUp(const DfsPath& host, absl::string_view credential, absl::Time now);
  // An attempt, or a live operation, failed in a way that speaks against the target: kTransport,
  // kUnavailable, kMissing, kThrottled, kSession, kBroken, kDenied. Others are ignored.
  // `denied_for`: of kDenied, how long it is known to last; zero: as in the options.
  void NoteFailed(const DfsPath& target, absl::string_view credential, AttemptPhase phase,
                  FailureClass failure, absl::Time now, double random,
                  absl::Duration denied_for = absl::ZeroDuration());
  // Somebody fixed something (a flush, a new password): all may be tried at once.
  void Forgive();
  void Forgive(absl::string_view credential);

  // The right to make a connection to a host. The one that has it connects; those that find it
  // taken (kJoin) may wait for the same connection, as smb::SessionPool has them do.
  class ConnectTicket {
   public:
    ConnectTicket() = default;
    ConnectTicket(ConnectTicket&& other) noexcept;
    ConnectTicket& operator=(ConnectTicket&& other) noexcept;
    ~ConnectTicket();
    explicit operator bool() const { return table_ != nullptr; }

   private:
    friend class TargetHealthTable;
    ConnectTicket(TargetHealthTable* table, std::u16string key)
        : table_(table), key_(std::move(key)) {}
    TargetHealthTable* table_ = nullptr;
    std::u16string key_;
  };
  enum class Admission {
    kGo,       // The ticket is yours.
    kJoin,     // A connection of this credential to this host is being made.
    kTooSoon,  // Not before `not_before`: backing off, denied, or too many connects this second.
  };
  struct Admitted {
    Admission admission = Admission::kTooSoon;
    absl::Time not_before = absl::InfinitePast();
    ConnectTicket ticket;
  };
  // Ask before each new connection; a target whose session is at hand needs none. The table must
  // outlive the ticket.
  Admitted TryBeginConnect(const DfsPath& target, absl::string_view credential, absl::Time now);

  struct Counters {
    int64_t connects = 0;  // Tickets given.
    int64_t successes = 0;
    int64_t transport = 0;  // Failures by class.
    int64_t unavailable = 0;
    int64_t missing = 0;
    int64_t denied = 0;
    int64_t throttled = 0;
    int64_t other = 0;
    int64_t held_back = 0;  // Connects refused by back-off or by rate.
  };
  struct Listed {
    std::string target;  // "//host" or "//host/share[/path]".
    std::string credential;
    TargetStatus status;
    Counters counters;
  };
  // Sorted by target. For people and metrics.
  std::vector<Listed> List() const;

 private:
  struct Record;
  using RecordList = std::list<Record*>;

  Record* TouchLocked(std::u16string_view key, absl::string_view shown,
                      absl::string_view credential) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Record* FindLocked(const std::u16string& key) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  static void UpLocked(Record& record, absl::Time now);
  void FailLocked(Record& record, FailureClass failure, absl::Time now, double random,
                  absl::Duration denied_for) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ForgiveLocked(Record& record) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void EndConnect(const std::u16string& key);

  // Constant after construction.
  const Options options_;

  mutable Mutex mutex_;
  absl::flat_hash_map<std::u16string, std::unique_ptr<Record>> records_ ABSL_GUARDED_BY(mutex_);
  RecordList touched_ ABSL_GUARDED_BY(mutex_);  // Last touched first.
};

}  // namespace dfscsi::dfs

#endif  // NODE_AGENT_DFS_TARGET_HEALTH_H_
