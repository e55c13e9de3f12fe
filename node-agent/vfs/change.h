// A change on its way to a server: how far it came, so that it is applied once, whoever dies.

#ifndef NODE_AGENT_VFS_CHANGE_H_
#define NODE_AGENT_VFS_CHANGE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "node-agent/dfs/client.h"
#include "node-agent/runtime/task.h"

namespace dfscsi::vfs {

class OpenFile;

inline constexpr uint64_t kNoOffset = ~uint64_t{0};

// What outlives the agent of one change: the fuse layer's slot in the request arena.
class ChangeJournal {
 public:
  virtual ~ChangeJournal() = default;
  // The change is about to be sent to this server (ServerKeyOf()): from now on it may have been
  // executed. `offset`: where, of what is known by its place in a file, or kNoOffset. Server 0:
  // what was sent was not executed, after all.
  virtual void NoteSent(uint64_t server_key, uint64_t offset) = 0;
  // Where a dead agent had sent it; 0: nowhere.
  virtual uint64_t sent_to() const = 0;
  // The offset that it noted with that.
  virtual uint64_t sent_offset() const = 0;
  // Since the kernel asked for it.
  virtual absl::Duration age() const = 0;

  // --- A WRITE that is answered before its server has it.

  // What its bytes keep until then, of the memory that requests are read into; 0: it must not be
  // answered early.
  virtual uint64_t held_bytes() const { return 0; }
  // It is of mapped pages: nobody is told of an earlier error by it, and its bytes are nowhere
  // else.
  virtual bool is_of_pages() const { return false; }
  // Answers now that all of it is written. How the operation ends is then told to nobody; if this
  // agent dies before that end the next one runs it again, as one that is acknowledged.
  // REQUIRES: held_bytes() != 0, and nobody has given it up.
  virtual void Acknowledge() {}
  // It was answered: by this agent, or by a dead one, from the beginning.
  virtual bool acknowledged() const { return false; }
};

// Which server, and which of its shares, a binding leads to: never 0, and the same in every agent.
uint64_t ServerKeyOf(const dfs::Binding& binding);
// Of the same, as a referral names it.
uint64_t ServerKeyOf(const dfs::DfsPath& target);

// What an operation of dfs::Client::Run returns that can only be run on one server, and was not:
// it is for RunOnTarget. ESTALE to whom nobody runs it there.
absl::Status Elsewhere();
bool IsElsewhere(const absl::Status& status);
// True if an answer is missing, or says that the session went while it was under way: what was
// asked for may have been done.
bool IsAnswerLost(const absl::Status& status);

// What a server says of a change whose answer was lost.
enum class Verdict { kNotDone, kDone, kUnknown };

// One change under way; of Filesystem::Impl::RunChange.
struct Change {
  // To be called right before the request that changes something is handed to smb/.
  void Sending(uint64_t offset = kNoOffset);
  // The server has refused what was sent, which is another thing than the change itself.
  void NotSent();

  // Does it. What it returns before Sending() has changed nothing.
  std::function<runtime::Task<absl::Status>(dfs::Binding)> attempt;
  // Finds out, on the server that it was sent to, and on a session that comes after the lost one.
  // Unset: doing it again does no harm there.
  std::function<runtime::Task<absl::StatusOr<Verdict>>(dfs::Binding)> probe = {};
  // Asked once its server is lost, and nobody knows whether it was made: true, if it may be made on
  // another one instead. Unset: it may not.
  std::function<bool()> replays = {};
  // It makes or removes a name, or sets a time: what a lost session of ours still has open is in
  // its way.
  bool of_names = false;
  // False: no probe could tell.
  bool can_tell = true;
  // It makes nothing that is looked at or used behind it: what a dead agent has sent is settled
  // there, though its path is bound elsewhere by now.
  bool may_settle_elsewhere = false;
  // It is more than one request: where one was not sent, another may have been.
  bool in_pieces = false;

  const dfs::DfsPath* path = nullptr;  // RunChange()'s.
  uint64_t held_epoch = 0;             // As of dfs::RunOptions.
  ChangeJournal* journal = nullptr;    // None: a change of our own.
  dfs::Binding where = {};             // Of the last attempt.
  bool sent = false;                   // In the last attempt, and no answer has come.
  uint64_t sent_before = 0;            // By a dead agent; 0 once its fate is known.
  absl::Time began = {};
  absl::Time sent_at = {};  // Last, by this agent.
  // How far its server's clock was ahead by the connection that it was sent on.
  std::optional<absl::Duration> ahead_when_sent = {};
  // What it is made through; null: it is made by its path. RunChangeThrough() sets them.
  std::shared_ptr<OpenFile> file = {};
  uint64_t names_since = 0;  // NameDoubts::now() when its path was asked for.

  // Since the kernel asked.
  absl::Duration Age() const;
  // What it has made was not there before that: by the clock of this machine.
  absl::Time Earliest() const;
};

}  // namespace dfscsi::vfs

#endif  // NODE_AGENT_VFS_CHANGE_H_
