// The messages between the agent and its dfs-auth child: one log-on is one context.
//
// The agent says Begin, gets a Token for the server's SESSION_SETUP, feeds each reply's security
// buffer back with Step until a Token says `complete`, then says End. Each Begin and Step is
// answered by exactly one Token or Failure, in order; End is not answered. Contexts do not share
// anything and may be interleaved. After a Failure the context is gone (End is allowed, not
// needed).
//
// Framing on the stream socket: u32 length (little-endian, of what follows), then the message:
// u8 version, u8 type, u64 context id, fields. All integers are little-endian; a string is
// u32 length + bytes. Pure: no I/O, no GSSAPI.

#ifndef NODE_AGENT_SMB_AUTH_AUTH_PROTOCOL_H_
#define NODE_AGENT_SMB_AUTH_AUTH_PROTOCOL_H_

#include <stddef.h>
#include <stdint.h>

#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "node-agent/base/secret.h"

namespace dfscsi::smb::auth {

// The descriptor on which a child finds its socket.
inline constexpr int kAuthSocketFd = 3;

inline constexpr size_t kMaxNameBytes = 1024;
inline constexpr size_t kMaxTokenBytes = 65535;  // SecurityBufferLength is 16 bits wide.
inline constexpr size_t kMaxTicketFileBytes = 384 << 10;
inline constexpr size_t kMaxSessionKeyBytes = 64;
inline constexpr size_t kMaxFrameBytes = 1 << 20;  // Without the 4 bytes of length.

enum class Mechanism : uint8_t {
  kNtlm = 1,
  kKerberos = 2,
  // Kerberos where a ticket can be had, else NTLM. A password that the KDC refused is not tried
  // again with NTLM: that would count twice towards a lockout.
  kNegotiate = 3,
};

// What a Failure means for the caller.
enum class FailureClass : uint8_t {
  // The account or its secret is wrong, missing, expired or locked. Do not repeat before the
  // credential changes.
  kBadCredentials = 1,
  // No KDC of the realm answered, or none is known. Try again later, or another mechanism.
  kNoKdc = 2,
  // No mechanism serves this (server, credential): no such service principal, NTLM without a
  // password, plug-in not installed. Trying again is of no use.
  kNoMechanism = 3,
  // Clocks of the node and of the KDC or server are too far apart. For the administrator.
  kClockSkew = 4,
  // The server's token is malformed or came out of turn, or the request itself is. Drop the
  // connection.
  kProtocol = 5,
};

// Starts a log-on.
struct Begin {
  uint64_t context_id = 0;  // Chosen by the agent; not in use.
  Mechanism mechanism = Mechanism::kNegotiate;
  std::string target_host = {};  // As in the referral: the ticket is for cifs/<target_host>.
  std::string user = {};         // "user", "DOM\user", "DOM;user" or "user@realm".
  std::string domain = {};       // NetBIOS domain or realm; empty if part of `user` or not known.
  Secret password = {};
  // Kerberos. All requests to one child must name the same configuration (empty: the system's).
  std::string krb5_config_path = {};
  Secret keytab = {};  // Contents of a keytab file.
  Secret ccache = {};  // Contents of a FILE credential cache. Never written back.
  // Gets fresh tickets even if the child holds valid ones: the server said "expired".
  bool renew = false;
};

// The server's next token. May be empty, if the server sent an empty security buffer.
struct Step {
  uint64_t context_id = 0;
  Secret token = {};
};

// Forgets a context, complete or not. Unknown ids are ignored.
struct End {
  uint64_t context_id = 0;
};

struct Token {
  uint64_t context_id = 0;
  Secret token = {};  // For the server; empty if there is nothing more to send.
  // The server is who it says (Kerberos) or knows the password (NTLM), and session_key is set.
  bool complete = false;
  // The full GSS key (16 to 32 bytes), [MS-SMB2] 3.2.5.3.1. Empty until complete.
  Secret session_key = {};
  // What is in use; kNegotiate while the server has not chosen yet.
  Mechanism mechanism = Mechanism::kNegotiate;
  // How long the log-on is good for: the ticket's rest. InfiniteDuration for NTLM.
  absl::Duration lifetime = absl::InfiniteDuration();
};

struct Failure {
  uint64_t context_id = 0;
  FailureClass failure_class = FailureClass::kProtocol;
  std::string message = {};  // One line of UTF-8, no secrets.
  uint32_t gss_major = 0;
  uint32_t gss_minor = 0;  // Where a ticket could not be had: the krb5 error code.
};

// gss_minor of a Failure of class kBadCredentials: the KDC refused the password (or key) itself,
// and counts it towards a lockout. (KRB5KDC_ERR_PREAUTH_FAILED; what else is refused, a locked
// account for one, has other codes.)
inline constexpr uint32_t kKdcRefusedSecret = 0x96c73a18;

using Request = std::variant<Begin, Step, End>;
using Reply = std::variant<Token, Failure>;

// A whole frame, ready to be written. InvalidArgument names the field that is over its limit.
absl::StatusOr<Secret> EncodeRequest(const Request& request);
absl::StatusOr<Secret> EncodeReply(const Reply& reply);

// `message` is one frame without its length. InvalidArgument: the peer speaks another language; the
// caller ends the connection (the agent: kills the child).
absl::StatusOr<Request> DecodeRequest(std::string_view message);
absl::StatusOr<Reply> DecodeReply(std::string_view message);

// Cuts a byte stream into frames. Usage: read at most Space().size() bytes into Space(), tell
// Received(n). It never asks for bytes beyond the current frame, so none is copied twice.
class FrameReader {
 public:
  FrameReader() = default;
  FrameReader(const FrameReader&) = delete;
  FrameReader& operator=(const FrameReader&) = delete;
  ~FrameReader();

  // Where the next bytes go. Never empty. Valid until Received().
  absl::Span<char> Space();

  // `n` bytes, 0 < n <= Space().size(), were put there. Returns the frame that they complete,
  // without its length; nullopt if it is not whole yet. InvalidArgument: a length beyond
  // kMaxFrameBytes or zero; the stream is of no more use.
  absl::StatusOr<std::optional<Secret>> Received(size_t n);

 private:
  char length_[4] = {};
  std::string body_;
  size_t filled_ = 0;  // Of length_ and body_ together.
};

// For logs and metrics: "ntlm", "kerberos", "negotiate".
std::string_view MechanismName(Mechanism mechanism);
// For metrics: "bad_credentials", "no_kdc", "no_mechanism", "clock_skew", "protocol".
std::string_view FailureClassName(FailureClass failure_class);

}  // namespace dfscsi::smb::auth

#endif  // NODE_AGENT_SMB_AUTH_AUTH_PROTOCOL_H_
