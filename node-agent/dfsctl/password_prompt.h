// The question for a password at a terminal.

#ifndef NODE_AGENT_DFSCTL_PASSWORD_PROMPT_H_
#define NODE_AGENT_DFSCTL_PASSWORD_PROMPT_H_

#include <string>

#include "absl/status/statusor.h"
#include "node-agent/base/secret.h"

namespace dfscsi::dfsctl {

// Asks at the controlling terminal, which shows nothing of the answer. Ctrl-C and other signals
// that end the program leave the terminal as it was. Not thread-safe: before any thread is started.
// InvalidArgument: there is no terminal, or the answer is no line.
absl::StatusOr<Secret> AskForPassword(const std::string& question);

}  // namespace dfscsi::dfsctl

#endif  // NODE_AGENT_DFSCTL_PASSWORD_PROMPT_H_
