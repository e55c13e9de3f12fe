#include "node-agent/smb/auth/auth_protocol.h"

#include <string.h>

#include <limits>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"

namespace dfscsi::smb::auth {
namespace {

constexpr uint8_t kVersion = 1;
constexpr uint32_t kForever = std::numeric_limits<uint32_t>::max();
constexpr size_t kLengthBytes = 4;
constexpr size_t kHeaderBytes = 1 + 1 + 8;
constexpr size_t kMaxMessageTextBytes = 1024;

enum class Type : uint8_t { kBegin = 1, kStep = 2, kEnd = 3, kToken = 65, kFailure = 66 };

// Counts first, then writes: the frame's buffer is never reallocated, so no stale copy of a secret
// stays behind in the heap.
class Writer {
 public:
  explicit Writer(char* out) : out_(out) {}

  template <typename T>
  void Integer(T value) {
    static_assert(std::is_unsigned_v<T>);
    for (size_t i = 0; i < sizeof(T); ++i) Byte(static_cast<char>(value >> (8 * i)));
  }
  void Bytes(std::string_view bytes) {
    Integer(static_cast<uint32_t>(bytes.size()));
    if (out_ != nullptr && !bytes.empty()) memcpy(out_ + size_, bytes.data(), bytes.size());
    size_ += bytes.size();
  }
  size_t size() const { return size_; }

 private:
  void Byte(char c) {
    if (out_ != nullptr) out_[size_] = c;
    ++size_;
  }

  char* const out_;  // Null: only count.
  size_t size_ = 0;
};

// Sticks to its first error; every value read after that is empty.
class Reader {
 public:
  explicit Reader(std::string_view in) : in_(in) {}

  template <typename T>
  T Integer() {
    static_assert(std::is_unsigned_v<T>);
    if (in_.size() < sizeof(T)) return Fail("truncated"), T{0};
    uint64_t value = 0;
    for (size_t i = 0; i < sizeof(T); ++i) {
      value |= uint64_t{static_cast<unsigned char>(in_[i])} << (8 * i);
    }
    in_.remove_prefix(sizeof(T));
    return static_cast<T>(value);
  }
  std::string_view Bytes(size_t max_bytes) {
    const size_t size = Integer<uint32_t>();
    if (size > in_.size()) return Fail("truncated"), std::string_view();
    if (size > max_bytes) return Fail("a field is too long"), std::string_view();
    const std::string_view bytes = in_.substr(0, size);
    in_.remove_prefix(size);
    return bytes;
  }
  std::string String(size_t max_bytes) { return std::string(Bytes(max_bytes)); }
  Secret SecretBytes(size_t max_bytes) { return Secret(Bytes(max_bytes)); }
  bool Bool() {
    const uint8_t value = Integer<uint8_t>();
    if (value > 1) Fail("a truth value is neither 0 nor 1");
    return value == 1;
  }
  template <typename T>
  T Enum(T first, T last) {
    const uint8_t value = Integer<uint8_t>();
    if (value < static_cast<uint8_t>(first) || value > static_cast<uint8_t>(last)) {
      Fail("an unknown value");
      return first;
    }
    return static_cast<T>(value);
  }

  void Fail(const char* why) {
    if (why_ == nullptr) why_ = why;
    in_ = {};
  }
  // Call when all fields are read.
  absl::Status Finish() {
    if (!in_.empty()) Fail("bytes after the last field");
    if (why_ == nullptr) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("dfs-auth message: ", why_));
  }

 private:
  std::string_view in_;
  const char* why_ = nullptr;
};

absl::Status CheckSize(const char* field, size_t size_bytes, size_t max_bytes) {
  if (size_bytes <= max_bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, " has ", size_bytes, " bytes, more than ", max_bytes));
}

