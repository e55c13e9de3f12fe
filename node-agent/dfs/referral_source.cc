#include "node-agent/dfs/referral_source.h"

#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/runtime/network.h"
#include "node-agent/runtime/race.h"

namespace dfscsi::dfs {

using runtime::Deadline;
using runtime::Task;

namespace {

// A namespace server that is slower than this gets a competitor.
constexpr absl::Duration kHostStagger = absl::Milliseconds(500);

}  // namespace

ReferralSource::ReferralSource(smb::SessionPool& sessions, smb::Credential credential)
    : sessions_(sessions), credential_(std::move(credential)) {}

Task<absl::StatusOr<ReferralSource::Answer>> ReferralSource::Ask(std::string host, size_t index,
                                                                 ReferralKind kind,
                                                                 std::u16string wire_path,
                                                                 Deadline deadline) {
  smb::ConnectPhase phase = smb::ConnectPhase::kResolve;
  CO_ASSIGN_OR_RETURN(const std::shared_ptr<smb::Tree> tree,
                      co_await sessions_.GetTree(host, "IPC$", credential_, &phase, deadline));
  if ((tree->session().connection().negotiated().capabilities & smb::wire::kCapDfs) == 0) {
    // [MS-SMB2] 3.2.4.20.3: not to be sent to a server that knows no DFS.
    co_return smb::wire::ToStatus(smb::wire::NtStatus::kFsDriverRequired,
                                  absl::StrCat(host, " serves no DFS"));
  }
  for (uint32_t bytes = kFirstReferralBufferBytes;; bytes *= 2) {
    ++requests_sent_;
    const uint32_t asked = std::min(bytes, kMaxReferralBufferBytes);
    absl::StatusOr<std::vector<uint8_t>> reply =
        co_await tree->Ioctl(smb::wire::Fsctl::kDfsGetReferrals, smb::wire::kNoFileId,
                             EncodeReferralRequest(wire_path), asked, deadline);
    if (!reply.ok()) {
      const bool cut_off =
          smb::wire::NtStatusOf(reply.status()) == smb::wire::NtStatus::kBufferOverflow;
      if (cut_off && asked < kMaxReferralBufferBytes) continue;
      co_return reply.status();
    }
    Answer answer{.referral = {}, .answered_by = index};
    if (kind == ReferralKind::kDomain || kind == ReferralKind::kDc) {
      CO_ASSIGN_OR_RETURN(answer.referral, DecodeNameListReferral(*reply));
    } else {
      CO_ASSIGN_OR_RETURN(answer.referral, DecodeReferral(*reply, wire_path));
    }
    co_return answer;
  }
}

Task<absl::StatusOr<ReferralSource::Answer>> ReferralSource::Fetch(ReferralFetch fetch,
                                                                   FailureClass* failure,
                                                                   Deadline deadline) {
  // What the racers share; a loser may outlive this call.
  struct Shared {
    explicit Shared(size_t racers) : ended(racers) {}
    std::vector<runtime::Event> ended;
  };
  auto shared = std::make_shared<Shared>(fetch.hosts.size());
  struct Racer {
    static Task<absl::StatusOr<Answer>> Run(ReferralSource* source, std::shared_ptr<Shared> shared,
                                            std::string host, size_t index, ReferralKind kind,
                                            std::u16string wire_path, Deadline until) {
      struct Ended {
        runtime::Event& event;
        ~Ended() { event.Set(); }
      } ended{shared->ended[index]};
      if (index > 0) {
        const absl::Status status = co_await shared->ended[index - 1].WaitUntilSet(
            until.Within(kHostStagger * static_cast<int64_t>(index)));
        if (absl::IsCancelled(status)) co_return status;
      }
      co_return co_await source->Ask(std::move(host), index, kind, std::move(wire_path), until);
    }
  };
  std::vector<std::function<Task<absl::StatusOr<Answer>>(Deadline)>> racers;
  for (size_t i = 0; i < fetch.hosts.size(); ++i) {
    racers.push_back([this, shared, host = fetch.hosts[i], i, kind = fetch.kind,
                      path = fetch.wire_path](Deadline until) {
      return Racer::Run(this, shared, host, i, kind, path, std::move(until));
    });
  }
  const auto says_more = [](const absl::Status& a, const absl::Status& b) {
    return smb::wire::NtStatusOf(a).has_value() && !smb::wire::NtStatusOf(b).has_value();
  };
  absl::StatusOr<Answer> answer =
      co_await runtime::Race<Answer>(std::move(racers), says_more, deadline, &racing_);
  if (!answer.ok()) {
    *failure = Classify(answer.status(), AttemptPhase::kReferral, /*keys_proven=*/true).failure;
    if (*failure == FailureClass::kCaller && !deadline.cancelled()) {
      *failure = FailureClass::kTransport;  // Our own limit for this step, not the caller's.
    }
  }
  co_return answer;
}

Task<absl::StatusOr<std::vector<std::string>>> ReferralSource::FindControllers(std::string domain,
                                                                               Deadline deadline) {
  CO_ASSIGN_OR_RETURN(const std::vector<runtime::Network::Service> services,
                      co_await runtime::Loop::Current().network().ResolveService(
                          absl::StrCat("_ldap._tcp.dc._msdcs.", domain), deadline));
  std::vector<std::string> hosts;
  for (const runtime::Network::Service& service : services) hosts.push_back(service.host);
  co_return hosts;
}

}  // namespace dfscsi::dfs
