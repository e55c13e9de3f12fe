// An SMB2 server that says what a test wants: real negotiation (2.1 to 3.1.1), signing, encryption,
// credits, compounds, asynchronous answers and referrals over trees in memory, and at every request
// a script that may delay, drop, break or replace the answer.
//
// It runs on any loop, simulated or real. The object is the server as the test sees it, and
// outlives its processes:
//
//   ScriptedServer server("t1");
//   server.AddUser("user", "secret");
//   server.AddShare("data").AddFile("dir/file", 1 << 20);
//   process->Spawn(server.Serve({address, 445}));
//   server.AddRule({.command = Command::kRead, .times = 1, .action = {.close = Closing::kReset}});
//   ... EXPECT_EQ(server.Count(Command::kNegotiate), 2);
//
// A share that is `writable` does all that changes files, with share modes, locks, leases and
// durable handles, and every change that was executed is in mutations(): the oracle of simulations.
// Else what would change a file is MEDIA_WRITE_PROTECTED. Not thread-safe; one loop.

#ifndef NODE_AGENT_TESTING_SCRIPTED_SERVER_H_
#define NODE_AGENT_TESTING_SCRIPTED_SERVER_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/runtime/network.h"
#include "node-agent/smb/wire/header.h"
#include "node-agent/smb/wire/ioctl.h"
#include "node-agent/smb/wire/negotiate.h"
#include "node-agent/smb/wire/nt_status.h"
#include "node-agent/smb/wire/query.h"
#include "node-agent/testing/password_log_on.h"
#include "node-agent/testing/scripted_share.h"

