// The language in which a file, or somebody at the program's input, describes a scripted server.
//
// One command per line; '#' begins a comment; a word with blanks stands in double quotes.
//
//   listen 127.0.0.1:1445             an address; [::1]:445 for IPv6
//   user NAME PASSWORD                of the tests' own log-on
//   ntlm NAME PASSWORD [DOMAIN]       of NTLM, which then replaces it
//   option NAME [VALUE]               ServerOptions: signing_required, encrypt_sessions, guests,
//                                     dfs, referrals_ex, large_mtu, silent, leases, appends,
//                                     splits_compounds, drops_bad_signatures (on or off; on if left
//                                     out); lowest_dialect, highest_dialect (2.1 3.0 3.0.2 3.1.1);
//                                     signing (hmac cmac gmac …); ciphers (128-ccm 128-gcm …);
//                                     max_read, max_write, max_transact, most_written,
//                                     most_credits, durable_seconds
//   share NAME [root] [encrypt] [writable] [persistent] [posix]
//                                     what follows is in it; a share of that name is entered again
//     dir PATH
//     file PATH SIZE [VERSION]        generated content
//     files PATH COUNT SIZE           PATH0, PATH1, …
//     text PATH TEXT
//     symlink PATH TARGET
//     link PATH [ttl=SECONDS] [version=1..4] [interlink] [failback] [TARGET… [/ TARGET…]]
//                                     TARGET is server/share[/path]; "/" begins a target set
//     targets [as above]              the referral for the share itself
//     deny PATH                       ACCESS_DENIED
//     order NUMBER                    another order of listings
//     remove PATH
//     connect_status STATUS           TREE_CONNECT's answer
//   domain NAME CONTROLLER…           answers DOMAIN and DC referrals
//   rule [command=NAME] [fsctl=NUMBER] [share=NAME] [path=PATH] [skip=N] [times=N]
//        [status=STATUS] [delay=DURATION] [pending] [drop] [ignore] [copies=N] [message_id=N]
//        [credits=N] [bad_signature] [unsigned] [truncate=BYTES] [close] [reset]
//   clear                             all rules
//   expire | delete_sessions          the sessions
//   disconnect SHARE                  its trees
//   close | reset                     all connections
//   counts                            says what was asked so far; forget: starts again from 0

#ifndef NODE_AGENT_TESTING_SCRIPTED_CONFIG_H_
#define NODE_AGENT_TESTING_SCRIPTED_CONFIG_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "node-agent/runtime/network.h"
#include "node-agent/testing/scripted_server.h"

namespace dfscsi::testing {

class ScriptedConfig {
 public:
  struct NtlmAccount {
    std::string name;
    std::string password;
    std::string domain;
  };

  explicit ScriptedConfig(ScriptedServer& server) : server_(server) {}

  // Does what one line says. Returns what it has to tell, mostly nothing. kInvalidArgument: the
  // line means nothing; it names the word.
  absl::StatusOr<std::string> Apply(std::string_view line);
  // All lines of a text; the error names the line.
  absl::Status ApplyAll(std::string_view text);

  const std::vector<runtime::SocketAddress>& listen() const { return listen_; }
  const std::vector<NtlmAccount>& ntlm_accounts() const { return ntlm_accounts_; }

 private:
  using Words = std::vector<std::string>;

  absl::Status Option(const Words& words);
  absl::Status Share(const Words& words);
  absl::Status InShare(const Words& words);
  absl::Status AddRule(const Words& words);
  std::string Counts() const;

  ScriptedServer& server_;
  ScriptedShare* share_ = nullptr;
  std::vector<runtime::SocketAddress> listen_;
  std::vector<NtlmAccount> ntlm_accounts_;
};

}  // namespace dfscsi::testing

#endif  // NODE_AGENT_TESTING_SCRIPTED_CONFIG_H_
