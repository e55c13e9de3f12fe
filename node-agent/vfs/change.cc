#include "node-agent/vfs/change.h"

#include <errno.h>

#include <algorithm>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "node-agent/dfs/failure_class.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/smb/session.h"
#include "node-agent/smb/wire/nt_status.h"
#include "node-agent/vfs/errno.h"
#include "node-agent/vfs/sip_hash.h"

namespace dfscsi::vfs {

namespace {

constexpr char kElsewhereUrl[] = "dfscsi/elsewhere";

uint64_t KeyOf(absl::string_view host, absl::string_view share) {
  const std::string name = absl::AsciiStrToLower(absl::StrCat(host, "/", share));
  return std::max<uint64_t>(1, SipHash(SipKey{}, name));
}

}  // namespace

uint64_t ServerKeyOf(const dfs::Binding& binding) {
  return KeyOf(binding.tree->session().connection().host(), binding.tree->share());
}

uint64_t ServerKeyOf(const dfs::DfsPath& target) {
  return KeyOf(target.HostName(), target.share());
}

absl::Status Elsewhere() {
  absl::Status status = ErrnoError(ESTALE, "what it is about is on another server");
  status.SetPayload(kElsewhereUrl, absl::Cord());
  return status;
}

bool IsElsewhere(const absl::Status& status) {
  return status.GetPayload(kElsewhereUrl).has_value();
}

bool IsAnswerLost(const absl::Status& status) {
  switch (dfs::Classify(status, dfs::AttemptPhase::kOperation, /*keys_proven=*/true).failure) {
    case dfs::FailureClass::kTransport:
    case dfs::FailureClass::kUnavailable:
    case dfs::FailureClass::kSession:
    case dfs::FailureClass::kBroken:
      return true;
    default:
      return false;
  }
}

void Change::Sending(uint64_t offset) {
  sent = true;
  sent_at = runtime::Loop::Current().Now();
  ahead_when_sent.reset();
  if (where.tree != nullptr) ahead_when_sent = where.tree->session().connection().clock_ahead();
  if (journal != nullptr) journal->NoteSent(ServerKeyOf(where), offset);
}

void Change::NotSent() {
  sent = false;
  if (journal != nullptr) journal->NoteSent(0, kNoOffset);
}

absl::Duration Change::Age() const {
  const absl::Duration before = journal == nullptr ? absl::ZeroDuration() : journal->age();
  return before + (runtime::Loop::Current().Now() - began);
}

absl::Time Change::Earliest() const {
  if (sent_before == 0 || journal == nullptr) return sent_at;
  // A dead agent has sent it, at some time after the kernel had asked.
  return runtime::Loop::Current().Now() - journal->age();
}

}  // namespace dfscsi::vfs
