// scripted-smb-server CONFIG: a scripted SMB2 server for end-to-end tests.
//
// The configuration and the lines on its input are of scripted_config.h. Each line of input is
// answered by what it has to tell and a line "ok", or by one line "error: …". At the end of its
// input it goes on serving. It says "listening ADDRESS" for each address once it serves there.

#include <stdio.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "node-agent/runtime/real_loop.h"
#include "node-agent/testing/ntlm_acceptor.h"
#include "node-agent/testing/scripted_config.h"
#include "node-agent/testing/scripted_server.h"

namespace dfscsi::testing {
namespace {

using runtime::Deadline;
using runtime::Task;

// NTLM in the place of the passwords.
class NtlmLogOn final : public LogOnAcceptor {
 public:
  NtlmLogOn(std::unique_ptr<NtlmAcceptor> acceptor, std::string host)
      : acceptor_(std::move(acceptor)), host_(std::move(host)) {}

  std::unique_ptr<LogOnExchange> Begin() override {
    return std::make_unique<Exchange>(acceptor_->NewExchange(host_));
  }

 private:
  class Exchange final : public LogOnExchange {
   public:
    explicit Exchange(absl::StatusOr<std::unique_ptr<NtlmExchange>> exchange)
        : exchange_(std::move(exchange)) {}
    absl::StatusOr<LogOnReply> Accept(std::string_view token) override {
      if (!exchange_.ok()) return exchange_.status();
      absl::StatusOr<NtlmReply> reply = (*exchange_)->Accept(token);
      if (!reply.ok()) return reply.status();
      return LogOnReply{.token = std::move(reply->token),
                        .complete = reply->complete,
                        .session_key = std::move(reply->session_key),
                        .user = std::move(reply->user)};
    }

   private:
    absl::StatusOr<std::unique_ptr<NtlmExchange>> exchange_;
  };

  std::unique_ptr<NtlmAcceptor> acceptor_;
  std::string host_;
};

absl::Status UseNtlm(const ScriptedConfig& config, const std::string& host,
                     ScriptedServer& server) {
  if (config.ntlm_accounts().empty()) return absl::OkStatus();
  std::vector<NtlmUser> users;
  for (const ScriptedConfig::NtlmAccount& account : config.ntlm_accounts()) {
    users.push_back({account.domain, account.name, account.password});
  }
  absl::StatusOr<std::unique_ptr<NtlmAcceptor>> acceptor = NtlmAcceptor::Create(users);
  if (!acceptor.ok()) return acceptor.status();
  server.set_log_on(std::make_unique<NtlmLogOn>(*std::move(acceptor), host));
  return absl::OkStatus();
}

void Answer(ScriptedConfig& config, const std::string& line) {
  const absl::StatusOr<std::string> said = config.Apply(line);
  if (said.ok()) {
    printf("%sok\n", said->c_str());
  } else {
    printf("error: %s\n", std::string(said.status().message()).c_str());
  }
  fflush(stdout);
}

Task<void> FollowInput(runtime::RealLoop* loop, ScriptedConfig* config) {
  const std::unique_ptr<runtime::FdWatch> watch = loop->Watch(STDIN_FILENO);
  std::string pending;
  while (true) {
    // Ends with the input, or the process.
    if (!(co_await watch->WaitReadable(Deadline::Never())).ok()) co_return;
    char bytes[4096];
    const ssize_t n = read(STDIN_FILENO, bytes, sizeof bytes);
    if (n == 0) co_return;
    if (n < 0) continue;
    pending.append(bytes, static_cast<size_t>(n));
    for (size_t end = pending.find('\n'); end != std::string::npos; end = pending.find('\n')) {
      Answer(*config, pending.substr(0, end));
      pending.erase(0, end + 1);
    }
  }
}

Task<void> ServeAll(runtime::RealLoop* loop, ScriptedServer* server, ScriptedConfig* config,
                    int* result) {
  runtime::TaskGroup serving;
  for (const runtime::SocketAddress& address : config->listen()) {
    serving.Spawn(server->Serve(address));
  }
  // Serve() listens in its first turn, or not at all.
  (void)co_await runtime::Sleep(absl::Milliseconds(1), Deadline::Never());
  for (const runtime::SocketAddress& address : server->listening()) {
    printf("listening %s\n", address.ToString().c_str());
  }
  fflush(stdout);
  if (server->listening().size() != config->listen().size()) {
    *result = 1;
    co_return;
  }
  serving.Spawn(FollowInput(loop, config));
  (void)co_await serving.WaitUntilEmpty(Deadline::Never());  // A signal ends us.
}

int Main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: %s CONFIG\n", argv[0]);
    return 2;
  }
  std::ifstream file(argv[1]);
  std::stringstream text;
  text << file.rdbuf();
  if (!file) {
    fprintf(stderr, "%s: cannot be read\n", argv[1]);
    return 2;
  }
  char host[256] = "scripted";
  (void)gethostname(host, sizeof host - 1);
  ScriptedServer server(host);
  ScriptedConfig config(server);
  absl::Status status = config.ApplyAll(text.str());
  if (status.ok() && config.listen().empty()) {
    status = absl::InvalidArgumentError("no address to listen on");
  }
  if (status.ok()) status = UseNtlm(config, host, server);
  if (!status.ok()) {
    fprintf(stderr, "%s: %s\n", argv[1], std::string(status.message()).c_str());
    return 2;
  }
  int result = 0;
  runtime::RealLoop loop;
  loop.RunUntilDone(ServeAll(&loop, &server, &config, &result));
  return result;
}

}  // namespace
}  // namespace dfscsi::testing

int main(int argc, char** argv) { return dfscsi::testing::Main(argc, argv); }
