#include "node-agent/dfs/dialer.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/runtime/network.h"

namespace dfscsi::dfs {

using runtime::Deadline;
using runtime::Task;

namespace {

// Of host@port.
std::string NameOf(const std::string& host) { return host.substr(0, host.find('@')); }

}  // namespace

Dialer::Dialer(smb::SessionPool& sessions, smb::Credential credential, AllowedTargets allowed)
    : sessions_(sessions),
      credential_(std::move(credential)),
      identity_(credential_.Identity()),
      allowed_(std::move(allowed)) {}

absl::Status Dialer::CheckHost(absl::string_view host) const {
  if (allowed_.AllowsHost(host)) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat(
      "a referral leads to ", host, ", which may not be given the credential (allowed_targets)"));
}

absl::Status Dialer::CheckAddress(absl::string_view host, const runtime::IpAddress& address) const {
  const std::vector<runtime::IpAddress> own = runtime::Loop::Current().network().OwnAddresses();
  const bool is_own = std::find(own.begin(), own.end(), address) != own.end();
  if (allowed_.AllowsAddress(address.ToString(), is_own)) return absl::OkStatus();
  return absl::PermissionDeniedError(
      absl::StrCat("a referral leads to ", host, ", which is ", address.ToString(),
                   ": this machine may not be given the credential (allow_local_targets)"));
}

Task<absl::StatusOr<std::shared_ptr<smb::Tree>>> Dialer::GetTree(std::string host,
                                                                 std::string share,
                                                                 smb::ConnectRules rules,
                                                                 smb::ConnectPhase* phase,
                                                                 Deadline deadline) {
  *phase = smb::ConnectPhase::kResolve;
  const std::string name = NameOf(host);
  CO_RETURN_IF_ERROR(CheckHost(name));
  rules.may_connect = RulesFor(name).may_connect;
  co_return co_await sessions_.GetTree(std::move(host), std::move(share), credential_, phase,
                                       deadline, std::move(rules));
}

Task<absl::Status> Dialer::EndSession(std::string host, uint64_t session_id, Deadline deadline) {
  const std::string name = NameOf(host);
  CO_RETURN_IF_ERROR(CheckHost(name));
  co_return co_await sessions_.EndSession(std::move(host), credential_, session_id, deadline,
                                          RulesFor(name));
}

smb::ConnectRules Dialer::RulesFor(const std::string& name) const {
  smb::ConnectRules rules;
  if (!allowed_.IsMountedHost(name)) {
    rules.may_connect = [this, name](const runtime::IpAddress& address) {
      return CheckAddress(name, address);
    };
  }
  return rules;
}

bool Dialer::HasSession(absl::string_view host, const smb::Session* avoid) const {
  const std::shared_ptr<smb::Session> session = sessions_.Find(std::string(host), identity_);
  return session != nullptr && session.get() != avoid;
}

}  // namespace dfscsi::dfs
