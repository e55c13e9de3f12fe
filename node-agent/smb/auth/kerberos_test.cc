// Kerberos log-ons of dfs-auth: tickets from a KDC in this process, and MIT's own acceptor as the
// server.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <krb5.h>
#include <stdlib.h>
#include <unistd.h>

#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <variant>

#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/smb/auth/auth_test_agent.h"
#include "node-agent/smb/auth/gss_authenticator.h"
#include "node-agent/smb/auth/gss_handles.h"
#include "node-agent/smb/auth/kerberos_tickets.h"
#include "node-agent/smb/secret_refused.h"
#include "node-agent/testing/kdc.h"

extern "C" const char* __lsan_default_suppressions() {  // NOLINT(bugprone-reserved-identifier)
  return "leak:libkrb5.so\nleak:libgssapi_krb5.so\n";
}

namespace dfscsi::smb::auth {
namespace {

using ::testing::HasSubstr;

constexpr char kHost[] = "fs1.lab.test";
constexpr char kService[] = "cifs/fs1.lab.test";

// A file server that knows its own key.
class Server {
 public:
  explicit Server(const std::string& keytab) : keytab_(MemoryFile(keytab)) {
    const std::string name = absl::StrCat("FILE:", NameOf(keytab_));
    gss_key_value_element_desc element = {"keytab", name.c_str()};
    const gss_key_value_set_desc store = {1, &element};
    gss_OID_desc spnego_oid = {6, const_cast<char*>("\x2b\x06\x01\x05\x05\x02")};
    gss_OID_set_desc spnego = {1, &spnego_oid};
    OM_uint32 minor = 0;
    EXPECT_EQ(gss_acquire_cred_from(&minor, GSS_C_NO_NAME, GSS_C_INDEFINITE, &spnego, GSS_C_ACCEPT,
                                    &store, credential_.address(), nullptr, nullptr),
              GSS_S_COMPLETE);
  }

  // Its answer; sets user and session_key when it accepts.
  absl::StatusOr<std::string> Accept(const Secret& token) {
    gss_buffer_desc in = ViewOf(token.Expose());
    GssBuffer out;
    GssName client;
    OM_uint32 minor = 0;
    const OM_uint32 major = gss_accept_sec_context(
        &minor, context_.address(), credential_.get(), &in, GSS_C_NO_CHANNEL_BINDINGS,
        client.address(), nullptr, out.address(), nullptr, nullptr, nullptr);
    error_token = std::string(out.bytes());
    if (GSS_ERROR(major)) return absl::UnauthenticatedError(absl::StrCat(major, " ", minor));
    if (major == GSS_S_COMPLETE) {
      GssBuffer name;
      gss_display_name(&minor, client.get(), name.address(), nullptr);
      user = std::string(name.bytes());
      GssBufferSet keys;
      gss_inquire_sec_context_by_oid(&minor, context_.get(), GSS_C_INQ_SSPI_SESSION_KEY,
                                     keys.address());
      session_key = std::string(static_cast<const char*>(keys.get()->elements[0].value),
                                keys.get()->elements[0].length);
    }
    return std::string(out.bytes());
  }

  std::string user;
  std::string session_key;
  std::string error_token;  // What it would send with its refusal.

 private:
  const UniqueFd keytab_;
  GssCredential credential_;
  GssContext context_;
};

class KerberosTest : public ::testing::Test {
 protected:
  void SetUp() override {
    setenv("KRB5RCACHENAME",
           "none:", 1);  // The acceptor's; the child has an environment of its own.
    auto kdc = testing::Kdc::Start("LAB.TEST");
    ASSERT_TRUE(kdc.ok()) << kdc.status();
    kdc_ = *std::move(kdc);
    kdc_->SetPassword("ann", "right");
    kdc_->SetPassword(kService, "of the server");
    config_path_ = absl::StrCat(::testing::TempDir(), "/krb5.conf.", getpid());
    std::ofstream(config_path_) << kdc_->Config();
  }
  void TearDown() override {
    unlink(config_path_.c_str());
    unlink(CachePath().c_str());
  }

  Begin BeginFor(const std::string& user, const std::string& password) {
    return {.context_id = 1,
            .mechanism = Mechanism::kKerberos,
            .target_host = kHost,
            .user = user,
            .password = Secret(password),
            .krb5_config_path = config_path_};
  }

  // The whole log-on; the client's last token.
  absl::StatusOr<Token> LogOnWith(Begin begin, Server* server) {
    begin.context_id = ++last_id_;
    ASSIGN_OR_RETURN(Token token, agent_.AskToken(begin));
    while (!token.complete) {
      ASSIGN_OR_RETURN(const std::string reply, server->Accept(token.token));
      ASSIGN_OR_RETURN(token, agent_.AskToken(Step{begin.context_id, Secret(reply)}));
    }
    EXPECT_TRUE(token.token.empty());
    RETURN_IF_ERROR(agent_.Send(End{begin.context_id}));
    return token;
  }

