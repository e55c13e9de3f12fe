#include "node-agent/testing/ntlm_acceptor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "node-agent/smb/auth/log_on.h"

namespace dfscsi::testing {
namespace {

using smb::auth::Begin;
using smb::auth::Failure;
using smb::auth::KerberosClient;
using smb::auth::LogOn;
using smb::auth::Mechanism;
using smb::auth::Reply;
using smb::auth::Step;
using smb::auth::Token;

class NtlmAcceptorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto acceptor = NtlmAcceptor::Create({{"LAB", "ann", "right"}, {"LAB", "bob", "other"}});
    ASSERT_TRUE(acceptor.ok()) << acceptor.status();
    acceptor_ = *std::move(acceptor);
  }

  // Our client's side against the acceptor, until one of them ends it.
  absl::StatusOr<NtlmReply> Run(const std::string& user, const std::string& domain,
                                const std::string& password, Secret* client_key) {
    LogOn client;
    KerberosClient kerberos;
    auto server = *acceptor_->NewExchange("fs1");
    Reply ours = client.Start({.mechanism = Mechanism::kNtlm,
                               .target_host = "fs1",
                               .user = user,
                               .domain = domain,
                               .password = Secret(password)},
                              &kerberos);
    while (true) {
      if (const auto* failure = std::get_if<Failure>(&ours)) {
        return absl::InternalError(failure->message);
      }
      auto theirs = server->Accept(std::get<Token>(ours).token.Expose());
      if (!theirs.ok()) return theirs;
      ours = client.Continue(Step{.token = Secret(theirs->token)});
      if (const auto* token = std::get_if<Token>(&ours); token != nullptr && theirs->complete) {
        EXPECT_TRUE(token->complete);
        *client_key = token->session_key;
        return theirs;
      }
    }
  }

  std::unique_ptr<NtlmAcceptor> acceptor_;
};

TEST_F(NtlmAcceptorTest, RightPasswordGivesBothSidesOneKey) {
  Secret key;
  const auto reply = Run("ann", "LAB", "right", &key);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->user, "LAB\\ann");
  EXPECT_EQ(key.Expose().size(), 16u);
  EXPECT_TRUE(key == reply->session_key);
}

TEST_F(NtlmAcceptorTest, WrongPasswordAndUnknownUserAreUnauthenticated) {
  Secret key;
  EXPECT_EQ(Run("ann", "LAB", "wrong", &key).status().code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(Run("eve", "LAB", "right", &key).status().code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(Run("bob", "LAB", "right", &key).status().code(), absl::StatusCode::kUnauthenticated);
}

TEST_F(NtlmAcceptorTest, DomainMayBeLeftOut) {
  Secret key;
  const auto reply = Run("ann", "", "right", &key);
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->user, "ann");
  EXPECT_EQ(Run("ann", "", "wrong", &key).status().code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(Run("ann", "OTHER", "right", &key).status().code(), absl::StatusCode::kUnauthenticated);
}

TEST_F(NtlmAcceptorTest, GarbageIsNoToken) {
  EXPECT_EQ((*acceptor_->NewExchange("fs1"))->Accept("garbage").status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace dfscsi::testing
