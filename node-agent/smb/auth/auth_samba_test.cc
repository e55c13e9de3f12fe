// Log-ons of dfs-auth at a real smbd: NEGOTIATE, SESSION_SETUP, and a TREE_CONNECT that is signed
// with the key that came out. Needs root and Samba.

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/base/unique_fd.h"
#include "node-agent/smb/auth/auth_test_agent.h"
#include "node-agent/smb/wire/header.h"
#include "node-agent/smb/wire/negotiate.h"
#include "node-agent/smb/wire/session.h"
#include "node-agent/testing/kdc.h"

namespace dfscsi::smb::auth {
namespace {

using wire::Bytes;
using wire::NtStatus;

// The account of the lab's user: one that every Debian has, because smbd wants a Unix account.
constexpr char kUser[] = "daemon";
constexpr char kPassword[] = "right-password";
constexpr char kFolder[] = "/mnt";  // Ours alone: a tmpfs in this process's mount namespace.

constexpr char kConfig[] = R"([global]
  netbios name = AUTHTEST
  workgroup = LAB
  server role = standalone server
  private dir = /mnt/private
  lock directory = /mnt/lock
  state directory = /mnt/state
  cache directory = /mnt/cache
  pid directory = /mnt/pid
  ncalrpc dir = /mnt/ncalrpc
  log file = /mnt/log.smbd
  passdb backend = tdbsam:/mnt/private/passdb.tdb
  disable netbios = yes
  server min protocol = SMB3_11
  server signing = mandatory
  load printers = no
  printcap name = /dev/null
  disable spoolss = yes
  map to guest = never
  realm = LAB.TEST
  kerberos method = dedicated keytab
  dedicated keytab file = FILE:/mnt/keytab
[share]
  path = /mnt/share
  read only = no
)";

// ---- The server. ----

void Run(const std::string& command) {
  ASSERT_EQ(system(command.c_str()), 0) << command;  // NOLINT(cert-env33-c): a test's own words.
}

// All files of the test vanish with it, however it ends: they lie in a mount namespace of its own.
class SambaEnvironment : public ::testing::Environment {
 public:
  void SetUp() override {
    ASSERT_EQ(unshare(CLONE_NEWNS), 0) << "needs root: " << strerror(errno);
    ASSERT_EQ(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
    ASSERT_EQ(mount("auth-test", kFolder, "tmpfs", 0, nullptr), 0);
    for (const char* name : {"private", "lock", "state", "cache", "pid", "ncalrpc", "share"}) {
      ASSERT_EQ(mkdir(absl::StrCat(kFolder, "/", name).c_str(), 0700), 0);
    }
    std::ofstream("/mnt/smb.conf") << kConfig;
    std::ofstream("/mnt/krb5.conf") << "[libdefaults]\n  dns_lookup_kdc = false\n";
    Run(absl::StrCat("printf '", kPassword, "\\n", kPassword,
                     "\\n' | smbpasswd -c /mnt/smb.conf -s -a ", kUser, " >/dev/null"));
  }
};

// One smbd for one connection, which it gets as standard input, as from inetd: no port to choose,
// and it ends with the connection.
class Smbd {
 public:
  Smbd() {
    const UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    connection_.reset(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(bind(listener.get(), generic, size), 0);
    EXPECT_EQ(listen(listener.get(), 1), 0);
    EXPECT_EQ(getsockname(listener.get(), generic, &size), 0);
    EXPECT_EQ(connect(connection_.get(), generic, size), 0);
    const UniqueFd server(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    pid_ = fork();
    if (pid_ == 0) {
      setsid();  // smbd ends its whole process group when it ends.
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      dup2(server.get(), STDIN_FILENO);
      dup2(STDERR_FILENO, STDOUT_FILENO);
      execl("/usr/sbin/smbd", "smbd", "-s", "/mnt/smb.conf", nullptr);
      _exit(127);
    }
  }
  ~Smbd() {
    connection_.reset();
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
  }

  int connection() const { return connection_.get(); }

 private:
  UniqueFd connection_;
  pid_t pid_ = -1;
};

// ---- Just enough SMB 3.1.1: AES-CMAC, one request at a time. ----

using Buffer = std::vector<uint8_t>;

Buffer Mac(const char* name, const char* parameter, const char* value, Bytes key, Bytes message) {
  EVP_MAC* mac = EVP_MAC_fetch(nullptr, name, nullptr);
  EVP_MAC_CTX* context = EVP_MAC_CTX_new(mac);
  const OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_utf8_string(parameter, const_cast<char*>(value), 0),
      OSSL_PARAM_construct_end()};
  Buffer out(64);
  size_t size = 0;
  EXPECT_EQ(EVP_MAC_init(context, key.data(), key.size(), parameters), 1);
  EXPECT_EQ(EVP_MAC_update(context, message.data(), message.size()), 1);
  EXPECT_EQ(EVP_MAC_final(context, out.data(), &size, out.size()), 1);
  out.resize(size);
  EVP_MAC_CTX_free(context);
  EVP_MAC_free(mac);
  return out;
}

// [MS-SMB2] 3.1.4.2, for 128 bits.
Buffer DeriveSigningKey(Bytes session_key, Bytes preauth_hash) {
  constexpr char kLabel[] = "SMBSigningKey";  // With its NUL.
  Buffer input = {0, 0, 0, 1};
  input.insert(input.end(), kLabel, kLabel + sizeof(kLabel));
  input.push_back(0);
  input.insert(input.end(), preauth_hash.begin(), preauth_hash.end());
  for (const uint8_t byte : {0, 0, 0, 128}) input.push_back(byte);
  Buffer key = Mac("HMAC", "digest", "SHA256", session_key.first(16), input);
  key.resize(16);
  return key;
}

class SmbConnection {
 public:
  explicit SmbConnection(int fd) : fd_(fd) {}

