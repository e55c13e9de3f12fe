// One authenticated session on one connection, and its trees.
//
// Source: [MS-SMB2] 3.2.1.4, 3.2.4.2, 3.2.5.3.

#ifndef NODE_AGENT_SMB_SESSION_H_
#define NODE_AGENT_SMB_SESSION_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "node-agent/runtime/deadline.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/runtime/task.h"
#include "node-agent/runtime/wait.h"
#include "node-agent/smb/authenticator.h"
#include "node-agent/smb/connection.h"
#include "node-agent/smb/credential.h"
#include "node-agent/smb/lease_table.h"
#include "node-agent/smb/wire/session.h"

namespace dfscsi::smb {

class Tree;

// Not thread-safe; one loop. Held by shared_ptr; when the last holder lets go the connection
// closes, and with it what the server holds open for it.
class Session : public std::enable_shared_from_this<Session> {
 public:
  // SESSION_SETUP on a fresh connection. `previous_session_id` names a session of ours that the
  // server may still hold open (0: none): it ends that one, and its opens, at once. Errors, besides
  // the connection's:
  //   kUnauthenticated   the server, or the mechanism, refused the credential: do not repeat
  //   kPermissionDenied  the server made us a guest though a user was given
  //   kDataLoss          the final reply's signature is wrong (a downgrade, or a key of ours is
  //   wrong) an NTSTATUS
  static runtime::Task<absl::StatusOr<std::shared_ptr<Session>>> Setup(
      std::shared_ptr<Connection> connection, AuthenticatorFactory& authenticators,
      Credential credential, uint64_t previous_session_id, runtime::Deadline deadline);

  Session(std::shared_ptr<Connection> connection, AuthenticatorFactory& authenticators,
          Credential credential);
  ~Session();

  // TREE_CONNECT to \\host\share, once per share; later callers get the same tree. On 3.0 and 3.0.2
  // the first one also validates the negotiation (FSCTL_VALIDATE_NEGOTIATE_INFO). Errors, besides
  // the connection's: an NTSTATUS (BAD_NETWORK_NAME: there is no such share).
  runtime::Task<absl::StatusOr<std::shared_ptr<Tree>>> ConnectTree(std::string share,
                                                                   runtime::Deadline deadline);

  // As Connection::Call, for this session: signed, encrypted, and repeated after
  // STATUS_NETWORK_SESSION_EXPIRED has been answered by authenticating again. What a part of a
  // compound had opened before it expired is closed; where a part had changed something, only what
  // came after it is asked for again.
  runtime::Task<absl::StatusOr<std::vector<Response>>> Call(std::vector<Request> requests,
                                                            runtime::Deadline deadline);

  LeaseTable& leases() { return leases_; }
  // Tells the server that of this lease `state` remains; asked for by LeaseObserver::OnLeaseBreak.
  // Never waits behind requests for credits. An NTSTATUS (UNSUCCESSFUL, OBJECT_NAME_NOT_FOUND …):
  // the server knows of no such break; the lease is then as good as lost.
  runtime::Task<absl::Status> AcknowledgeLease(wire::LeaseKey key, uint32_t state,
                                               runtime::Deadline deadline);

  Connection& connection() { return *connection_; }
  uint64_t id() const { return id_; }
  bool usable() const { return usable_ && !connection_->closed(); }
  // The server has said that it knows this session no more, or that a tree is gone.
  void NoteDeleted() { usable_ = false; }
  void ForgetTree(const std::string& share);
  // LOGOFF: the server closes what this session has open. The session cannot be used after that.
  runtime::Task<absl::Status> LogOff(runtime::Deadline deadline);

 private:
  friend class Tree;
  struct Renewal {
    runtime::Event ended;
    absl::Status status;
  };

  runtime::Task<absl::Status> Authenticate(uint64_t previous_session_id,
                                           runtime::Deadline deadline);
  absl::Status FinishSetup(const wire::SessionSetupResponse& answer, const Response& response,
                           const Secret& key, bool again);
  runtime::Task<absl::Status> Reauthenticate(runtime::Deadline deadline);
  runtime::Task<void> Renew();
  static void GiveBackOpened(const std::vector<Request>& requests,
                             const std::vector<Response>& responses);
  // The rest of a compound of which something that changes was executed before the session expired.
  // Errors: kAborted, since that part was executed; as of Call.
  runtime::Task<absl::StatusOr<std::vector<Response>>> CallRest(std::vector<Request> requests,
                                                                std::vector<Response> responses,
                                                                runtime::Deadline deadline);
  runtime::Task<absl::Status> ValidateNegotiate(uint32_t tree_id, runtime::Deadline deadline);
  void OnBreak(const wire::Break& broken);
  // Of `key`, or any of ours: servers look for one, but not at which.
  uint32_t TreeForBreak(const wire::LeaseKey& key) const;

  const std::shared_ptr<Connection> connection_;
  AuthenticatorFactory& authenticators_;
  const Credential credential_;
  uint64_t id_ = 0;
  bool usable_ = true;
  LeaseTable leases_;
  bool validated_ = false;
  std::shared_ptr<Renewal> renewal_;  // That is under way.
  runtime::Mutex connecting_trees_;
  std::map<std::string, std::weak_ptr<Tree>> trees_;  // By share, lower case.
  runtime::TaskGroup renewing_;                       // Dies first: its task uses all of the above.
};

}  // namespace dfscsi::smb

#endif  // NODE_AGENT_SMB_SESSION_H_
