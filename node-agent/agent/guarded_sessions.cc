#include "node-agent/agent/guarded_sessions.h"

#include "absl/strings/ascii.h"

namespace dfscsi::agent {

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

bool GuardedSessions::MayLogOn(const std::string& host, const std::string& identity) {
  return guard_.NotBefore(KeyOf(host, identity)) <= state::BoottimeNow();
}

void GuardedSessions::RememberRefusal(const std::string& host, const std::string& identity) {
  guard_.Refuse(KeyOf(host, identity), state::BoottimeNow() + kRefusedFor);
}

void GuardedSessions::ForgetSessions() {
  for (const uint64_t key : remembered_) guard_.Accept(key, 0);
  remembered_.clear();
}

}  // namespace dfscsi::agent
