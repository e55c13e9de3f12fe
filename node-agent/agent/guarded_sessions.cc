#include "node-agent/agent/guarded_sessions.h"

#include <algorithm>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "node-agent/base/log.h"
#include "node-agent/smb/secret_refused.h"
#include "node-agent/smb/wire/nt_status.h"

namespace dfscsi::agent {
namespace {

std::string UserOf(const smb::Credential& credential) {
  return credential.domain.empty() ? credential.user
                                   : absl::StrCat(credential.domain, "\\", credential.user);
}

bool IsWrongPassword(const absl::Status& refused) {
  const std::optional<smb::wire::NtStatus> status = smb::wire::NtStatusOf(refused);
  return status == smb::wire::NtStatus::kLogonFailure ||
         status == smb::wire::NtStatus::kWrongPassword;
}

}  // namespace

uint64_t GuardedSessions::KdcKeyOf(const std::string& identity) const {
  return guard_.Key("", identity);  // No server's name; the realm is a part of the identity.
}

uint64_t GuardedSessions::KeyOf(const std::string& host, const std::string& identity) const {
  return guard_.Key(absl::AsciiStrToLower(host), identity);
}

uint64_t GuardedSessions::PreviousSessionId(const std::string& host, const std::string& identity) {
  // A session of this agent's own may be in use: by another pool (mounts whose options differ), or
  // beside the connection that is being made. Ending it would end that one's opens, and the two
  // would go on to end each other.
  const uint64_t key = KeyOf(host, identity);
  return remembered_.count(key) != 0 ? 0 : guard_.PreviousSessionId(key);
}

void GuardedSessions::RememberSessionId(const std::string& host, const std::string& identity,
                                        uint64_t session_id) {
  const uint64_t key = KeyOf(host, identity);
  guard_.Accept(key, session_id);
  remembered_.insert(key);
}

absl::Duration GuardedSessions::RefusedFor(const std::string& host, const std::string& identity) {
  const absl::Duration not_before =
      std::max(guard_.NotBefore(KeyOf(host, identity)), guard_.NotBefore(KdcKeyOf(identity)));
  return std::max(absl::ZeroDuration(), not_before - state::BoottimeNow());
}

void GuardedSessions::RememberRefusal(const std::string& host, const smb::Credential& credential,
                                      const absl::Status& refused) {
  const bool by_kdc = smb::IsSecretRefused(refused);
  const std::string identity = credential.Identity();
  const uint64_t key = by_kdc ? KdcKeyOf(identity) : KeyOf(host, identity);
  const absl::Duration now = state::BoottimeNow();
  if (by_kdc || IsWrongPassword(refused)) {
    guard_.Refuse(key, now + kRefusedFor);
    LogWarning(refused.message(), ", user ", UserOf(credential), "; not tried again",
               by_kdc ? " for any server" : "", " for ", absl::ToInt64Minutes(kRefusedFor),
               " minutes, or until dfsctl cache flush");
    return;
  }
  // Asked again each minute, by each mount: one line is enough.
  const auto [logged, is_first] = logged_.emplace(key, now);
  if (!is_first && now - logged->second < kRefusedFor) return;
  logged->second = now;
  LogWarning(refused.message(), ", user ", UserOf(credential));
}

void GuardedSessions::ForgiveRefusals() {
  guard_.ForgiveAll();
  logged_.clear();
}

void GuardedSessions::ForgetSessions() {
  for (const uint64_t key : remembered_) guard_.Accept(key, 0);
  remembered_.clear();
}

}  // namespace dfscsi::agent
