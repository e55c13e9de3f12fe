// What a session's server lets us cache: its leases, by key, and who is told when it wants one
// back.
//
// Source: [MS-SMB2] 3.2.1.5, 3.2.5.7, 3.2.5.19.

#ifndef NODE_AGENT_SMB_LEASE_TABLE_H_
#define NODE_AGENT_SMB_LEASE_TABLE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "node-agent/smb/wire/break.h"
#include "node-agent/smb/wire/create.h"

namespace dfscsi::smb {

// The server takes a lease down.
struct LeaseBreak {
  wire::LeaseKey key = {};
  uint32_t from = 0;  // LeaseState bits.
  uint32_t to = 0;
  // Somebody waits at the server until Session::AcknowledgeLease, for up to 35 s.
  bool must_acknowledge = false;

  friend bool operator==(const LeaseBreak&, const LeaseBreak&) = default;
};

class LeaseObserver {
 public:
  virtual ~LeaseObserver() = default;
  // Called in the connection's reader: it must neither wait nor end the connection. It starts what
  // writes back and forgets what `broken.to` no longer covers, which then acknowledges. What is
  // dropped with the connection, or with the server, is not broken: the session is unusable then.
  virtual void OnLeaseBreak(const LeaseBreak& broken) = 0;
  // Something waits to be written under it: what else opens the file, as another mount that shares
  // the session does, must have the lease broken first.
  virtual bool IsUnwritten() const { return false; }
};

// Pure. Not thread-safe; one loop.
class LeaseTable {
 public:
  // Before a CREATE with this key goes out. Its grant is then told with the ticket that this
  // returns: a break may arrive between the answer and whoever waits for the answer.
  struct Ticket {
    uint16_t epoch = 0;  // To be sent with the request.
    uint64_t breaks = 0;
  };
  Ticket Ask(const wire::LeaseKey& key, uint32_t tree_id, std::weak_ptr<LeaseObserver> observer);
  // The CREATE's answer. Returns the state in force, which may be less than was granted.
  uint32_t OnGranted(const wire::Lease& granted, Ticket ticket);
  // The CREATE failed, granted no lease, or nobody waits for it any more.
  void OnRefused(const wire::LeaseKey& key);

  // A break notification. What is to be told, and to whom (null: nobody knows the lease any more,
  // or its observer has gone: acknowledge at once).
  struct Broken {
    LeaseBreak lease_break;
    std::shared_ptr<LeaseObserver> observer;
  };
  Broken OnBreak(const wire::LeaseBreakNotification& notification);
  // `state` was acknowledged to the server.
  void OnAcknowledged(const wire::LeaseKey& key, uint32_t state);

  // The last handle with this key was closed.
  void Forget(const wire::LeaseKey& key);

  // --- By the name that the file was opened by, below the share; case does not matter. What else
  // of ours opens the file must carry the key, or the server takes the lease from us for it.

  // A CREATE of this name was granted a lease with the key.
  void SetName(const wire::LeaseKey& key, uint32_t tree_id, std::u16string_view name);
  // What another CREATE of this name is to carry, which asks for nothing that is not held; nullopt:
  // nothing.
  std::optional<wire::Lease> OfName(uint32_t tree_id, std::u16string_view name) const;
  // It, or a folder above it, has another name now.
  void Rename(uint32_t tree_id, std::u16string_view from, std::u16string_view to);
  // The name is gone, or another file's, as the server says. False: it was nobody's.
  bool ForgetName(uint32_t tree_id, std::u16string_view name);

  // 0: none.
  uint32_t StateOf(const wire::LeaseKey& key) const;
  std::optional<uint32_t> TreeOf(const wire::LeaseKey& key) const;
  size_t size() const { return leases_.size(); }

 private:
  using Name = std::pair<uint32_t, std::u16string>;  // The tree's id; folded.
  struct Lease {
    std::weak_ptr<LeaseObserver> observer;
    uint32_t tree_id = 0;
    uint32_t state = 0;
    std::optional<uint16_t> epoch;  // Version 2, once the server has told it.
    int asking = 0;                 // CREATEs on their way.
    uint64_t breaks = 0;            // How many there were.
    uint32_t broken_to = 0;         // By the last of them, as acknowledged.
    std::optional<Name> name;
  };
  void Unname(const Lease& lease);

  std::map<wire::LeaseKey, Lease> leases_;
  std::map<Name, wire::LeaseKey> names_;
};

}  // namespace dfscsi::smb

#endif  // NODE_AGENT_SMB_LEASE_TABLE_H_
