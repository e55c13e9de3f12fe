#include "node-agent/dfs/referral_source.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/dfs/binder_parts.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/runtime/network.h"
#include "node-agent/runtime/race.h"

namespace dfscsi::dfs {

using binder_parts::PhaseOf;
using runtime::Deadline;
using runtime::Task;

namespace {

// A namespace server that is slower than this gets a competitor.
constexpr absl::Duration kHostStagger = absl::Milliseconds(500);

// A caller that has waited less than this for a connection has not shown that its host is silent.
constexpr absl::Duration kSilent = absl::Seconds(2);

absl::StatusOr<DfsPath> IpcOf(const std::string& host) {
  return DfsPath::Parse(absl::StrCat("//", host, "/IPC$"));
}

// The server does not know FSCTL_DFS_GET_REFERRALS_EX; the plain one may do.
bool RefusesEx(const absl::Status& status) {
  const std::optional<smb::wire::NtStatus> answer = smb::wire::NtStatusOf(status);
  return answer == smb::wire::NtStatus::kFsDriverRequired ||
         answer == smb::wire::NtStatus::kInvalidDeviceRequest ||
         answer == smb::wire::NtStatus::kNotSupported ||
         answer == smb::wire::NtStatus::kInvalidParameter;
}

}  // namespace

ReferralSource::ReferralSource(Dialer& dialer, std::u16string site, TargetHealthTable& health)
    : dialer_(dialer), site_(std::move(site)), health_(health) {}

Task<absl::StatusOr<std::shared_ptr<smb::Tree>>> ReferralSource::GetIpc(std::string host,
                                                                        Deadline deadline) {
  CO_ASSIGN_OR_RETURN(const DfsPath path, IpcOf(host));
  while (true) {
    TargetHealthTable::Admitted admitted{.admission = TargetHealthTable::Admission::kGo};
    const absl::Time now = runtime::Loop::Current().Now();
    if (!dialer_.HasSession(host, nullptr)) {
      admitted = health_.TryBeginConnect(path, dialer_.identity(), now);
    }
    if (admitted.admission == TargetHealthTable::Admission::kTooSoon) {
      if (!health_.Get(path, dialer_.identity(), now).MayTry(now)) {
        co_return absl::UnavailableError(absl::StrCat(host, ": failed a moment ago"));
      }
      CO_RETURN_IF_ERROR(co_await runtime::Sleep(admitted.not_before - now, deadline));
      continue;
    }
    smb::ConnectPhase phase = smb::ConnectPhase::kResolve;
    absl::StatusOr<std::shared_ptr<smb::Tree>> tree = co_await dialer_.GetTree(
        host, "IPC$", {.join_only = admitted.admission == TargetHealthTable::Admission::kJoin},
        &phase, deadline);
    if (admitted.ticket && !tree.ok()) {
      NoteConnectFailed(path, tree.status(), phase, now, deadline);
    } else if (admitted.ticket && tree.ok()) {
      health_.NoteHostUp(path, dialer_.identity(), runtime::Loop::Current().Now());
    }
    if (!tree.ok() || *tree != nullptr) co_return tree;
    CO_RETURN_IF_ERROR(co_await runtime::Sleep(binder_parts::kConnectGivenUp, deadline));
  }
}

void ReferralSource::NoteConnectFailed(const DfsPath& path, const absl::Status& status,
                                       smb::ConnectPhase phase, absl::Time began,
                                       const Deadline& deadline) {
  runtime::Loop& loop = runtime::Loop::Current();
  FailureClass failure = Classify(status, PhaseOf(phase), /*keys_proven=*/false).failure;
  // Who had little time cannot tell a silent host from a slow one.
  const bool time_is_up = absl::IsDeadlineExceeded(status) ||
                          (absl::IsCancelled(status) && deadline.when() <= loop.Now());
  if (time_is_up) {
    failure = loop.Now() - began >= kSilent ? FailureClass::kTransport : FailureClass::kCaller;
  }
  // What a host says (it refuses us, say) is for those to judge who want its files.
  if (failure != FailureClass::kTransport || phase > smb::ConnectPhase::kSessionSetup) return;
  health_.NoteFailed(path, dialer_.identity(), PhaseOf(phase), failure, loop.Now(),
                     binder_parts::Fraction(loop.Random()));
}

bool ReferralSource::AreDown(const std::vector<std::string>& hosts) const {
  const absl::Time now = runtime::Loop::Current().Now();
  return !hosts.empty() && std::all_of(hosts.begin(), hosts.end(), [&](const std::string& host) {
    const absl::StatusOr<DfsPath> path = IpcOf(host);
    return path.ok() && !dialer_.HasSession(host, nullptr) &&
           health_.Get(*path, dialer_.identity(), now).state == TargetState::kDown;
  });
}

Task<absl::StatusOr<std::vector<uint8_t>>> ReferralSource::Request(std::shared_ptr<smb::Tree> tree,
                                                                   std::u16string wire_path,
                                                                   uint32_t most_bytes,
                                                                   Deadline deadline) {
  const std::string host = tree->session().connection().host();
  if (!site_.empty() && without_ex_[host].lock().get() != &tree->session()) {
    ++requests_sent_;
    absl::StatusOr<std::vector<uint8_t>> reply =
        co_await tree->Ioctl(smb::wire::Fsctl::kDfsGetReferralsEx, smb::wire::kNoFileId,
                             EncodeReferralRequestEx(wire_path, site_), most_bytes, deadline);
    if (reply.ok() || !RefusesEx(reply.status())) co_return reply;
    without_ex_[host] = tree->session().weak_from_this();
  }
  ++requests_sent_;
  co_return co_await tree->Ioctl(smb::wire::Fsctl::kDfsGetReferrals, smb::wire::kNoFileId,
                                 EncodeReferralRequest(wire_path), most_bytes, deadline);
}

Task<absl::StatusOr<ReferralSource::Answer>> ReferralSource::Ask(std::string host, size_t index,
                                                                 ReferralKind kind,
                                                                 std::u16string wire_path,
                                                                 Deadline deadline) {
  CO_ASSIGN_OR_RETURN(const std::shared_ptr<smb::Tree> tree,
                      co_await GetIpc(std::move(host), deadline));
  if ((tree->session().connection().negotiated().capabilities & smb::wire::kCapDfs) == 0) {
    // [MS-SMB2] 3.2.4.20.3: not to be sent to a server that knows no DFS.
    co_return smb::wire::ToStatus(
        smb::wire::NtStatus::kFsDriverRequired,
        absl::StrCat(tree->session().connection().host(), " serves no DFS"));
  }
  for (uint32_t bytes = kFirstReferralBufferBytes;; bytes *= 2) {
    const uint32_t asked = std::min(bytes, kMaxReferralBufferBytes);
    const absl::Time began = runtime::Loop::Current().Now();
    absl::StatusOr<std::vector<uint8_t>> reply = co_await Request(tree, wire_path, asked, deadline);
    if (!reply.ok()) {
      dialer_.RetireIfSilent(tree->session(), reply.status(), began, deadline);
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
    bool answered = false;
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
        // Who is not needed takes nobody's turn to connect.
        if (shared->answered) co_return absl::CancelledError("another host has answered");
      }
      absl::StatusOr<Answer> answer =
          co_await source->Ask(std::move(host), index, kind, std::move(wire_path), until);
      shared->answered = shared->answered || answer.ok();
      co_return answer;
    }
  };
  std::vector<std::function<Task<absl::StatusOr<Answer>>(Deadline)>> racers;
  racers.reserve(fetch.hosts.size());
  for (size_t i = 0; i < fetch.hosts.size(); ++i) {
    racers.push_back([this, shared, host = fetch.hosts[i], i, kind = fetch.kind,
                      path = fetch.wire_path](Deadline until) {
      return Racer::Run(this, shared, host, i, kind, path, std::move(until));
    });
  }
  // An answer tells more than silence, and silence (which may end) more than a host that we may not
  // ask.
  const auto weight = [](const absl::Status& status) {
    if (smb::wire::NtStatusOf(status).has_value()) return 2;
    return absl::IsPermissionDenied(status) ? 0 : 1;
  };
  const auto says_more = [weight](const absl::Status& a, const absl::Status& b) {
    return weight(a) > weight(b);
  };
  absl::StatusOr<Answer> answer =
      co_await runtime::Race<Answer>(std::move(racers), says_more, deadline, &racing_);
  if (!answer.ok()) {
    *failure = Classify(answer.status(), AttemptPhase::kReferral, /*keys_proven=*/true).failure;
    if (*failure == FailureClass::kCaller && !deadline.cancelled()) {
      *failure = FailureClass::kTransport;  // Our own limit for this step, not the caller's.
    }
    if (weight(answer.status()) == 0) *failure = FailureClass::kDenied;
  }
  co_return answer;
}

Task<absl::StatusOr<std::vector<std::string>>> ReferralSource::FindControllers(std::string domain,
                                                                               Deadline deadline) {
  CO_ASSIGN_OR_RETURN(const std::vector<runtime::Network::Service> services,
                      co_await runtime::Loop::Current().network().ResolveService(
                          absl::StrCat("_ldap._tcp.dc._msdcs.", domain), deadline));
  std::vector<std::string> hosts;
  hosts.reserve(services.size());
  for (const runtime::Network::Service& service : services) hosts.push_back(service.host);
  co_return hosts;
}

}  // namespace dfscsi::dfs
