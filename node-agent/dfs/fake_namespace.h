// A small world of file servers and namespaces, for tests of the resolver: what Samba answers to
// opens and to referral requests, without a wire. Drives a Resolver the way the real client does,
// one target at a time.

#ifndef NODE_AGENT_DFS_FAKE_NAMESPACE_H_
#define NODE_AGENT_DFS_FAKE_NAMESPACE_H_

#include <algorithm>
#include <cerrno>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "node-agent/dfs/referral_encoder.h"
#include "node-agent/dfs/resolver.h"
#include "node-agent/smb/wire/nt_status.h"
#include "node-agent/smb/wire/utf16.h"

namespace dfscsi::dfs {

inline std::u16string ToUtf16(absl::string_view text) {
  return smb::wire::Utf8ToUtf16({text.data(), text.size()}).value();
}

struct FakeLink {
  std::vector<std::string> targets;  // "t1/share/path", as in Samba's msdfs: links.
  bool interlink = false;            // Announced by the header flags.
};

struct FakeShare {
  bool namespace_root = false;
  std::map<std::string, FakeLink> links;  // By path below the share, lower case.
  std::vector<std::string> root_targets;  // "root1/dfs"; empty: a self-referral.
  std::set<std::string> missing;          // Paths that do not exist.
  FakeLink proxy;                         // Targets: the share refers elsewhere as a whole.
  bool covers_nothing = false;            // PATH_NOT_COVERED for everything (G22).
};

struct FakeHost {
  bool up = true;
  bool denies = false;  // Refuses the log-on.
  bool dfs = true;      // False: "host msdfs = no".
  std::map<std::string, FakeShare> shares;
};

class FakeWorld {
 public:
  std::map<std::string, FakeHost> hosts;  // By name; names not listed do not resolve.
  // Answers to DC requests, by domain.
  std::map<std::string, std::vector<std::string>> controllers;
  uint32_t ttl_seconds = 600;
  uint16_t version = 3;
  bool target_failback = false;
  bool eager = false;                             // The driver reports SHARE_CAP_DFS.
  std::map<std::string, FailureClass> held_back;  // Targets ("//t1/share") that are backing off.

  // What went over the wire.
  std::vector<std::string> requests;  // "LINK root1 //root1/dfs/x"
  std::vector<std::string> attempts;  // "//t1/share/x"

  struct Result {
    std::string location;  // "//t1/share/x" if some target served the path.
    int error_number = 0;
    bool worth_waiting = false;
    bool dangling = false;  // IsDanglingLink.
    bool plain = false;     // kNotDfs.
    size_t link_components = 0;
  };

  Result Run(Resolver& resolver, ReferralCache& cache, const DfsPath& path, absl::Time now,
             absl::string_view credential = "user") {
    Resolution resolution(path, credential);
    const Resolver::FetchContext context{.limits = limits, .now = now, .random = 0.5};
    for (int i = 0; i < 1000; ++i) {
      const ResolveStep step = resolver.Next(resolution, now);
      switch (step.kind) {
        case ResolveStep::Kind::kError:
          return {.location = "",
                  .error_number = step.error_number,
                  .worth_waiting = step.WorthWaiting(),
                  .dangling = IsDanglingLink(step.status)};
        case ResolveStep::Kind::kNotDfs: {
          const Outcome outcome = Open(*step.path);
          if (outcome == Outcome::kOpened) {
            return {.location = step.path->ToString(),
                    .plain = true,
                    .link_components = step.link_components};
          }
          if (outcome != Outcome::kNotCovered) return {.location = "", .error_number = EHOSTDOWN};
          resolver.NotePathNotCovered(resolution, step, 0);
          break;
        }
        case ResolveStep::Kind::kTryTargets: {
          const size_t candidate = step.candidates[0];
          if (const auto held = held_back.find(step.entry->targets[candidate].path.ToString());
              held != held_back.end()) {
            resolver.NoteTargetHeldBack(resolution, step, candidate, held->second);
            break;
          }
          const DfsPath on_target = *step.PathOn(candidate);
          const Outcome outcome = Open(on_target);
          if (outcome != Outcome::kDown && outcome != Outcome::kDenied && eager &&
              ShareOf(on_target) != nullptr && ShareOf(on_target)->namespace_root &&
              resolver.NoteShareInDfs(resolution, step, candidate)) {
            break;
          }
          switch (outcome) {
            case Outcome::kOpened:
              cache.SetHint(step.entry->prefix, credential, step.entry->targets[candidate].path);
              return {.location = on_target.ToString(), .link_components = step.link_components};
            case Outcome::kNotCovered:
              resolver.NotePathNotCovered(resolution, step, candidate);
              break;
            case Outcome::kDown:
              resolver.NoteTargetFailed(resolution, step, candidate, FailureClass::kTransport);
              break;
            case Outcome::kDenied:
              resolver.NoteTargetFailed(resolution, step, candidate, FailureClass::kDenied);
              break;
            case Outcome::kMissing:
              resolver.NoteTargetFailed(resolution, step, candidate, FailureClass::kMissing);
              break;
          }
          break;
        }
        case ResolveStep::Kind::kFetch:
          Fetch(resolver, resolution, step, context);
          break;
      }
    }
    return {.location = "endless"};
  }

