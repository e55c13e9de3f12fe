#include "node-agent/dfs/target_health.h"

#include <algorithm>
#include <iterator>
#include <tuple>

#include "absl/strings/str_cat.h"

namespace dfscsi::dfs {
namespace {

// A connect is made some time after its admission (names are resolved first), but before the next
// admission of its credential: one less makes sure that no second has more connects than allowed.
constexpr int kAdmittedPerSecond = TargetHealthTable::kConnectsPerSecond - 1;

// The key of a host (one component) or a target, and of a credential on it.
std::u16string KeyOf(std::u16string_view path_key, absl::string_view credential) {
  std::u16string key(path_key);
  key.push_back(u'\0');
  key.append(credential.begin(), credential.end());
  return key;
}
std::u16string HostKey(const DfsPath& target, absl::string_view credential) {
  return KeyOf(target.KeyPrefix(1), credential);
}
std::u16string TargetKey(const DfsPath& target, absl::string_view credential) {
  return KeyOf(target.Key(), credential);
}

bool CountsAgainstTarget(FailureClass failure) {
  switch (failure) {
    case FailureClass::kTransport:
    case FailureClass::kUnavailable:
    case FailureClass::kMissing:
    case FailureClass::kThrottled:
    case FailureClass::kSession:
    case FailureClass::kBroken:
    case FailureClass::kDenied:
      return true;
    case FailureClass::kNone:
    case FailureClass::kPathNotCovered:
    case FailureClass::kSemantics:
    case FailureClass::kCaller:
      return false;
  }
  return false;
}

bool CountsAgainstHost(AttemptPhase phase, FailureClass failure) {
  return phase <= AttemptPhase::kSessionSetup || failure == FailureClass::kTransport ||
         failure == FailureClass::kBroken;
}

// kDenied and kDown are worse than kUnknown is worse than kUp; of two, the one that lasts longer.
TargetStatus Worse(const TargetStatus& a, const TargetStatus& b) {
  const auto rank = [](const TargetStatus& status) {
    return status.state == TargetState::kUp ? 0 : status.state == TargetState::kUnknown ? 1 : 2;
  };
  if (rank(a) != rank(b)) return rank(a) > rank(b) ? a : b;
  return a.not_before >= b.not_before ? a : b;
}

// A target's status on its host.
TargetStatus OnHost(const TargetStatus& target, const TargetStatus& host) {
  // A host that is up says nothing of a share that nobody tried.
  if (host.state == TargetState::kUp) return target;
  TargetStatus status = Worse(target, host);
  status.latency = target.latency;
  return status;
}

// The key of the host of a target's (or a host's) key.
std::u16string HostKeyOf(std::u16string_view key) {
  const size_t credential = key.find(u'\0');
  const size_t host = std::min(key.find(u'\\', 1), credential);
  std::u16string host_key(key.substr(0, host));
  host_key += key.substr(credential);
  return host_key;
}

}  // namespace

struct TargetHealthTable::Record {
  std::u16string key;
  std::string shown;
  std::string credential;
  TargetStatus status;
  int failures = 0;  // In a row, or with too short pauses between.
  bool connecting = false;
  Counters counters;
  // Times of the last admissions, a ring; of records of hosts without credential only.
  std::array<absl::Time, kAdmittedPerSecond> connects;
  size_t next_connect = 0;
  RecordList::iterator position;
};

absl::string_view TargetStateName(TargetState state) {
  switch (state) {
    case TargetState::kUnknown:
      return "unknown";
    case TargetState::kUp:
      return "up";
    case TargetState::kDown:
      return "down";
    case TargetState::kDenied:
      return "denied";
  }
  return "?";
}

TargetHealthTable::TargetHealthTable() : TargetHealthTable(Options()) {}
TargetHealthTable::TargetHealthTable(Options options) : options_(options) {}
TargetHealthTable::~TargetHealthTable() = default;

TargetHealthTable::Record* TargetHealthTable::FindLocked(const std::u16string& key) const {
  const auto found = records_.find(key);
  return found == records_.end() ? nullptr : found->second.get();
}

TargetHealthTable::Record* TargetHealthTable::TouchLocked(std::u16string_view key,
                                                          absl::string_view shown,
                                                          absl::string_view credential) {
  std::unique_ptr<Record>& record = records_[std::u16string(key)];
  if (record != nullptr) {
    touched_.splice(touched_.begin(), touched_, record->position);
    return record.get();
  }
  record = std::make_unique<Record>();
  Record* const added = record.get();
  added->key = std::u16string(key);
  added->shown = std::string(shown);
  added->credential = std::string(credential);
  added->connects.fill(absl::InfinitePast());
  touched_.push_front(added);
  added->position = touched_.begin();
  // A record that is connecting is held by its ticket; it is the one to keep.
  for (auto last = touched_.end(); records_.size() > options_.capacity;) {
    // The two touched last are in somebody's hands.
    --last;
    if (last == touched_.begin() || last == std::next(touched_.begin())) break;
    if ((*last)->connecting) continue;
    Record* const oldest = *last;
    last = touched_.erase(last);
    records_.erase(records_.find(oldest->key));
  }
  return added;
}

TargetStatus TargetHealthTable::Get(const DfsPath& target, absl::string_view credential,
                                    absl::Time now) {
  MutexLock lock(mutex_);
  const Record* const host = FindLocked(HostKey(target, credential));
  const Record* const own = FindLocked(TargetKey(target, credential));
  const TargetStatus status = own == nullptr ? TargetStatus() : own->status;
  return host == nullptr ? status : OnHost(status, host->status);
}

void TargetHealthTable::NoteUp(const DfsPath& target, absl::string_view credential, absl::Time now,
                               absl::Duration latency) {
  MutexLock lock(mutex_);
  for (Record* record :
       {TouchLocked(HostKey(target, credential), absl::StrCat("//", target.HostName()), credential),
        TouchLocked(TargetKey(target, credential), target.ToString(), credential)}) {
    UpLocked(*record, now);
    TargetStatus& status = record->status;
    status.latency = status.latency == absl::ZeroDuration()
                         ? latency
                         : status.latency + (latency - status.latency) / 8;
  }
}

void TargetHealthTable::NoteHostUp(const DfsPath& host, absl::string_view credential,
                                   absl::Time now) {
  MutexLock lock(mutex_);
  UpLocked(*TouchLocked(HostKey(host, credential), absl::StrCat("//", host.HostName()), credential),
           now);
}

void TargetHealthTable::UpLocked(Record& record, absl::Time now) {
  TargetStatus& status = record.status;
  if (status.state != TargetState::kUp) status.since = now;
  status.state = TargetState::kUp;
  status.not_before = absl::InfinitePast();
  ++record.counters.successes;
}

void TargetHealthTable::FailLocked(Record& record, FailureClass failure, absl::Time now,
                                   double random, absl::Duration denied_for) {
  TargetStatus& status = record.status;
  // Up for long enough: what was before is forgotten. A flapping target's back-off grows on.
  if (status.state == TargetState::kUp && now - status.since >= options_.dwell) {
    record.failures = 0;
  }
  const bool denied = failure == FailureClass::kDenied;
  const TargetState state = denied ? TargetState::kDenied : TargetState::kDown;
  // Many operations report the same death: once is enough while it holds.
  const bool known = status.state == state && now < status.not_before;
  if (status.state != state) status.since = now;
  status.state = state;
  status.last_failure = failure;
  Counters& counters = record.counters;
  ++(failure == FailureClass::kTransport     ? counters.transport
     : failure == FailureClass::kUnavailable ? counters.unavailable
     : failure == FailureClass::kMissing     ? counters.missing
     : failure == FailureClass::kDenied      ? counters.denied
     : failure == FailureClass::kThrottled   ? counters.throttled
                                             : counters.other);
  if (denied && denied_for > absl::ZeroDuration()) {
    status.not_before = known ? std::max(status.not_before, now + denied_for) : now + denied_for;
    return;
  }
  if (known) return;
  if (denied) {
    status.not_before = now + options_.denied_for;
    return;
  }
  const double factor = static_cast<double>(int64_t{1} << std::min(record.failures, 30));
  const absl::Duration backoff = std::min(options_.backoff_max, options_.backoff_min * factor);
  status.not_before = now + backoff * (0.75 + 0.25 * random);
  ++record.failures;
}

void TargetHealthTable::NoteFailed(const DfsPath& target, absl::string_view credential,
                                   AttemptPhase phase, FailureClass failure, absl::Time now,
                                   double random, absl::Duration denied_for) {
  if (!CountsAgainstTarget(failure)) return;
  MutexLock lock(mutex_);
  if (CountsAgainstHost(phase, failure)) {
    FailLocked(*TouchLocked(HostKey(target, credential), absl::StrCat("//", target.HostName()),
                            credential),
               failure, now, random, denied_for);
  } else {
    FailLocked(*TouchLocked(TargetKey(target, credential), target.ToString(), credential), failure,
               now, random, denied_for);
  }
}

void TargetHealthTable::ForgiveLocked(Record& record) {
  if (record.status.state == TargetState::kUp) return;
  record.status = TargetStatus();
  record.failures = 0;
}

void TargetHealthTable::Forgive() {
  MutexLock lock(mutex_);
  for (auto& [key, record] : records_) ForgiveLocked(*record);
}

void TargetHealthTable::Forgive(absl::string_view credential) {
  MutexLock lock(mutex_);
  for (auto& [key, record] : records_) {
    if (record->credential == credential) ForgiveLocked(*record);
  }
}

TargetHealthTable::Admitted TargetHealthTable::TryBeginConnect(const DfsPath& target,
                                                               absl::string_view credential,
                                                               absl::Time now) {
  Admitted admitted;
  const std::string shown = absl::StrCat("//", target.HostName());
  MutexLock lock(mutex_);
  const std::u16string key = HostKey(target, credential);
  Record* const all = TouchLocked(KeyOf(target.KeyPrefix(1), {}), shown, {});
  Record* const host = TouchLocked(key, shown, credential);
  if (host->connecting) {
    admitted.admission = Admission::kJoin;
    return admitted;
  }
  absl::Time& oldest = all->connects[all->next_connect];
  admitted.not_before = std::max(host->status.not_before, oldest + absl::Seconds(1));
  if (const Record* own = FindLocked(TargetKey(target, credential))) {
    admitted.not_before = std::max(admitted.not_before, own->status.not_before);
  }
  if (now < admitted.not_before) {
    ++host->counters.held_back;
    return admitted;
  }
  oldest = now;
  all->next_connect = (all->next_connect + 1) % all->connects.size();
  host->connecting = true;
  ++host->counters.connects;
  admitted.admission = Admission::kGo;
  admitted.ticket = ConnectTicket(this, key);
  return admitted;
}

void TargetHealthTable::EndConnect(const std::u16string& key) {
  MutexLock lock(mutex_);
  if (Record* record = FindLocked(key)) record->connecting = false;
}

TargetHealthTable::ConnectTicket::ConnectTicket(ConnectTicket&& other) noexcept
    : table_(std::exchange(other.table_, nullptr)), key_(std::move(other.key_)) {}
TargetHealthTable::ConnectTicket& TargetHealthTable::ConnectTicket::operator=(
    ConnectTicket&& other) noexcept {
  std::swap(table_, other.table_);
  std::swap(key_, other.key_);
  return *this;
}
TargetHealthTable::ConnectTicket::~ConnectTicket() {
  if (table_ != nullptr) table_->EndConnect(key_);
}

std::vector<TargetHealthTable::Listed> TargetHealthTable::List() const {
  std::vector<Listed> listed;
  {
    MutexLock lock(mutex_);
    for (const Record* record : touched_) {
      if (record->credential.empty() && record->counters.connects == 0 &&
          record->status.state == TargetState::kUnknown) {
        continue;  // Only a host's rate.
      }
      const Record* const host = FindLocked(HostKeyOf(record->key));
      listed.push_back({record->shown, record->credential,
                        host == nullptr ? record->status : OnHost(record->status, host->status),
                        record->counters});
    }
  }
  std::sort(listed.begin(), listed.end(), [](const Listed& a, const Listed& b) {
    return std::tie(a.target, a.credential) < std::tie(b.target, b.credential);
  });
  return listed;
}

}  // namespace dfscsi::dfs
