// What a server lets this mount cache of one file that it has open: its lease.
//
// All handles of a node on one server share one key, which is drawn anew whenever the first of them
// is opened: what one of them does then breaks no lease of the others, and no key is ever that of
// two names. What a lease allows, and what becomes of that:
//   R  pages and attributes stay true while it is held: another machine's write is told at once
//   W  nobody else has the file open: what is written may wait here
//   H  the handle may stay open after close(2); a durable handle needs it
// A lease is gone with its session (failover, a lost connection, takeover): state() says so at
// once, and opening the file again asks again.
//
// Source: [MS-SMB2] 3.2.1.5, 3.2.4.3.8, 3.2.5.19.2. Decisions: docs/adr/0009-leases.md.

#ifndef NODE_AGENT_VFS_FILE_LEASE_H_
#define NODE_AGENT_VFS_FILE_LEASE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "node-agent/runtime/wait.h"
#include "node-agent/smb/lease_table.h"
#include "node-agent/smb/tree.h"
#include "node-agent/state/inode_table.h"

namespace dfscsi::vfs {

// What is asked for with a handle of this SMB access: LeaseState bits, 0: no lease.
// `write_behind`: writes may wait here for W (Options::write_behind).
uint32_t LeaseStateFor(uint32_t access, bool write_behind);

// True if a server may have refused a CREATE for the sake of its lease alone: nothing was done, and
// the same one without a lease may be answered otherwise.
bool IsLeaseRefused(const absl::Status& status);

// The lease of one node's handles on one session. Lives as long as one of those handles. Not
// thread-safe; one loop. Held by shared_ptr.
class LeaseTenure : public smb::LeaseObserver, public std::enable_shared_from_this<LeaseTenure> {
 public:
  // Called in the connection's reader: it must not wait.
  using OnBroken = std::function<void(std::shared_ptr<LeaseTenure>, const smb::LeaseBreak&)>;

  // Draws the key, unless it is given. `on_broken` and `is_unwritten` must be callable as long as
  // this lives.
  LeaseTenure(std::shared_ptr<smb::Tree> tree, OnBroken on_broken,
              std::function<bool()> is_unwritten, bool write_behind,
              std::optional<smb::wire::LeaseKey> key);
  LeaseTenure(const LeaseTenure&) = delete;
  ~LeaseTenure() override;

  const smb::wire::LeaseKey& key() const { return key_; }
  smb::Tree& tree() const { return *tree_; }
  // What may be relied on now: less from the moment on at which the server takes it down, nothing
  // once the session is of no use any more.
  uint32_t state() const;

  // To be put into a CREATE of this node's file on tree(), with this as its observer.
  smb::wire::Lease ToAsk(uint32_t access) const;
  // What came of it; `granted`: LeaseState bits; `breaks`: breaks() before it was asked.
  void NoteAnswer(uint32_t granted, uint64_t breaks, absl::Time now);
  uint64_t breaks() const { return breaks_; }

  // R was granted before and is not held now: whoever is to read may ask for it again, for what he
  // reads is not told to be outdated else. False for a while after it was asked for in vain, and
  // while a break waits for our acknowledgment: the server gives nothing until then.
  bool IsReadLost(absl::Time now) const;
  // One at a time asks again.
  runtime::Mutex& asking() { return asking_; }

  // Between them a break is about to be acknowledged.
  void BeginAnswer() { ++answering_; }
  void EndAnswer() { --answering_; }

  void OnLeaseBreak(const smb::LeaseBreak& broken) override;
  bool IsUnwritten() const override { return is_unwritten_(); }

 private:
  const std::shared_ptr<smb::Tree> tree_;
  const OnBroken on_broken_;
  const std::function<bool()> is_unwritten_;
  const bool write_behind_;
  smb::wire::LeaseKey key_ = {};
  bool read_lost_ = false;
  uint64_t breaks_ = 0;
  int answering_ = 0;
  absl::Time ask_again_at_ = absl::InfinitePast();
  runtime::Mutex asking_;
};

// The lease of one node: of which session, since its handles may be open on several while a link
// moves. Held by shared_ptr by all of the node's open files. Not thread-safe; one loop.
class FileLease : public std::enable_shared_from_this<FileLease> {
 public:
  // Called in a connection's reader; must not wait. `lease->node()` is 0 if it has none yet.
  using OnBroken =
      std::function<void(FileLease& lease, std::shared_ptr<LeaseTenure>, const smb::LeaseBreak&)>;

  // Whether something of this node waits to be written.
  using IsUnwritten = std::function<bool(state::NodeId)>;

  // `node` may be 0: a file that is just being made. The functions must be callable as long as any
  // open file has this.
  FileLease(state::NodeId node, OnBroken on_broken, IsUnwritten is_unwritten, bool write_behind)
      : node_(node),
        on_broken_(std::move(on_broken)),
        is_unwritten_(std::move(is_unwritten)),
        write_behind_(write_behind) {}
  FileLease(const FileLease&) = delete;

  state::NodeId node() const { return node_; }
  void SetNode(state::NodeId node) { node_ = node; }

  // The tenure on this tree, begun if there is none that can be used. The former one stays with the
  // handles that are open under it.
  std::shared_ptr<LeaseTenure> On(const std::shared_ptr<smb::Tree>& tree);
  // A durable handle of the node has this key, which tenures that are begun from now on have, too.
  void UseKey(const smb::wire::LeaseKey& key) { next_key_ = key; }
  // LeaseState bits that may be relied on for all of the node's handles; 0: no lease.
  uint32_t state() const;
  // How often R was lost so far: what was asked before is no news if this has grown since.
  uint64_t reads_lost() const { return reads_lost_; }

 private:
  state::NodeId node_;
  const OnBroken on_broken_;
  const IsUnwritten is_unwritten_;
  const bool write_behind_;
  std::weak_ptr<LeaseTenure> current_;
  std::weak_ptr<LeaseTenure> former_;  // While it has handles, nothing but R can be relied on.
  uint64_t reads_lost_ = 0;
  std::optional<smb::wire::LeaseKey> next_key_;
};

}  // namespace dfscsi::vfs

#endif  // NODE_AGENT_VFS_FILE_LEASE_H_