  NtStatus status() const { return header_.status; }
  Bytes body() const { return Bytes(reply_).subspan(wire::kHeaderSize); }
  bool reply_is_signed() const { return header_.Has(wire::kFlagSigned); }
  void set_signing_key(Buffer key) { signing_key_ = std::move(key); }
  const Buffer& preauth_hash() const { return preauth_hash_; }

  bool SignatureIsRight() const {
    Buffer message = reply_;
    std::fill_n(message.begin() + wire::kSignatureOffset, 16, uint8_t{0});
    const Buffer mac = Mac("CMAC", "cipher", "AES-128-CBC", signing_key_, message);
    return Buffer(header_.signature.begin(), header_.signature.end()) == mac;
  }

  void Negotiate() {
    wire::NegotiateRequest request;
    request.dialects = {wire::Dialect::k311};
    request.client_guid = {1};
    request.contexts.hashes = {wire::kSha512};
    request.contexts.salt.resize(32);
    request.contexts.signings = {wire::SigningId::kAesCmac};
    Exchange(wire::Command::kNegotiate,
             [&](wire::Writer& out) { EncodeNegotiateRequest(request, out); });
    HashReply();
    const auto response = wire::DecodeNegotiateResponse(body());
    ASSERT_TRUE(response.ok()) << response.status();
    ASSERT_EQ(response->dialect, wire::Dialect::k311);
  }

  // The server's token.
  std::string SessionSetup(std::string_view token) {
    wire::SessionSetupRequest request;
    request.security_buffer = Bytes(reinterpret_cast<const uint8_t*>(token.data()), token.size());
    Exchange(wire::Command::kSessionSetup,
             [&](wire::Writer& out) { EncodeSessionSetupRequest(request, out); });
    session_id_ = header_.session_id;
    if (status() == NtStatus::kMoreProcessingRequired) HashReply();
    const auto response = wire::DecodeSessionSetupResponse(body());
    if (!response.ok()) return "";
    session_flags_ = response->session_flags;
    return std::string(response->security_buffer.begin(), response->security_buffer.end());
  }
  uint16_t session_flags() const { return session_flags_; }

  void TreeConnect() {
    Exchange(wire::Command::kTreeConnect, [](wire::Writer& out) {
      EncodeTreeConnectRequest({.path = u"\\\\localhost\\share"}, out);
    });
  }

 private:
  template <typename Encode>
  void Exchange(wire::Command command, Encode encode) {
    wire::Header header;
    header.command = command;
    header.credits = 1;
    header.message_id = next_message_id_++;
    header.session_id = session_id_;
    if (!signing_key_.empty()) header.flags |= wire::kFlagSigned;
    Buffer message;
    wire::Writer out(&message);
    EncodeHeader(header, out);
    encode(out);
    ASSERT_TRUE(out.ok());
    if (!signing_key_.empty()) {
      const Buffer mac = Mac("CMAC", "cipher", "AES-128-CBC", signing_key_, message);
      std::copy(mac.begin(), mac.end(), message.begin() + wire::kSignatureOffset);
    }
    Hash(message);
    const auto prefix = wire::FramePrefix(static_cast<uint32_t>(message.size()));
    message.insert(message.begin(), prefix.begin(), prefix.end());
    ASSERT_EQ(write(fd_, message.data(), message.size()), static_cast<ssize_t>(message.size()));
    Buffer length = ReadExactly(wire::kFramePrefixSize);
    const auto size = wire::DecodeFramePrefix(length);
    ASSERT_TRUE(size.ok()) << size.status();
    reply_ = ReadExactly(*size);
    const auto decoded = wire::DecodeHeader(reply_);
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    header_ = *decoded;
  }

