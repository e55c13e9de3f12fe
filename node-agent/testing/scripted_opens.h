// What clients hold open on a scripted server, across its connections: handles, share modes, locks,
// leases, and durable handles whose connection is gone. Private to the server.

#ifndef NODE_AGENT_TESTING_SCRIPTED_OPENS_H_
#define NODE_AGENT_TESTING_SCRIPTED_OPENS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "node-agent/runtime/wait.h"
#include "node-agent/smb/wire/create.h"
#include "node-agent/smb/wire/header.h"
#include "node-agent/smb/wire/nt_status.h"
#include "node-agent/testing/scripted_share.h"

namespace dfscsi::testing {

class ScriptedServer;
struct ScriptedSession;

struct ScriptedOpen {
  uint32_t tree_id = 0;
  std::shared_ptr<ScriptedFile> file;
  ScriptedShare* share = nullptr;
  std::string path;
  // The listing that QUERY_DIRECTORY goes through.
  std::vector<std::shared_ptr<ScriptedFile>> listing;
  size_t listed = 0;
  bool listing_begun = false;

  smb::wire::FileId id;
  smb::wire::Guid client = {};
  uint32_t access = 0;
  uint32_t share_access = smb::wire::kShareAll;
  bool delete_on_close = false;
  bool posix_delete = false;  // The name goes with this handle, not with the last one.
  std::optional<smb::wire::LeaseKey> lease_key;
  uint16_t channel_sequence = 0;
  std::map<uint32_t, uint32_t> lock_sequences;  // Index: number.

  // The last-write time is set once more when who has written closes, unless he has set it himself.
  bool has_written = false;
  bool sets_time = false;

  // Durable, once granted.
  std::optional<smb::wire::Guid> create_guid;
  absl::Duration durable_for = absl::ZeroDuration();  // 0: not durable.
  bool persistent = false;
  absl::Time expires = absl::InfiniteFuture();  // Once its connection is gone.

  // Reads, writes, runs or deletes; who only looks disturbs nobody.
  bool uses_data() const;
};

struct ScriptedLease {
  smb::wire::Guid client = {};
  smb::wire::LeaseKey key = {};
  std::shared_ptr<ScriptedFile> file;
  uint32_t state = 0;
  uint16_t epoch = 0;
  bool v2 = true;
  bool breaking = false;  // Until it is acknowledged, or `break_ends`.
  uint32_t breaking_to = 0;
  absl::Time break_ends = absl::InfiniteFuture();
};

class ScriptedOpens {
 public:
  explicit ScriptedOpens(ScriptedServer& server) : server_(server) {}
  ScriptedOpens(const ScriptedOpens&) = delete;

  // Something happened that a waiting CREATE or LOCK may have waited for.
  runtime::Condition& changed() { return changed_; }
  // The loop's time, whenever the server does something.
  void SetNow(absl::Time now);
  absl::Time now() const { return now_; }

  // Every open of `file`, durable ones without a connection included.
  void ForEach(const ScriptedFile& file, const std::function<void(ScriptedOpen&)>& visit);
  // Somebody's share mode forbids this, or this one's forbids what somebody does.
  bool ViolatesSharing(const ScriptedFile& file, uint32_t access, uint32_t share_access);
  // Another open of `file` holds a lock there that forbids it.
  static bool IsLocked(const ScriptedFile& file, uint64_t owner, uint64_t offset, uint64_t length,
                       bool to_write);
  bool HasOpensBelow(const ScriptedFile& directory);

  // The handle is closed: its locks go, its lease if it was the last, the file if it was to.
  void End(ScriptedOpen open);
  // All of a session; `keep_durable`: those that are stay, for their time.
  void EndSession(ScriptedSession& session, bool keep_durable);
  // The process died: what is not persistent is gone.
  void ForgetVolatile();
  // Takes up a durable handle that has no connection.
  std::optional<ScriptedOpen> TakeDurable(const smb::wire::DurableReconnect& reconnect,
                                          const smb::wire::Guid& client,
                                          const std::optional<smb::wire::Lease>& lease);
  // A file that waits for its client must not be in another's way.
  void DropDurable(const ScriptedFile& file, uint32_t access, uint32_t share_access);
  int durable() const { return static_cast<int>(durable_.size()); }

  // --- Leases, by client and key.
  ScriptedLease* FindLease(const smb::wire::Guid& client, const smb::wire::LeaseKey& key);
  // What is granted of `asked`: no W beside other opens, nothing of a directory.
  ScriptedLease& Grant(const smb::wire::Guid& client, const smb::wire::Lease& asked,
                       const std::shared_ptr<ScriptedFile>& file);
  // Takes the leases of others (all but client's `except`) down to what `keep` allows. True: one of
  // them must be acknowledged first.
  bool BreakOthers(const ScriptedFile& file, const smb::wire::Guid& client,
                   const std::optional<smb::wire::LeaseKey>& except, uint32_t keep);
  void Break(ScriptedLease& lease, uint32_t to);
  smb::wire::NtStatus Acknowledge(const smb::wire::Guid& client, const smb::wire::LeaseKey& key,
                                  uint32_t state);
  const std::map<std::pair<smb::wire::Guid, smb::wire::LeaseKey>, ScriptedLease>& leases() const {
    return leases_;
  }

 private:
  void DropLeaseIfUnused(const ScriptedOpen& closed);

  ScriptedServer& server_;
  absl::Time now_;
  std::map<uint64_t, ScriptedOpen> durable_;  // Without a connection; by the persistent half.
  std::map<std::pair<smb::wire::Guid, smb::wire::LeaseKey>, ScriptedLease> leases_;
  runtime::Condition changed_;
};

}  // namespace dfscsi::testing

#endif  // NODE_AGENT_TESTING_SCRIPTED_OPENS_H_