absl::Status Check(const Begin& begin) {
  RETURN_IF_ERROR(CheckSize("server name", begin.target_host.size(), kMaxNameBytes));
  RETURN_IF_ERROR(CheckSize("user name", begin.user.size(), kMaxNameBytes));
  RETURN_IF_ERROR(CheckSize("domain", begin.domain.size(), kMaxNameBytes));
  RETURN_IF_ERROR(CheckSize("password", begin.password.Expose().size(), kMaxNameBytes));
  RETURN_IF_ERROR(CheckSize("path of krb5.conf", begin.krb5_config_path.size(), kMaxNameBytes));
  RETURN_IF_ERROR(CheckSize("keytab", begin.keytab.Expose().size(), kMaxTicketFileBytes));
  return CheckSize("credential cache", begin.ccache.Expose().size(), kMaxTicketFileBytes);
}
absl::Status Check(const Step& step) {
  return CheckSize("server's token", step.token.Expose().size(), kMaxTokenBytes);
}
absl::Status Check(const End&) { return absl::OkStatus(); }
absl::Status Check(const Token& token) {
  RETURN_IF_ERROR(CheckSize("token", token.token.Expose().size(), kMaxTokenBytes));
  RETURN_IF_ERROR(CheckSize("session key", token.session_key.Expose().size(), kMaxSessionKeyBytes));
  if (token.complete == token.session_key.empty()) {
    return absl::InvalidArgumentError("a session key comes with the last token, and only then");
  }
  return absl::OkStatus();
}
absl::Status Check(const Failure& failure) {
  return CheckSize("message", failure.message.size(), kMaxMessageTextBytes);
}

void Put(const Begin& begin, Writer& out) {
  out.Integer(static_cast<uint8_t>(begin.mechanism));
  out.Bytes(begin.target_host);
  out.Bytes(begin.user);
  out.Bytes(begin.domain);
  out.Bytes(begin.password.Expose());
  out.Bytes(begin.krb5_config_path);
  out.Bytes(begin.keytab.Expose());
  out.Bytes(begin.ccache.Expose());
  out.Integer(static_cast<uint8_t>(begin.renew));
}
void Put(const Step& step, Writer& out) { out.Bytes(step.token.Expose()); }
void Put(const End&, Writer&) {}
void Put(const Token& token, Writer& out) {
  out.Bytes(token.token.Expose());
  out.Integer(static_cast<uint8_t>(token.complete));
  out.Bytes(token.session_key.Expose());
  out.Integer(static_cast<uint8_t>(token.mechanism));
  const int64_t seconds = absl::ToInt64Seconds(token.lifetime);
  out.Integer(seconds >= int64_t{kForever} ? kForever
                                           : static_cast<uint32_t>(seconds < 0 ? 0 : seconds));
}
void Put(const Failure& failure, Writer& out) {
  out.Integer(static_cast<uint8_t>(failure.failure_class));
  out.Bytes(failure.message);
  out.Integer(failure.gss_major);
  out.Integer(failure.gss_minor);
}

Type TypeOf(const Begin&) { return Type::kBegin; }
Type TypeOf(const Step&) { return Type::kStep; }
Type TypeOf(const End&) { return Type::kEnd; }
Type TypeOf(const Token&) { return Type::kToken; }
Type TypeOf(const Failure&) { return Type::kFailure; }

template <typename M>
absl::StatusOr<Secret> EncodeMessage(const M& message) {
  RETURN_IF_ERROR(Check(message));
  Writer count(nullptr);
  Put(message, count);
  std::string frame(kLengthBytes + kHeaderBytes + count.size(), '\0');
  Writer out(frame.data());
  out.Integer(static_cast<uint32_t>(frame.size() - kLengthBytes));
  out.Integer(kVersion);
  out.Integer(static_cast<uint8_t>(TypeOf(message)));
  out.Integer(message.context_id);
  Put(message, out);
  return Secret(std::move(frame));
}

Begin ReadBegin(Reader& in) {
  Begin begin;
  begin.mechanism = in.Enum(Mechanism::kNtlm, Mechanism::kNegotiate);
  begin.target_host = in.String(kMaxNameBytes);
  begin.user = in.String(kMaxNameBytes);
  begin.domain = in.String(kMaxNameBytes);
  begin.password = in.SecretBytes(kMaxNameBytes);
  begin.krb5_config_path = in.String(kMaxNameBytes);
  begin.keytab = in.SecretBytes(kMaxTicketFileBytes);
  begin.ccache = in.SecretBytes(kMaxTicketFileBytes);
  begin.renew = in.Bool();
  return begin;
}

Token ReadToken(Reader& in) {
  Token token;
  token.token = in.SecretBytes(kMaxTokenBytes);
  token.complete = in.Bool();
  token.session_key = in.SecretBytes(kMaxSessionKeyBytes);
  token.mechanism = in.Enum(Mechanism::kNtlm, Mechanism::kNegotiate);
  const uint32_t seconds = in.Integer<uint32_t>();
  token.lifetime = seconds == kForever ? absl::InfiniteDuration() : absl::Seconds(seconds);
  if (token.complete == token.session_key.empty()) in.Fail("a session key out of turn");
  return token;
}