  Buffer ReadExactly(size_t size) {
    Buffer bytes(size);
    size_t done = 0;
    while (done < size && TestAgent::WaitFor(fd_, POLLIN)) {
      const ssize_t n = read(fd_, bytes.data() + done, size - done);
      if (n <= 0) break;
      done += static_cast<size_t>(n);
    }
    EXPECT_EQ(done, size) << "the server hung up";
    return bytes;
  }

  void HashReply() { Hash(reply_); }
  void Hash(Bytes message) {
    Buffer input = preauth_hash_;
    input.insert(input.end(), message.begin(), message.end());
    EXPECT_EQ(EVP_Digest(input.data(), input.size(), preauth_hash_.data(), nullptr, EVP_sha512(),
                         nullptr),
              1);
  }

  const int fd_;
  Buffer reply_ = Buffer(wire::kHeaderSize);
  wire::Header header_;
  Buffer preauth_hash_ = Buffer(64);
  Buffer signing_key_;
  uint64_t next_message_id_ = 0;
  uint64_t session_id_ = 0;
  uint16_t session_flags_ = 0;
};

// ---- The log-on. ----

struct Outcome {
  NtStatus status = NtStatus::kSuccess;
  Mechanism mechanism = Mechanism::kNegotiate;
  bool reply_signed_right = false;
  uint16_t session_flags = 0;
  NtStatus tree_connect = NtStatus::kSuccess;
};

// One session's SESSION_SETUP, a step at a time, so that two can be interleaved.
class Session {
 public:
  Session(TestAgent* agent, Begin begin)
      : agent_(agent), begin_(std::move(begin)), smb_(smbd_.connection()) {}

  absl::Status Start() {
    smb_.Negotiate();
    ASSIGN_OR_RETURN(token_, agent_->AskToken(begin_));
    return absl::OkStatus();
  }

  // True when the log-on is over, one way or the other.
  absl::StatusOr<bool> Next() {
    const std::string reply = smb_.SessionSetup(token_.token.Expose());
    outcome_.status = smb_.status();
    if (outcome_.status != NtStatus::kSuccess &&
        outcome_.status != NtStatus::kMoreProcessingRequired) {
      RETURN_IF_ERROR(agent_->Send(End{begin_.context_id}));
      return true;
    }
    ASSIGN_OR_RETURN(token_, agent_->AskToken(Step{begin_.context_id, Secret(reply)}));
    if (outcome_.status != NtStatus::kSuccess) return false;
    if (!token_.complete) return absl::InternalError("STATUS_SUCCESS, but GSSAPI is not done");
    const std::string_view key = token_.session_key.Expose();
    smb_.set_signing_key(DeriveSigningKey(
        Bytes(reinterpret_cast<const uint8_t*>(key.data()), key.size()), smb_.preauth_hash()));
    outcome_.mechanism = token_.mechanism;
    outcome_.session_flags = smb_.session_flags();
    outcome_.reply_signed_right = smb_.reply_is_signed() && smb_.SignatureIsRight();
    smb_.TreeConnect();
    outcome_.tree_connect = smb_.status();
    RETURN_IF_ERROR(agent_->Send(End{begin_.context_id}));
    return true;
  }

  const Outcome& outcome() const { return outcome_; }