namespace dfscsi::testing {

class ScriptedConnection;
class ScriptedOpens;
struct ScriptedSession;

// Read whenever they are needed: a test may change them while the server runs.
struct ServerOptions {
  smb::wire::Dialect lowest_dialect = smb::wire::Dialect::k210;
  smb::wire::Dialect highest_dialect = smb::wire::Dialect::k311;
  // In order of preference. No signing algorithms: a 3.1.1 server without that context (AES-CMAC).
  std::vector<smb::wire::SigningId> signing_algorithms = {smb::wire::SigningId::kAesGmac,
                                                          smb::wire::SigningId::kAesCmac,
                                                          smb::wire::SigningId::kHmacSha256};
  std::vector<smb::wire::CipherId> ciphers = {
      smb::wire::CipherId::kAes128Gcm, smb::wire::CipherId::kAes128Ccm,
      smb::wire::CipherId::kAes256Gcm, smb::wire::CipherId::kAes256Ccm};
  bool signing_required = false;
  bool encrypt_sessions = false;
  bool guests = false;  // Every log-on succeeds, as a guest.
  bool dfs = true;      // "host msdfs"
  bool referrals_ex = false;
  bool large_mtu = true;
  uint32_t max_transact_bytes = 1 << 20;
  uint32_t max_read_bytes = 1 << 20;
  uint32_t max_write_bytes = 1 << 20;
  uint32_t most_written_bytes = 0;  // By one WRITE, which is then answered as short; 0: all.
  bool leases = true;
  bool appends = true;  // By WRITE at offset -1; else it is INVALID_PARAMETER, as with Samba.
  absl::Duration durable_for = absl::Seconds(60);  // 0: no durable handles.
  // Of FSCTL_SRV_COPYCHUNK.
  uint32_t most_copy_chunks = 256;
  uint32_t most_copy_chunk_bytes = 1 << 20;
  int most_credits = 512;  // That a client may hold.
  // Requests are read and executed, answers are not sent: hung, while its TCP is well.
  bool silent = false;
  // Compounds are answered part by part in frames of their own.
  bool splits_compounds = false;
  // Allocated ranges that do not fit are cut off (BUFFER_OVERFLOW); else none is sent
  // (BUFFER_TOO_SMALL).
  bool cuts_ranges = true;
  // A bad signature ends the connection; else it is ACCESS_DENIED, as with Samba.
  bool drops_bad_signatures = false;
};

// One request, as a script and the log see it.
struct ScriptedRequest {
  absl::Time when = {};
  int64_t number = 0;  // Of its command, from 1.
  int connection = 0;  // From 1, in the order of arrival.
  smb::wire::Header header = {};
  smb::wire::Bytes body = {};  // For scripts; empty in the log.
  bool first_of_frame = true;
  bool is_signed = false;
  bool encrypted = false;
  std::string share = {};
  // Of CREATE: its name ('/' between components). Of requests with a handle: what it opened. Of
  // TREE_CONNECT: the share. Of a referral request: its path (as it came, with '\').
  std::string path = {};
  std::optional<smb::wire::Fsctl> fsctl = {};
};

// A change that was executed, whatever became of its answer.
struct ScriptedMutation {
  absl::Time when = {};
  smb::wire::Guid client = {};  // The ClientGuid of its connection.
  uint64_t session_id = 0;
  int connection = 0;
  uint64_t message_id = 0;
  bool replay = false;  // It was sent with the replay flag.
  // kCreate: something was made, or overwritten. kClose: the file was removed.
  smb::wire::Command command = smb::wire::Command::kWrite;
  std::optional<smb::wire::FileInfoClass> info_class = {};
  std::optional<smb::wire::Fsctl> fsctl = {};
  std::string share = {};
  std::string path = {};    // '/' between components.
  std::string target = {};  // Of a rename.
  uint64_t offset = 0;      // Of WRITE; of a truncation: the new size.
  uint64_t length_bytes = 0;
  uint64_t content_hash = 0;  // Of WRITE: ContentHash() of what was written.
};
uint64_t ContentHash(smb::wire::Bytes content);

enum class Closing { kNothing, kClose, kReset };

// What to do with one request. The default is the truth, at once.
struct Action {
  // Before the answer goes out; others overtake it. InfiniteDuration(): never, but it can be
  // cancelled.
  absl::Duration delay = absl::ZeroDuration();
  bool pending = false;  // STATUS_PENDING first; the answer is asynchronous.
  bool drop = false;     // Executed, never answered.
  bool ignore = false;   // Not even executed.
  std::optional<smb::wire::NtStatus> status = {};  // Answered instead of executing.
  // Changes the answer, header and body, before it is signed and encrypted.
  std::function<void(std::vector<uint8_t>& message)> edit = {};
  // Changes the frame as it goes out (without its length prefix): an attacker's hand.
  std::function<void(std::vector<uint8_t>& frame)> tamper = {};
  int copies = 1;                           // How often the answer is sent.
  std::optional<uint64_t> message_id = {};  // Another one than the request's.
  std::optional<uint16_t> credits = {};     // Granted.
  bool bad_signature = false;
  bool is_unsigned = false;                // Although it should be signed.
  std::optional<size_t> truncate_to = {};  // Bytes of the frame that are sent; then it closes.
  Closing close = Closing::kNothing;       // After the answer (or instead: with `drop`).
};

// The first rule that fits a request, and is not used up, acts on it.
struct Rule {
  std::optional<smb::wire::Command> command = {};
  std::optional<smb::wire::Fsctl> fsctl = {};
  std::optional<std::string> share = {};  // Without case.
  std::optional<std::string> path = {};   // Without case.
  int64_t skip = 0;                       // So many fitting requests first go by.
  int64_t times = std::numeric_limits<int64_t>::max();
  Action action = {};
};

class ScriptedServer {
 public:
  explicit ScriptedServer(std::string name);
  ScriptedServer(const ScriptedServer&) = delete;
  ~ScriptedServer();

  const std::string& name() const { return name_; }
  ServerOptions& options() { return options_; }

  // What it serves. IPC$ is always there.
  ScriptedShare& AddShare(std::string_view name);
  void RemoveShare(std::string_view name);
  ScriptedShare* FindShare(std::string_view name);
  void AddUser(const std::string& user, std::string password);
  PasswordAcceptor& passwords() { return passwords_; }
  // Another mechanism than the passwords.
  void set_log_on(std::unique_ptr<LogOnAcceptor> acceptor) { log_on_ = std::move(acceptor); }
  // Makes it a domain controller that answers DOMAIN and DC referrals.
  void AddDomain(std::string domain, std::vector<std::string> controllers);

  // Serves at `on` for as long as the task lives; ends at once, with a message to stderr, if the
  // address cannot be had. Several may run at once (several addresses).
  runtime::Task<void> Serve(runtime::SocketAddress on);
  // Where it listens, once Serve() does.
  const std::vector<runtime::SocketAddress>& listening() const { return listening_; }