  TtlLimits limits;

 private:
  enum class Outcome { kOpened, kNotCovered, kDown, kDenied, kMissing };

  static std::string Lower(absl::string_view text) { return absl::AsciiStrToLower(text); }

  // The link at or above `below` (path below the share); "" if there is none.
  static std::string LinkAbove(const FakeShare& share, const std::string& below) {
    for (const auto& [at, link] : share.links) {
      if (below == at || absl::StartsWith(below, at + "/")) return at;
    }
    return "";
  }
  static std::string Below(const DfsPath& path) {
    std::string below = Lower(absl::StrReplaceAll(path.Relative(2), {{"\\", "/"}}));
    return below;
  }
  FakeShare* ShareOf(const DfsPath& path) {
    const auto host = hosts.find(Lower(path.HostName()));
    if (host == hosts.end()) return nullptr;
    const auto share = host->second.shares.find(Lower(path.share()));
    return share == host->second.shares.end() ? nullptr : &share->second;
  }

  Outcome Open(const DfsPath& path) {
    attempts.push_back(path.ToString());
    const auto host = hosts.find(Lower(path.HostName()));
    if (host == hosts.end()) return Outcome::kMissing;
    if (!host->second.up) return Outcome::kDown;
    if (host->second.denies) return Outcome::kDenied;
    const FakeShare* share = ShareOf(path);
    if (share == nullptr || !share->proxy.targets.empty()) return Outcome::kMissing;
    if (share->covers_nothing) return Outcome::kNotCovered;
    if (!LinkAbove(*share, Below(path)).empty()) return Outcome::kNotCovered;
    if (share->missing.contains(Below(path))) return Outcome::kMissing;
    return Outcome::kOpened;
  }

  absl::Status Refuse(smb::wire::NtStatus status) {
    return smb::wire::ToStatus(status, "referral");
  }