 private:
  TestAgent* const agent_;
  const Begin begin_;
  Smbd smbd_;
  SmbConnection smb_;
  Token token_;
  Outcome outcome_;
};

Begin BeginFor(uint64_t id, const std::string& user, const std::string& password) {
  return {.context_id = id,
          .mechanism = Mechanism::kNtlm,
          .target_host = "localhost",
          .user = user,
          .password = Secret(password),
          .krb5_config_path = "/mnt/krb5.conf"};
}

absl::StatusOr<Outcome> LogOnWith(TestAgent& agent, Begin begin) {
  Session session(&agent, std::move(begin));
  RETURN_IF_ERROR(session.Start());
  while (true) {
    ASSIGN_OR_RETURN(const bool over, session.Next());
    if (over) return session.outcome();
  }
}

void ExpectLoggedOn(const absl::StatusOr<Outcome>& outcome,
                    Mechanism mechanism = Mechanism::kNtlm) {
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(outcome->status, NtStatus::kSuccess);
  EXPECT_EQ(outcome->mechanism, mechanism);
  EXPECT_TRUE(outcome->reply_signed_right);
  EXPECT_EQ(outcome->session_flags, 0) << "guest or anonymous";
  EXPECT_EQ(outcome->tree_connect, NtStatus::kSuccess);
}

TEST(AuthSambaTest, RightPassword) {
  TestAgent agent;
  ExpectLoggedOn(LogOnWith(agent, BeginFor(1, kUser, kPassword)));
}

TEST(AuthSambaTest, DomainInEverySpelling) {
  TestAgent agent;
  Begin begin = BeginFor(1, kUser, kPassword);
  begin.domain = "AUTHTEST";
  ExpectLoggedOn(LogOnWith(agent, begin));
  ExpectLoggedOn(LogOnWith(agent, BeginFor(2, absl::StrCat("AUTHTEST;", kUser), kPassword)));
  ExpectLoggedOn(LogOnWith(agent, BeginFor(3, absl::StrCat("AUTHTEST\\", kUser), kPassword)));
}

TEST(AuthSambaTest, NegotiateUsesNtlmWhereThereIsNoRealm) {
  TestAgent agent;
  Begin begin = BeginFor(1, kUser, kPassword);
  begin.mechanism = Mechanism::kNegotiate;
  ExpectLoggedOn(LogOnWith(agent, begin));
}

TEST(AuthSambaTest, WrongPasswordIsOneLogonFailure) {
  TestAgent agent;
  for (const auto mechanism : {Mechanism::kNtlm, Mechanism::kNegotiate}) {
    Begin begin = BeginFor(1, kUser, "wrong");
    begin.mechanism = mechanism;
    const auto outcome = LogOnWith(agent, begin);
    ASSERT_TRUE(outcome.ok()) << outcome.status();
    EXPECT_EQ(outcome->status, NtStatus::kLogonFailure);
  }
  // The child is as good as before.
  ExpectLoggedOn(LogOnWith(agent, BeginFor(2, kUser, kPassword)));
}

TEST(AuthSambaTest, UnknownUserIsOneLogonFailure) {
  TestAgent agent;
  const auto outcome = LogOnWith(agent, BeginFor(1, "nobody-of-that-name", kPassword));
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_EQ(outcome->status, NtStatus::kLogonFailure);
}

// The KDC is ours, the server Samba with Heimdal's Kerberos: keys of 32 bytes, of which SMB
// takes 16.
TEST(AuthSambaTest, Kerberos) {
  auto kdc = testing::Kdc::Start("LAB.TEST");
  ASSERT_TRUE(kdc.ok()) << kdc.status();
  (*kdc)->SetPassword(kUser, "of the realm");
  (*kdc)->SetPassword("cifs/fs1.lab.test", "of the server");
  std::ofstream("/mnt/keytab") << (*kdc)->Keytab("cifs/fs1.lab.test");
  std::ofstream("/mnt/kdc.conf") << (*kdc)->Config();
  TestAgent agent;
  for (const auto mechanism : {Mechanism::kKerberos, Mechanism::kNegotiate}) {
    Begin begin = BeginFor(1, kUser, "of the realm");
    begin.mechanism = mechanism;
    begin.target_host = "fs1.lab.test";
    begin.krb5_config_path = "/mnt/kdc.conf";
    ExpectLoggedOn(LogOnWith(agent, begin), Mechanism::kKerberos);
  }
}

TEST(AuthSambaTest, TwoSessionsInterleaved) {
  TestAgent agent;
  Session one(&agent, BeginFor(1, kUser, kPassword));
  Session two(&agent, BeginFor(2, kUser, kPassword));
  ASSERT_TRUE(one.Start().ok());
  ASSERT_TRUE(two.Start().ok());
  bool over = false;
  while (!over) {
    const auto two_over = two.Next();
    const auto one_over = one.Next();
    ASSERT_TRUE(one_over.ok()) << one_over.status();
    ASSERT_TRUE(two_over.ok()) << two_over.status();
    ASSERT_EQ(*one_over, *two_over);
    over = *one_over;
  }
  ExpectLoggedOn(one.outcome());
  ExpectLoggedOn(two.outcome());
}

TEST(AuthSambaTest, ChildKilledInTheMiddle) {
  auto agent = std::make_unique<TestAgent>();
  Session session(agent.get(), BeginFor(1, kUser, kPassword));
  ASSERT_TRUE(session.Start().ok());
  agent->child().Kill();
  EXPECT_EQ(session.Next().status().code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(agent->WaitForEnd());
  // A new child starts over.
  TestAgent next;
  ExpectLoggedOn(LogOnWith(next, BeginFor(1, kUser, kPassword)));
}

const auto* const kEnvironment =
    ::testing::AddGlobalTestEnvironment(std::make_unique<SambaEnvironment>().release());

}  // namespace
}  // namespace dfscsi::smb::auth