  // The script: asked for every request; rules come after it, where it returns nothing.
  using Script = std::function<std::optional<Action>(const ScriptedRequest&)>;
  void set_script(Script script) { script_ = std::move(script); }
  void AddRule(Rule rule) { rules_.push_back({std::move(rule)}); }
  void ClearRules() { rules_.clear(); }

  // Events that no request asks for. From outside the loop, or from a script.
  void CloseConnections(Closing how);
  // What serves the connections that are there stands still until then, and so does not see that
  // their clients go; others are served. As a server with one process for each connection.
  void HangConnections(absl::Time until);
  // The next requests of every session get NETWORK_SESSION_EXPIRED, until it authenticates again.
  void ExpireSessions();
  // USER_SESSION_DELETED from now on.
  void DeleteSessions();
  // NETWORK_NAME_DELETED for whoever is connected to `share`; it may be connected again.
  void DisconnectTrees(std::string_view share);

  // Takes every lease of the file down to `state`, at once: a storm, if it is called often.
  void BreakLeases(std::string_view share, std::string_view path, uint32_t state);
  // The same for all files.
  void BreakAllLeases(uint32_t state);

  // What was executed so far.
  const std::vector<ScriptedMutation>& mutations() const { return mutations_; }
  // Locks that clients hold on the file; -1: there is no such file.
  int locks(std::string_view share, std::string_view path);
  // Whether a connection that is not the last one that was made has a lock on it.
  bool IsLockedByFormer(const ScriptedFile& file) const;
  // The states of its leases.
  std::vector<uint32_t> leases(std::string_view share, std::string_view path) const;
  // Handles that wait for their client.
  int durable_opens() const;

  // What was asked so far.
  const std::deque<ScriptedRequest>& log() const { return log_; }
  int64_t Count(smb::wire::Command command) const;
  int64_t CountReferrals() const;             // Plain and EX.
  int64_t frames() const { return frames_; }  // A compound counts once.
  void ClearLog();

  // What clients hold now.
  int connections() const { return static_cast<int>(connections_.size()); }
  int sessions() const;
  int opens() const;
  int64_t connections_ever() const { return connections_ever_; }
  // What a client did that the protocol forbids: empty, or a bug of the client.
  const std::vector<std::string>& violations() const { return violations_; }

 private:
  friend class ScriptedConnection;
  friend class ScriptedOpens;

  struct UsedRule {
    Rule rule;
    int64_t seen = 0;
  };

  Action Decide(const ScriptedRequest& request);
  void Record(ScriptedRequest request);
  void Violation(int connection, std::string_view what);
  LogOnAcceptor& log_on() { return log_on_ != nullptr ? *log_on_ : passwords_; }
  // Referrals: scripted_referrals.cc.
  struct ReferralAnswer {
    smb::wire::NtStatus status = smb::wire::NtStatus::kSuccess;
    std::vector<uint8_t> bytes = {};
  };
  ReferralAnswer AnswerReferral(std::u16string_view path, uint16_t level);
  ReferralAnswer AnswerNames(std::u16string_view path, uint16_t level);

  const std::string name_;
  ServerOptions options_;
  std::map<std::string, std::unique_ptr<ScriptedShare>> shares_;  // By folded name.
  PasswordAcceptor passwords_{{}};
  std::unique_ptr<LogOnAcceptor> log_on_;
  std::map<std::string, std::vector<std::string>> domains_;
  std::vector<runtime::SocketAddress> listening_;

  Script script_;
  std::vector<UsedRule> rules_;

  std::vector<ScriptedConnection*> connections_;
  // Ends it and what it has open.
  void EndSession(uint64_t id, bool keep_durable);

  std::map<uint64_t, std::shared_ptr<ScriptedSession>> sessions_;
  int64_t connections_ever_ = 0;
  uint64_t last_session_id_ = 0;
  uint32_t last_tree_id_ = 0;
  uint64_t last_file_id_ = 0;
  uint64_t last_async_id_ = 0;

  std::unique_ptr<ScriptedOpens> opens_;
  std::vector<ScriptedMutation> mutations_;

  std::deque<ScriptedRequest> log_;
  std::map<smb::wire::Command, int64_t> counts_;
  int64_t referrals_ = 0;
  int64_t frames_ = 0;
  std::vector<std::string> violations_;
};

}  // namespace dfscsi::testing

#endif  // NODE_AGENT_TESTING_SCRIPTED_SERVER_H_
