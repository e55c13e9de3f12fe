// What the commands have in common that need no mount: SMB and DFS in this process.

#ifndef NODE_AGENT_DFSCTL_DIRECT_CALL_H_
#define NODE_AGENT_DFSCTL_DIRECT_CALL_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "node-agent/agent/failure.h"
#include "node-agent/dfs/client.h"
#include "node-agent/dfs/path.h"
#include "node-agent/runtime/real_loop.h"
#include "node-agent/runtime/task.h"
#include "node-agent/smb/auth/gss_authenticator.h"
#include "node-agent/smb/session_pool.h"

namespace dfscsi::dfsctl {

// How long a server may take to answer: an error is to be told within 20 s.
inline constexpr absl::Duration kAnswerTime = absl::Seconds(15);

// The words of one command.
struct DirectCall {
  std::vector<std::string> positional;
  smb::Credential credential;
  smb::Options options;
  bool flag = false;
};

// Flags: -o OPTIONS, --credentials FILE (which must be there), and `own_flag` (-r or -p; empty:
// none). Errors have the reason BAD_ARGUMENT: also fewer than `least` or more than `most` other
// words, `needed` says which they are.
absl::StatusOr<DirectCall> ParseDirectCall(const std::vector<std::string>& arguments,
                                           std::string_view own_flag, size_t least, size_t most,
                                           std::string_view needed);

// //host[@port]/share[/path], names as a mount has them (a colon is one of a name, and begins no
// stream). A port goes to call.options; not more than one host may have one.
absl::StatusOr<dfs::DfsPath> ParseSource(const std::string& text, DirectCall* call);

// An error of this program's own, with a reason, which DirectContext::Run keeps.
absl::Status Refused(const std::string& what, agent::v1::FailureReason reason);
// The error is told of this path, and not of the one on the command line.
absl::Status Of(const dfs::DfsPath& path, const absl::Status& status);

// What such a command runs on. Not thread-safe. Dies before what its clients are made of is gone.
class DirectContext {
 public:
  explicit DirectContext(const DirectCall& call);

  // The namespace that `source` is in, as the call's credential sees it.
  std::unique_ptr<dfs::Client> MakeClient(const dfs::DfsPath& source);
  // Runs `task` to its end. Its error gets a reason, and is told of `source` (empty: it has both).
  absl::Status Run(const std::string& source, runtime::Task<absl::Status> task);

 private:
  const smb::Credential credential_;
  runtime::RealLoop loop_;
  smb::auth::GssAuthenticatorFactory authenticators_;
  smb::SessionPool pool_;
  dfs::ReferralCache cache_;
  dfs::DomainCache domains_;
  dfs::TargetHealthTable health_;
};

}  // namespace dfscsi::dfsctl

#endif  // NODE_AGENT_DFSCTL_DIRECT_CALL_H_
