// One client's connection to a scripted server. Private to the server.

#ifndef NODE_AGENT_TESTING_SCRIPTED_CONNECTION_H_
#define NODE_AGENT_TESTING_SCRIPTED_CONNECTION_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/runtime/network.h"
#include "node-agent/smb/wire/break.h"
#include "node-agent/smb/wire/cipher.h"
#include "node-agent/smb/wire/create.h"
#include "node-agent/smb/wire/crypto_key.h"
#include "node-agent/smb/wire/header.h"
#include "node-agent/smb/wire/io.h"
#include "node-agent/smb/wire/negotiate.h"
#include "node-agent/smb/wire/query.h"
#include "node-agent/smb/wire/session.h"
#include "node-agent/smb/wire/signer.h"
#include "node-agent/testing/scripted_opens.h"
#include "node-agent/testing/scripted_server.h"

namespace dfscsi::testing {

struct ScriptedTree {
  std::string share;              // As the client spelled it.
  ScriptedShare* tree = nullptr;  // Null: IPC$.
};

struct ScriptedSession {
  uint64_t id = 0;
  ScriptedConnection* connection = nullptr;
  bool valid = false;  // A log-on has succeeded.
  bool expired = false;
  bool signing_required = false;
  bool encrypts = false;
  std::unique_ptr<LogOnExchange> log_on;  // Under way.
  smb::wire::PreauthHash preauth;
  std::optional<smb::wire::Signer> signer;
  std::optional<smb::wire::Cipher> to_client;
  std::optional<smb::wire::Cipher> from_client;
  uint64_t last_nonce = 0;
  std::map<uint32_t, ScriptedTree> trees;
  std::map<uint64_t, ScriptedOpen> opens;  // By the volatile half.
};

class ScriptedConnection {
 public:
  ScriptedConnection(ScriptedServer& server, std::unique_ptr<runtime::Stream> stream, int number);
  ~ScriptedConnection();

  // Serves until the connection ends.
  runtime::Task<void> Run();
  // Ends it on the loop's next turn.
  void Close(Closing how);
  void Hang(absl::Time until) { hangs_until_ = until; }
  void ForgetSession(uint64_t id) { own_sessions_.erase(id); }
  const smb::wire::Guid& client() const { return negotiate_request_.client_guid; }
  int number() const { return number_; }
  void SendBreak(const smb::wire::LeaseBreakNotification& notification);

 private:
  // One command while it is worked on.
  struct Call {
    smb::wire::Header header;
    smb::wire::Bytes message;  // Header, body, padding.
    smb::wire::Bytes body;
    bool encrypted = false;
    std::shared_ptr<ScriptedSession> session;
    ScriptedTree* tree = nullptr;
    // From the parts of the compound before it.
    smb::wire::NtStatus earlier_status = smb::wire::NtStatus::kSuccess;
    smb::wire::FileId earlier_file_id = smb::wire::kNoFileId;

    // The answer: 64 bytes for its header, then the body.
    smb::wire::NtStatus status = smb::wire::NtStatus::kSuccess;
    std::vector<uint8_t> reply;
    uint64_t reply_session_id = 0;
    uint32_t reply_tree_id = 0;
    bool sign_reply = false;
    bool no_reply = false;
    Action action;
    // It cannot be answered yet: a lease must be broken, a lock be released. It is executed again
    // whenever something has changed (ScriptedOpens), until `waits_until`.
    bool waits = false;
    absl::Time waits_until = absl::InfiniteFuture();
    uint64_t async_id = 0;  // 0: it did not wait.
  };
  // A frame of which a part waits.
  struct Batch {
    std::vector<uint8_t> frame;
    std::vector<Call> calls;
  };
  struct Outgoing {
    std::vector<uint8_t> bytes;
    Closing close = Closing::kNothing;
  };

  // scripted_connection.cc: frames, signatures, credits.
  runtime::Task<void> WriteLoop();
  bool HandleFrame(smb::wire::MutableBytes frame);  // False: the connection ends.
  bool HandleCalls(std::vector<Call> calls, smb::wire::Bytes frame);
  bool HandlePart(Call& call);
  runtime::Task<void> FinishLater(std::shared_ptr<Batch> batch, size_t first);
  runtime::Task<void> WaitAndRepeat(Call* call);  // In a batch that its caller holds.
  static void FollowOn(const Call& before, Call& call);
  static void MarkAsync(Call& call, uint64_t async_id);
  bool TakeMessageIds(const smb::wire::Header& header);
  uint16_t Grant(const Call& call);
  void FinishReply(Call& call);
  void Answer(std::vector<Call> calls);
  void Send(const std::vector<Call*>& calls);
  void SendInterim(const Call& call, uint64_t async_id);
  runtime::Task<void> AnswerLater(std::shared_ptr<Call> call);
  void Cancel(const smb::wire::Header& header);
  // Closes what a CREATE opened whose answer was cancelled: nobody is told of the handle.
  void TakeBack(const Call& call);
  void Queue(std::vector<uint8_t> frame, const Action& action);
  smb::wire::NtStatus CheckSession(Call& call);
  smb::wire::NtStatus CheckSignature(Call& call);
  ScriptedRequest Describe(const Call& call);

  // Writes a body behind the header's room of `call.reply`.
  template <class Encode, class Body>
  static void Reply(Call& call, Encode encode, const Body& body) {
    call.reply.assign(smb::wire::kHeaderSize, 0);
    smb::wire::Writer writer(&call.reply, 0);
    encode(body, writer);
  }
  static void ReplyEmpty(Call& call);
  static void ReplyError(Call& call, smb::wire::NtStatus status, smb::wire::Bytes error_data = {},
                         bool as_context = false);
  static void ReplyBuffer(Call& call, smb::wire::Bytes output);

