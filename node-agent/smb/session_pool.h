// The sessions of one loop, shared by (server, credential): fifty links to one file server are one
// connection and one session.

#ifndef NODE_AGENT_SMB_SESSION_POOL_H_
#define NODE_AGENT_SMB_SESSION_POOL_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/smb/authenticator.h"
#include "node-agent/smb/credential.h"
#include "node-agent/smb/options.h"
#include "node-agent/smb/session.h"
#include "node-agent/smb/tree.h"

namespace dfscsi::smb {

// How far a failed attempt came; failure_class.h needs it.
enum class ConnectPhase { kResolve, kConnect, kNegotiate, kSessionSetup, kTreeConnect };
// Of an error of GetTree, for whoever it is handed up to; nullopt: it is not one.
std::optional<ConnectPhase> ConnectPhaseOf(const absl::Status& status);
// Of an error of GetTree or EndSession: how long this credential is not shown to this host again,
// whoever asks; zero: nothing forbids it.
absl::Duration LogOnForbiddenFor(const absl::Status& status);

// Where SessionIds and refusals outlive the process, so that a successor can end its predecessor's
// sessions, and does not repeat what was refused.
class SessionMemory {
 public:
  virtual ~SessionMemory() = default;
  // 0 if none is known.
  virtual uint64_t PreviousSessionId(const std::string& host, const std::string& identity) = 0;
  virtual void RememberSessionId(const std::string& host, const std::string& identity,
                                 uint64_t session_id) = 0;
  // How long a refused log-on forbids to try this credential on this host again; zero: it may.
  virtual absl::Duration RefusedFor(const std::string& host, const std::string& identity) = 0;
  // The host has refused to log this user on, for the reason `refused`.
  virtual void RememberRefusal(const std::string& host, const Credential& credential,
                               const absl::Status& refused) = 0;
};

// What a caller demands of a connection.
struct ConnectRules {
  // OK, or why the credential may not go to an address that the name resolved to. Null: to any.
  std::function<absl::Status(const runtime::IpAddress&)> may_connect = nullptr;
  // Not this session: it is suspect. A new one takes its place in the pool once it is there; who
  // holds the old one may go on with it.
  std::shared_ptr<Session> avoid = nullptr;
  // Only by a connection that is there, or that somebody else is making. GetTree returns null if
  // that one was given up: its maker was cancelled.
  bool join_only = false;
  // The session of ours that the new one ends. 0: whichever a dead agent left.
  uint64_t ends = 0;
};

// Not thread-safe; one loop.
class SessionPool {
 public:
  // `memory` may be null. All must outlive the pool.
  SessionPool(Options options, AuthenticatorFactory& authenticators, SessionMemory* memory);
  ~SessionPool();

  // A tree on //host/share for `credential`: an existing session's, or a new session's. A session
  // whose server is silent serves those that hold it, and nobody else: a new one takes its place.
  // Callers
  // that want the same session at once wait for one attempt, and fail with it. Addresses of the
  // host are tried at a stagger; the first that negotiates serves. Does not retry. On error `phase`
  // says how far it came. Errors: as of Session::Setup, Session::ConnectTree, Network::Resolve;
  // that of `may_connect`, if it refuses every address.
  runtime::Task<absl::StatusOr<std::shared_ptr<Tree>>> GetTree(std::string host, std::string share,
                                                               Credential credential,
                                                               ConnectPhase* phase,
                                                               runtime::Deadline deadline,
                                                               ConnectRules rules = {});

  // Ends a session of ours that the server may still hold: when this returns OK, nothing that it
  // had on its way will be executed any more ([MS-SMB2] 3.3.5.5.3). Once for each, however many
  // ask. Errors: as of GetTree.
  runtime::Task<absl::Status> EndSession(std::string host, Credential credential,
                                         uint64_t session_id, runtime::Deadline deadline,
                                         ConnectRules rules = {});

  // EndSession has ended it of late.
  bool IsEnded(const std::string& host, const std::string& identity, uint64_t session_id) const;