  // What one host answers: bytes, or its status.
  absl::StatusOr<std::vector<uint8_t>> Answer(const std::string& host_name,
                                              const ReferralFetch& fetch) {
    requests.push_back(
        absl::StrCat(ReferralKindName(fetch.kind), " ", host_name, " ",
                     fetch.request ? fetch.request->ToString() : absl::StrCat("//", fetch.domain)));
    const auto host = hosts.find(Lower(host_name));
    if (host == hosts.end()) return absl::NotFoundError("no such host");
    if (!host->second.up) return absl::UnavailableError("unreachable");
    if (host->second.denies) return absl::UnauthenticatedError("denied");
    if (!host->second.dfs) return Refuse(smb::wire::NtStatus::kFsDriverRequired);
    if (fetch.kind == ReferralKind::kDc) {
      NameListResponse list;
      list.entries.push_back({ToUtf16(fetch.domain), {}});
      const auto known = controllers.find(Lower(fetch.domain));
      if (known == controllers.end()) return Refuse(smb::wire::NtStatus::kInvalidParameter);
      for (const std::string& one : known->second) {
        list.entries[0].expanded.push_back(u"\\" + ToUtf16(one));
      }
      return EncodeNameListResponse(list);
    }
    const DfsPath& path = *fetch.request;
    const auto found = host->second.shares.find(Lower(path.share()));
    if (found == host->second.shares.end()) return Refuse(smb::wire::NtStatus::kNotFound);
    const FakeShare& share = found->second;
    ReferralResponse response{
        .version = version, .target_failback = target_failback, .ttl_seconds = ttl_seconds};
    const FakeLink* link = &share.proxy;
    size_t consumed = 2;
    if (share.proxy.targets.empty()) {
      if (!share.namespace_root) return Refuse(smb::wire::NtStatus::kNotFound);
      if (path.size() == 2) {
        response.root = response.referral_servers = true;
        for (const std::string& target : share.root_targets) response.targets.push_back(At(target));
        if (share.root_targets.empty()) {
          response.targets.push_back(At(absl::StrCat(path.HostName(), "/", path.share())));
        }
        return Encode(response, path, 2);
      }
      const std::string at = LinkAbove(share, Below(path));
      if (at.empty()) return Refuse(smb::wire::NtStatus::kObjectPathNotFound);
      link = &share.links.at(at);
      consumed = 3 + std::count(at.begin(), at.end(), '/');
    }
    if (link->interlink) {
      response.referral_servers = true;
      response.storage_servers = false;
    }
    for (const std::string& target : link->targets) response.targets.push_back(At(target));
    return Encode(response, path, consumed);
  }

  static ReferralResponse::Target At(const std::string& target) {
    return {ToUtf16(absl::StrReplaceAll(absl::StrCat("/", target), {{"/", "\\"}}))};
  }
  static std::vector<uint8_t> Encode(ReferralResponse response, const DfsPath& path,
                                     size_t consumed) {
    response.path_consumed_bytes = static_cast<uint16_t>(path.Prefix(consumed).ToWire().size() * 2);
    response.dfs_path = path.ToWire();
    return EncodeReferralResponse(response);
  }

  // Asks the hosts in turn, as the real client does: a host that does not answer, or answers
  // nonsense, is passed over; a refusal is an answer.
  void Fetch(Resolver& resolver, Resolution& resolution, const ResolveStep& step,
             const Resolver::FetchContext& context) {
    absl::Status last = absl::UnavailableError("no host");
    FailureClass failure = FailureClass::kTransport;
    for (size_t i = 0; i < step.fetch.hosts.size(); ++i) {
      const absl::StatusOr<std::vector<uint8_t>> bytes = Answer(step.fetch.hosts[i], step.fetch);
      if (bytes.ok() && step.fetch.kind == ReferralKind::kDc) {
        const absl::StatusOr<NameListReferral> list = DecodeNameListReferral(*bytes);
        if (list.ok()) return resolver.NoteControllers(resolution, step, *list, i, context);
      } else if (bytes.ok()) {
        const absl::StatusOr<Referral> referral = DecodeReferral(*bytes, step.fetch.wire_path);
        if (referral.ok()) return resolver.NoteReferral(resolution, step, *referral, i, context);
        last = referral.status();
        failure = FailureClass::kBroken;
        continue;
      }
      last = bytes.status();
      const bool found =
          last.code() != absl::StatusCode::kNotFound || smb::wire::NtStatusOf(last).has_value();
      failure =
          Classify(last,
                   last.code() == absl::StatusCode::kUnauthenticated ? AttemptPhase::kSessionSetup
                   : found                                           ? AttemptPhase::kReferral
                                                                     : AttemptPhase::kResolve,
                   true)
              .failure;
      if (failure == FailureClass::kSemantics) break;
    }
    resolver.NoteFetchFailed(resolution, step, last, failure, context);
  }
};

}  // namespace dfscsi::dfs

#endif  // NODE_AGENT_DFS_FAKE_NAMESPACE_H_