  void ExpectLoggedOn(const Begin& begin) {
    Server server(kdc_->Keytab(kService));
    const auto token = LogOnWith(begin, &server);
    ASSERT_TRUE(token.ok()) << token.status();
    EXPECT_EQ(token->mechanism, Mechanism::kKerberos);
    EXPECT_EQ(token->session_key.Expose().size(), 32u);
    EXPECT_EQ(token->session_key.Expose(), server.session_key);
    EXPECT_EQ(server.user, "ann@LAB.TEST");
  }

  std::string ErrorOf(const Begin& begin) {
    return std::string(agent_.AskToken(begin).status().message());
  }

  std::string CachePath() { return config_path_ + ".ccache"; }
  // A credential cache with ann's ticket-granting ticket, as kinit would write it.
  std::string MakeCcache();

  std::unique_ptr<testing::Kdc> kdc_;
  std::string config_path_;
  TestAgent agent_;
  uint64_t last_id_ = 100;
};

std::string KerberosTest::MakeCcache() {
  setenv("KRB5_CONFIG", config_path_.c_str(), 1);
  krb5_context context = nullptr;
  krb5_principal ann = nullptr;
  krb5_ccache cache = nullptr;
  krb5_creds creds = {};
  EXPECT_EQ(krb5_init_context(&context), 0);
  EXPECT_EQ(krb5_parse_name(context, "ann@LAB.TEST", &ann), 0);
  EXPECT_EQ(krb5_get_init_creds_password(context, &creds, ann, "right", nullptr, nullptr, 0,
                                         nullptr, nullptr),
            0);
  EXPECT_EQ(krb5_cc_resolve(context, absl::StrCat("FILE:", CachePath()).c_str(), &cache), 0);
  EXPECT_EQ(krb5_cc_initialize(context, cache, ann), 0);
  EXPECT_EQ(krb5_cc_store_cred(context, cache, &creds), 0);
  krb5_cc_close(context, cache);
  krb5_free_cred_contents(context, &creds);
  krb5_free_principal(context, ann);
  krb5_free_context(context);
  std::ifstream file(CachePath(), std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST_F(KerberosTest, PasswordInEverySpellingOfTheName) {
  ExpectLoggedOn(BeginFor("ann", "right"));
  ExpectLoggedOn(BeginFor("ann@LAB.TEST", "right"));
  ExpectLoggedOn(BeginFor("ann@lab.test", "right"));
  ExpectLoggedOn(BeginFor("lab.test\\ann", "right"));
  ExpectLoggedOn(BeginFor("LAB\\ann", "right"));  // A NetBIOS domain: the default realm.
}

TEST_F(KerberosTest, LifetimeIsTheTickets) {
  kdc_->SetTicketLife(absl::Minutes(20));
  Server server(kdc_->Keytab(kService));
  const auto token = LogOnWith(BeginFor("ann", "right"), &server);
  ASSERT_TRUE(token.ok()) << token.status();
  EXPECT_LE(token->lifetime, absl::Minutes(20));
  EXPECT_GE(token->lifetime, absl::Minutes(18));
}

TEST_F(KerberosTest, TicketsAreKeptUntilTheyNearTheirEnd) {
  ExpectLoggedOn(BeginFor("ann", "right"));
  ExpectLoggedOn(BeginFor("ann", "right"));
  EXPECT_EQ(kdc_->pre_authentications(), 1);
  EXPECT_EQ(kdc_->service_tickets(), 1);
  // The server said "expired", whatever our clock says.
  Begin renew = BeginFor("ann", "right");
  renew.renew = true;
  ExpectLoggedOn(renew);
  EXPECT_EQ(kdc_->pre_authentications(), 2);
  EXPECT_EQ(kdc_->service_tickets(), 2);
  // With less than five minutes left a ticket is replaced.
  kdc_->SetTicketLife(absl::Minutes(4));
  ExpectLoggedOn(renew);
  kdc_->SetTicketLife(absl::Hours(8));
  ExpectLoggedOn(BeginFor("ann", "right"));
  EXPECT_EQ(kdc_->pre_authentications(), 4);
}

TEST_F(KerberosTest, KeptTicketsAreForTheirPasswordOnly) {
  ExpectLoggedOn(BeginFor("ann", "right"));
  EXPECT_THAT(ErrorOf(BeginFor("ann", "wrong")), HasSubstr("bad_credentials"));
}

TEST_F(KerberosTest, Keytab) {
  Begin begin = BeginFor("ann", "");
  begin.keytab = Secret(kdc_->Keytab("ann"));
  ExpectLoggedOn(begin);
  begin.user = "";  // The keytab says who it is.
  ExpectLoggedOn(begin);
}

TEST_F(KerberosTest, CredentialCache) {
  Begin begin = BeginFor("", "");
  begin.ccache = Secret(MakeCcache());
  const int before = kdc_->pre_authentications();
  ExpectLoggedOn(begin);
  begin.user = "ann";
  ExpectLoggedOn(begin);
  EXPECT_EQ(kdc_->pre_authentications(), before) << "its ticket is not used";
}

TEST_F(KerberosTest, ExpiredCredentialCache) {
  kdc_->SetTicketLife(absl::Seconds(-60));
  kdc_->SetClockOffset(absl::Seconds(-120));
  Begin begin = BeginFor("", "");
  begin.ccache = Secret(MakeCcache());
  EXPECT_THAT(ErrorOf(begin), HasSubstr("bad_credentials: log-on of ? at fs1.lab.test: the "
                                        "credential cache of ann@LAB.TEST: Ticket expired"));
}

// Only what counts towards a lockout: see agent/guarded_sessions.h.
TEST_F(KerberosTest, OnlyAPasswordThatTheKdcRefusedIsARefusedSecret) {
  Begin elsewhere = BeginFor("ann", "right");
  elsewhere.target_host = "fs2.lab.test";
  const struct {
    Begin begin;
    bool refused;
  } kRows[] = {{BeginFor("ann", "wrong"), true},
               {BeginFor("eve", "x"), false},
               {BeginFor("ann@OTHER.TEST", "x"), false},
               {BeginFor("ann", ""), false},
               {elsewhere, false}};
  for (const auto& row : kRows) {
    ASSERT_TRUE(agent_.Send(row.begin).ok());
    const absl::StatusOr<Reply> reply = agent_.Receive();
    ASSERT_TRUE(reply.ok()) << reply.status();
    ASSERT_TRUE(std::holds_alternative<Failure>(*reply));
    const absl::Status status = StatusOf(std::get<Failure>(*reply));
    EXPECT_EQ(IsSecretRefused(status), row.refused) << status;
    if (row.refused) EXPECT_TRUE(absl::IsUnauthenticated(status)) << status;
  }
}

TEST_F(KerberosTest, ErrorsOfTheKdc) {
  EXPECT_EQ(ErrorOf(BeginFor("ann", "wrong")),
            "bad_credentials: log-on of ann at fs1.lab.test: Kerberos log-on of ann@LAB.TEST: "
            "Preauthentication failed");
  EXPECT_EQ(kdc_->pre_authentications(), 1) << "one try per log-on, or accounts are locked early";
  EXPECT_THAT(ErrorOf(BeginFor("eve", "x")), HasSubstr("bad_credentials: "));
  Begin elsewhere = BeginFor("ann", "right");
  elsewhere.target_host = "fs2.lab.test";
  EXPECT_THAT(ErrorOf(elsewhere), HasSubstr("no_mechanism: log-on of ann at fs2.lab.test: Kerberos "
                                            "ticket for cifs/fs2.lab.test: "));
  EXPECT_THAT(ErrorOf(BeginFor("ann@OTHER.TEST", "x")), HasSubstr("no_kdc: "));
}

// The client's clock is taken to be wrong as long as only the KDC says so; then the server does.
TEST_F(KerberosTest, ClockSkew) {
  kdc_->SetClockOffset(absl::Hours(1));
  Server server(kdc_->Keytab(kService));
  const auto token = agent_.AskToken(BeginFor("ann", "right"));
  ASSERT_TRUE(token.ok()) << token.status();
  EXPECT_FALSE(server.Accept(token->token).ok());
  ASSERT_FALSE(server.error_token.empty());
  EXPECT_THAT(std::string(agent_.AskToken(Step{1, Secret(server.error_token)}).status().message()),
              HasSubstr("clock_skew: "));
}

TEST_F(KerberosTest, NoKdcAnswers) {
  kdc_.reset();
  EXPECT_EQ(
      ErrorOf(BeginFor("ann", "right")),
      "no_kdc: log-on of ann at fs1.lab.test: Kerberos log-on of ann@LAB.TEST: Cannot contact "
      "any KDC for realm 'LAB.TEST'");
}

TEST_F(KerberosTest, UnreadableTicketFiles) {
  Begin begin = BeginFor("ann", "");
  begin.keytab = Secret("no keytab");
  EXPECT_THAT(ErrorOf(begin),
              HasSubstr("bad_credentials: log-on of ann at fs1.lab.test: the keytab "
                        "cannot be read: "));
  begin.keytab = Secret();
  begin.ccache = Secret("no ccache");
  EXPECT_THAT(ErrorOf(begin), HasSubstr("bad_credentials: log-on of ann at fs1.lab.test: the "
                                        "credential cache cannot be read: "));
}

TEST_F(KerberosTest, ConfigurationOfTheFirstLogOnCounts) {
  Begin begin = BeginFor("ann", "right");
  begin.krb5_config_path = "/nonexistent/krb5.conf";
  EXPECT_EQ(ErrorOf(begin), "no_kdc: /nonexistent/krb5.conf: No such file or directory");
  ExpectLoggedOn(BeginFor("ann", "right"));
  begin.krb5_config_path = "/etc/passwd";
  EXPECT_EQ(ErrorOf(begin), "protocol: log-on: this child serves another krb5.conf");
}

TEST_F(KerberosTest, AddressesHaveNoTickets) {
  for (const char* address : {"127.0.0.1", "::1", "[::1]", "fe80::1%eth0"}) {
    Begin begin = BeginFor("ann", "right");
    begin.target_host = address;
    EXPECT_THAT(ErrorOf(begin), HasSubstr("no_mechanism: ")) << address;
  }
  EXPECT_EQ(kdc_->pre_authentications(), 0);
}

TEST_F(KerberosTest, WrongServerKeyIsRefused) {
  testing::Kdc& kdc = *kdc_;
  Server server(kdc.Keytab(kService));
  const auto token = agent_.AskToken(BeginFor("ann", "right"));
  ASSERT_TRUE(token.ok());
  kdc.SetPassword(kService, "changed");
  Server impostor(kdc.Keytab(kService));
  EXPECT_FALSE(impostor.Accept(token->token).ok());
}

// An AP-REP of another session: the server has not shown that it knows this session's key.
TEST_F(KerberosTest, ReplayedServerTokenIsRefused) {
  Server one(kdc_->Keytab(kService));
  Server two(kdc_->Keytab(kService));
  Begin begin = BeginFor("ann", "right");
  const auto first = agent_.AskToken(begin);
  begin.context_id = 2;
  const auto second = agent_.AskToken(begin);
  ASSERT_TRUE(first.ok() && second.ok());
  const auto old_reply = one.Accept(first->token);
  ASSERT_TRUE(old_reply.ok());
  EXPECT_THAT(std::string(agent_.AskToken(Step{2, Secret(*old_reply)}).status().message()),
              HasSubstr("protocol: "));
}

TEST_F(KerberosTest, NegotiatePrefersKerberos) {
  Begin begin = BeginFor("ann", "right");
  begin.mechanism = Mechanism::kNegotiate;
  ExpectLoggedOn(begin);
}

TEST_F(KerberosTest, NegotiateFallsBackToNtlmWithoutTicket) {
  Begin begin = BeginFor("ann", "right");
  begin.mechanism = Mechanism::kNegotiate;
  begin.target_host = "nas.lab.test";  // The KDC does not know it.
  auto token = agent_.AskToken(begin);
  ASSERT_TRUE(token.ok()) << token.status();
  EXPECT_EQ(token->mechanism, Mechanism::kNtlm);
  begin.context_id = 2;
  begin.user = "local-user";  // Nor this one: an account of the server's own.
  token = agent_.AskToken(begin);
  ASSERT_TRUE(token.ok()) << token.status();
  EXPECT_EQ(token->mechanism, Mechanism::kNtlm);
  kdc_.reset();
  begin.context_id = 3;
  begin.user = "ann";
  begin.renew = true;
  token = agent_.AskToken(begin);
  ASSERT_TRUE(token.ok()) << token.status();
  EXPECT_EQ(token->mechanism, Mechanism::kNtlm);
}

TEST_F(KerberosTest, NegotiateDoesNotTryARefusedPasswordAgain) {
  Begin begin = BeginFor("ann", "wrong");
  begin.mechanism = Mechanism::kNegotiate;
  EXPECT_THAT(ErrorOf(begin), HasSubstr("bad_credentials: "));
  EXPECT_EQ(kdc_->pre_authentications(), 1);
}

TEST_F(KerberosTest, NegotiateWithoutPasswordIsKerberosAlone) {
  Begin begin = BeginFor("", "");
  begin.mechanism = Mechanism::kNegotiate;
  begin.keytab = Secret(kdc_->Keytab("ann"));
  ExpectLoggedOn(begin);
  begin.target_host = "nas.lab.test";
  EXPECT_THAT(ErrorOf(begin), HasSubstr("no_mechanism: "));
}

}  // namespace
}  // namespace dfscsi::smb::auth