  // Sessions of ours that the server may still hold, with all that is open there, although nobody
  // here can use them any more: their connections broke, or were given up in silence. The next
  // session to that host ends the last one whose connection the network has ended; what is left is
  // here, until EndSession has ended it. The oldest first.
  std::vector<uint64_t> FormerSessions(const std::string& host, const std::string& identity) const;
  // Nobody is to try it any more: it could not be ended.
  void ForgetFormer(const std::string& host, const std::string& identity, uint64_t session_id);

  // Takes a session out of the pool, so that the next GetTree makes a new one. Who still holds it
  // may finish with it.
  void Retire(const Session& session);

  // As Retire, if a request on this session, sent at `began`, ended with `status` because its time
  // (`deadline`) was up: nobody else is to wait for that server's answers on it.
  void RetireIfSilent(const Session& session, const absl::Status& status, absl::Time began,
                      const runtime::Deadline& deadline);

  // The session that GetTree would use, if there is one, it is usable and its server is not silent.
  std::shared_ptr<Session> Find(const std::string& host, const std::string& identity) const;

  struct Listed {
    std::string host;
    std::string peer;
    bool suspect;
    int64_t frames_sent;
  };
  std::vector<Listed> List() const;

 private:
  using Key = std::pair<std::string, std::string>;  // Host in lower case, identity.
  // One that was here, and may still be there.
  struct Former {
    uint64_t id = 0;
    std::weak_ptr<Session> session;
    // Its connection was ended by the network, not by us. A server that only was silent may hang in
    // the very process that would have to end it, and who names it would wait. For the same reason
    // each is named once.
    bool broken = false;
  };
  struct Entry {
    std::shared_ptr<Session> session;
    std::vector<Former> former;  // The last kMostEnded of them.
    runtime::Mutex connecting;
    std::vector<uint64_t> ended;  // By EndSession; the last kMostEnded of them.
    uint16_t sessions = 0;        // Made so far: the channel sequence of the next one.
    wire::Guid client_guid = {};  // Of the last session that was made.
    // A connection with this ClientGuid was, or is, silent: the next one has another.
    bool is_silent = false;
    absl::Time used;
    // The last attempt that failed, for those who waited for it.
    uint64_t failures = 0;
    absl::Status failure;
    ConnectPhase failure_phase = ConnectPhase::kResolve;
  };

  static constexpr size_t kMostEnded = 16;

  static void NoteFormer(Entry& entry, const std::shared_ptr<Session>& session);
  static void NoteEnded(Entry& entry, uint64_t session_id);
  // The last one whose connection the network has ended; null: there is none.
  static Former* FindBroken(Entry& entry);
  // The session that serves from now on.
  static void Install(Entry& entry, std::shared_ptr<Session> session, wire::Guid client_guid);
  static Key KeyOf(const std::string& host, const std::string& identity);
  runtime::Task<absl::StatusOr<std::vector<runtime::IpAddress>>> ResolveHost(
      std::string host, runtime::Deadline deadline);
  runtime::Task<absl::StatusOr<std::shared_ptr<Connection>>> ConnectAny(std::string host,
                                                                        wire::Guid client_guid,
                                                                        ConnectRules rules,
                                                                        ConnectPhase* phase,
                                                                        runtime::Deadline deadline);
  runtime::Task<absl::StatusOr<std::shared_ptr<Session>>> Connect(
      std::string host, wire::Guid client_guid, Credential credential, ConnectRules rules,
      ConnectPhase* phase, runtime::Deadline deadline);
  runtime::Task<absl::StatusOr<std::shared_ptr<Session>>> GetSession(std::string host,
                                                                     Credential credential,
                                                                     ConnectRules rules,
                                                                     ConnectPhase* phase,
                                                                     runtime::Deadline deadline);
  runtime::Task<void> LogOffIdle();

  const Options options_;
  AuthenticatorFactory& authenticators_;
  SessionMemory* const memory_;
  std::map<Key, std::shared_ptr<Entry>> entries_;
  std::map<std::string, std::vector<runtime::IpAddress>> last_addresses_;  // For when DNS is down.
  runtime::TaskGroup tasks_;
};

}  // namespace dfscsi::smb

#endif  // NODE_AGENT_SMB_SESSION_POOL_H_