Failure ReadFailure(Reader& in) {
  Failure failure;
  failure.failure_class = in.Enum(FailureClass::kBadCredentials, FailureClass::kProtocol);
  failure.message = in.String(kMaxMessageTextBytes);
  failure.gss_major = in.Integer<uint32_t>();
  failure.gss_minor = in.Integer<uint32_t>();
  return failure;
}

// The fields before the message's own.
struct Header {
  uint8_t type = 0;
  uint64_t context_id = 0;
};

Header ReadHeader(Reader& in) {
  if (in.Integer<uint8_t>() != kVersion) in.Fail("another version");
  Header header;
  header.type = in.Integer<uint8_t>();
  header.context_id = in.Integer<uint64_t>();
  return header;
}

}  // namespace

absl::StatusOr<Secret> EncodeRequest(const Request& request) {
  return std::visit([](const auto& message) { return EncodeMessage(message); }, request);
}

absl::StatusOr<Secret> EncodeReply(const Reply& reply) {
  return std::visit([](const auto& message) { return EncodeMessage(message); }, reply);
}

absl::StatusOr<Request> DecodeRequest(std::string_view message) {
  Reader in(message);
  const Header header = ReadHeader(in);
  Request request = End{};
  switch (static_cast<Type>(header.type)) {
    case Type::kBegin:
      request = ReadBegin(in);
      break;
    case Type::kStep:
      request = Step{.token = in.SecretBytes(kMaxTokenBytes)};
      break;
    case Type::kEnd:
      break;
    default:
      in.Fail("not a request");
  }
  RETURN_IF_ERROR(in.Finish());
  std::visit([&](auto& m) { m.context_id = header.context_id; }, request);
  return request;
}

absl::StatusOr<Reply> DecodeReply(std::string_view message) {
  Reader in(message);
  const Header header = ReadHeader(in);
  Reply reply = Failure{};
  switch (static_cast<Type>(header.type)) {
    case Type::kToken:
      reply = ReadToken(in);
      break;
    case Type::kFailure:
      reply = ReadFailure(in);
      break;
    default:
      in.Fail("not a reply");
  }
  RETURN_IF_ERROR(in.Finish());
  std::visit([&](auto& m) { m.context_id = header.context_id; }, reply);
  return reply;
}

FrameReader::~FrameReader() { explicit_bzero(body_.data(), body_.size()); }

absl::Span<char> FrameReader::Space() {
  if (filled_ < kLengthBytes) return absl::MakeSpan(length_ + filled_, kLengthBytes - filled_);
  const size_t at = filled_ - kLengthBytes;
  return absl::MakeSpan(body_.data() + at, body_.size() - at);
}

absl::StatusOr<std::optional<Secret>> FrameReader::Received(size_t n) {
  filled_ += n;
  if (filled_ < kLengthBytes) return std::nullopt;
  if (filled_ == kLengthBytes) {
    Reader in(std::string_view(length_, kLengthBytes));
    const size_t size_bytes = in.Integer<uint32_t>();
    if (size_bytes == 0 || size_bytes > kMaxFrameBytes) {
      filled_ = 0;
      return absl::InvalidArgumentError(absl::StrCat("dfs-auth frame of ", size_bytes, " bytes"));
    }
    body_.assign(size_bytes, '\0');
    return std::nullopt;
  }
  if (filled_ < kLengthBytes + body_.size()) return std::nullopt;
  filled_ = 0;
  Secret frame(std::move(body_));
  body_.clear();
  return frame;
}

std::string_view MechanismName(Mechanism mechanism) {
  switch (mechanism) {
    case Mechanism::kNtlm:
      return "ntlm";
    case Mechanism::kKerberos:
      return "kerberos";
    case Mechanism::kNegotiate:
      return "negotiate";
  }
  return "unknown";
}

std::string_view FailureClassName(FailureClass failure_class) {
  switch (failure_class) {
    case FailureClass::kBadCredentials:
      return "bad_credentials";
    case FailureClass::kNoKdc:
      return "no_kdc";
    case FailureClass::kNoMechanism:
      return "no_mechanism";
    case FailureClass::kClockSkew:
      return "clock_skew";
    case FailureClass::kProtocol:
      return "protocol";
  }
  return "unknown";
}

}  // namespace dfscsi::smb::auth