  // scripted_commands.cc: what each command does. They set call.status and call.reply.
  void Execute(Call& call);
  void Negotiate(Call& call);
  void ChooseContexts(const smb::wire::NegotiateRequest& request,
                      smb::wire::NegotiateResponse& response);
  void SessionSetup(Call& call);
  void FinishLogOn(Call& call, ScriptedSession& session, const LogOnReply& reply,
                   uint64_t previous_session_id);
  void TreeConnect(Call& call);
  void Read(Call& call);
  void CloseOpen(Call& call);
  void Ioctl(Call& call);
  void Referral(Call& call, const smb::wire::IoctlRequest& request);
  void ValidateNegotiate(Call& call, const smb::wire::IoctlRequest& request);
  void FileIoctl(Call& call, const smb::wire::IoctlRequest& request);
  void QueryDirectory(Call& call);
  void QueryInfo(Call& call);
  smb::wire::NtStatus FileInformation(const ScriptedOpen& open, uint8_t info_class,
                                      smb::wire::Writer& writer);
  static smb::wire::NtStatus FsInformation(uint8_t info_class, smb::wire::Writer& writer);

  // scripted_create.cc
  void Create(Call& call);
  smb::wire::NtStatus CheckCreate(Call& call, const smb::wire::CreateRequest& request,
                                  const ScriptedShare::Found& found);
  bool WaitsForLeases(Call& call, const smb::wire::CreateRequest& request,
                      const ScriptedFile& file);
  void Reconnect(Call& call, const smb::wire::CreateRequest& request);
  bool Replayed(Call& call, const smb::wire::CreateRequest& request);
  std::shared_ptr<ScriptedFile> MakeOrOverwrite(Call& call, const smb::wire::CreateRequest& request,
                                                const ScriptedShare::Found& found,
                                                smb::wire::CreateAction& action);
  void GrantContexts(const smb::wire::CreateRequest& request, ScriptedOpen& open,
                     smb::wire::CreateResponse& response);
  void ReplyOpened(Call& call, const smb::wire::CreateRequest& request, ScriptedOpen open,
                   smb::wire::CreateResponse response);

  // scripted_changes.cc
  void Write(Call& call);
  void Flush(Call& call);
  void SetInfo(Call& call);
  smb::wire::NtStatus SetFileInformation(Call& call, ScriptedOpen& open,
                                         const smb::wire::SetInfoRequest& request);
  smb::wire::NtStatus SetBasic(ScriptedOpen& open, smb::wire::Bytes input);
  smb::wire::NtStatus SetSize(ScriptedOpen& open, uint64_t size_bytes);
  smb::wire::NtStatus SetDisposition(Call& call, ScriptedOpen& open, bool remove);
  smb::wire::NtStatus Rename(Call& call, ScriptedOpen& open, std::u16string_view target,
                             bool replace, bool posix);
  smb::wire::NtStatus Link(ScriptedOpen& open, std::u16string_view target);
  smb::wire::NtStatus SetExtended(ScriptedOpen& open, smb::wire::Bytes input);
  smb::wire::NtStatus ReserveGrowth(ScriptedShare& share, uint64_t old_size, uint64_t new_size);
  void Lock(Call& call);
  smb::wire::NtStatus TakeLocks(ScriptedOpen& open,
                                const std::vector<smb::wire::LockElement>& locks, bool* waits);
  void AcknowledgeBreak(Call& call);
  // Write-side FSCTLs; false: it is none.
  bool ChangingIoctl(Call& call, const smb::wire::IoctlRequest& request);
  smb::wire::NtStatus CopyChunks(Call& call, ScriptedOpen& target,
                                 const smb::wire::IoctlRequest& request,
                                 std::vector<uint8_t>& output);
  // What every change asks first: the handle, its access, the channel's sequence. Null: answered.
  ScriptedOpen* FindToChange(Call& call, smb::wire::FileId id, uint32_t access);
  ScriptedMutation& RecordMutation(const Call& call, const ScriptedOpen& open);

  // The open that `id` means in this call; null: FILE_CLOSED.
  ScriptedOpen* FindOpen(Call& call, smb::wire::FileId id);
  void CheckCharge(Call& call, uint64_t payload_bytes);

  ScriptedServer& server_;
  const std::unique_ptr<runtime::Stream> stream_;
  const int number_;
  runtime::CancelSource end_;
  Closing closing_ = Closing::kNothing;
  absl::Time hangs_until_ = absl::InfinitePast();

  bool negotiated_ = false;
  smb::wire::NegotiateRequest negotiate_request_;
  smb::wire::NegotiateResponse negotiate_response_;
  smb::wire::SigningId signing_id_ = smb::wire::SigningId::kHmacSha256;
  smb::wire::CipherId cipher_id_ = smb::wire::CipherId::kNone;
  smb::wire::PreauthHash preauth_;

  // MessageIds below first_free_ are used up; those from limit_ on are not granted.
  uint64_t first_free_ = 0;
  uint64_t limit_ = 1;
  std::set<uint64_t> used_;  // From first_free_ on.

  std::set<uint64_t> own_sessions_;
  std::map<uint64_t, std::shared_ptr<runtime::CancelSource>> cancellable_;  // By MessageId.
  std::map<uint64_t, uint64_t> async_ids_;                                  // AsyncId: MessageId.

  std::deque<Outgoing> outgoing_;
  runtime::Condition outgoing_changed_;
  runtime::TaskGroup tasks_;  // Dies first.
};

}  // namespace dfscsi::testing

#endif  // NODE_AGENT_TESTING_SCRIPTED_CONNECTION_H_
