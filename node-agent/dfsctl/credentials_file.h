// Credentials as mount.cifs takes them: a file of username=, password=, domain= lines.

#ifndef NODE_AGENT_DFSCTL_CREDENTIALS_FILE_H_
#define NODE_AGENT_DFSCTL_CREDENTIALS_FILE_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "node-agent/smb/credential.h"

namespace dfscsi::dfsctl {

// Errors, all for the user to read: kNotFound, kPermissionDenied (unreadable, or readable by others
// than its owner and group), kInvalidArgument (a line that is none of the three, no user name, what
// CheckCredential refuses).
absl::StatusOr<smb::Credential> ReadCredentialsFile(const std::string& path);

// kInvalidArgument: no server can be asked with it (a user name or password that is not UTF-8,
// names that contradict each other).
absl::Status CheckCredential(const smb::Credential& credential);

// The same from the file's text. `name` is for messages.
absl::StatusOr<smb::Credential> ParseCredentials(absl::string_view text, absl::string_view name);

}  // namespace dfscsi::dfsctl

#endif  // NODE_AGENT_DFSCTL_CREDENTIALS_FILE_H_
