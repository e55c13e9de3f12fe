#include "node-agent/smb/session_pool.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/runtime/network.h"
#include "node-agent/runtime/race.h"
#include "node-agent/smb/secret_refused.h"

namespace dfscsi::smb {

using runtime::Deadline;
using runtime::Task;

namespace {

// How long name servers may take where an answer of theirs is known.
constexpr absl::Duration kNameTimeIfKnown = absl::Seconds(1);

// A caller that has waited less than this for an answer cannot tell a silent server from a slow
// one.
constexpr absl::Duration kSilent = absl::Seconds(2);

// A server may be well while what it has for one session is not: one process of several, say, or a
// connection that a firewall forgot. So who wants something new asks by a new connection, and a
// silent one is left to those that have something on it.
bool MayServe(Session& session) { return session.usable() && !session.connection().suspect(); }

// Whoever waits for several at once is cancelled at the very moment that its time is up.
bool IsTimeUp(const absl::Status& status, const Deadline& deadline) {
  return absl::IsDeadlineExceeded(status) ||
         (absl::IsCancelled(status) && deadline.when() <= runtime::Loop::Current().Now());
}

// Samba hands a new connection to the process that has others of its ClientGuid (they may be
// channels of one session, [MS-SMB2] 3.3.5.5.3): where that one hangs, only another client is
// served. Opens and leases are the client's, but those of a silent connection are out of reach.
wire::Guid AnotherGuid(wire::Guid guid) {
  const uint64_t random = runtime::Loop::Current().Random();
  for (size_t i = 0; i < sizeof(random); ++i) guid[i] ^= static_cast<uint8_t>(random >> (8 * i));
  return guid;
}

// By a reset, an end, or a time-out of TCP; not by us.
bool IsBroken(Session& session) {
  const Connection& connection = session.connection();
  return connection.closed() && absl::IsUnavailable(connection.close_reason());
}

// By then servers have noticed that nobody is there any more.
constexpr absl::Duration kFormerKept = absl::Hours(4);

// In all, where what interrupts them is neither theirs nor their server's.
constexpr int kMostLogOns = 3;

constexpr char kPhaseUrl[] = "dfscsi/connect_phase";
constexpr char kForbiddenUrl[] = "dfscsi/log_on_forbidden_ns";

absl::Status WithForbidden(absl::Status status, absl::Duration remaining) {
  if (remaining <= absl::ZeroDuration()) return status;
  const std::string text = absl::StrCat(absl::ToInt64Nanoseconds(remaining));
  status.SetPayload(kForbiddenUrl, absl::Cord(absl::string_view(text)));
  return status;
}

// What a server, or the KDC, says of a user, not of itself or of how it was asked.
bool RefusesUser(const absl::Status& status) {
  if (IsSecretRefused(status)) return true;
  return absl::IsPermissionDenied(status) && wire::NtStatusOf(status).has_value();
}

absl::Status WithPhase(absl::Status status, ConnectPhase phase) {
  const char byte = static_cast<char>(phase);
  status.SetPayload(kPhaseUrl, absl::Cord(absl::string_view(&byte, 1)));
  return status;
}

// Takes out the addresses that may not be connected to; the last reason, if that leaves none.
absl::Status KeepAllowed(const ConnectRules& rules, std::vector<runtime::IpAddress>* addresses) {
  if (rules.may_connect == nullptr) return absl::OkStatus();
  absl::Status refused;
  std::erase_if(*addresses, [&](const runtime::IpAddress& address) {
    absl::Status status = rules.may_connect(address);
    if (status.ok()) return false;
    refused = std::move(status);
    return true;
  });
  return addresses->empty() ? refused : absl::OkStatus();
}

}  // namespace

std::optional<ConnectPhase> ConnectPhaseOf(const absl::Status& status) {
  const auto payload = status.GetPayload(kPhaseUrl);
  if (!payload.has_value() || payload->size() != 1) return std::nullopt;
  return static_cast<ConnectPhase>((*payload)[0]);
}

absl::Duration LogOnForbiddenFor(const absl::Status& status) {
  const auto payload = status.GetPayload(kForbiddenUrl);
  int64_t nanoseconds = 0;
  if (!payload.has_value() || !absl::SimpleAtoi(std::string(*payload), &nanoseconds)) {
    return absl::ZeroDuration();
  }
  return absl::Nanoseconds(nanoseconds);
}

SessionPool::SessionPool(Options options, AuthenticatorFactory& authenticators,
                         SessionMemory* memory)
    : options_(std::move(options)), authenticators_(authenticators), memory_(memory) {
  tasks_.Spawn(LogOffIdle());
}

SessionPool::~SessionPool() = default;

SessionPool::Key SessionPool::KeyOf(const std::string& host, const std::string& identity) {
  return {absl::AsciiStrToLower(host), identity};
}

void SessionPool::NoteFormer(Entry& entry, const std::shared_ptr<Session>& session) {
  Connection& connection = session->connection();
  // Of what is well the server sees the end. What it has deleted itself it does not hold.
  if (!connection.closed() && (!session->usable() || !connection.suspect())) return;
  if (entry.former.size() >= kMostEnded) entry.former.erase(entry.former.begin());
  entry.former.push_back({.id = session->id(), .session = session, .broken = IsBroken(*session)});
}

void SessionPool::NoteEnded(Entry& entry, uint64_t session_id) {
  std::erase_if(entry.former, [&](const Former& former) { return former.id == session_id; });
  if (entry.ended.size() >= kMostEnded) entry.ended.erase(entry.ended.begin());
  entry.ended.push_back(session_id);
}

SessionPool::Former* SessionPool::FindBroken(Entry& entry) {
  for (auto former = entry.former.rbegin(); former != entry.former.rend(); ++former) {
    const std::shared_ptr<Session> session = former->session.lock();
    if (session != nullptr && IsBroken(*session)) former->broken = true;
    if (former->broken) return &*former;
  }
  return nullptr;
}

void SessionPool::Install(Entry& entry, std::shared_ptr<Session> session, wire::Guid client_guid) {
  session->connection().set_channel_sequence(entry.sessions++);
  if (entry.session != nullptr) NoteFormer(entry, entry.session);
  entry.session = std::move(session);
  entry.client_guid = client_guid;
}

std::vector<uint64_t> SessionPool::FormerSessions(const std::string& host,
                                                  const std::string& identity) const {
  std::vector<uint64_t> ids;
  const auto found = entries_.find(KeyOf(host, identity));
  if (found == entries_.end()) return ids;
  for (const Former& former : found->second->former) {
    const std::shared_ptr<Session> session = former.session.lock();
    // Who still holds one that is silent may go on with it.
    if (session == nullptr || session->connection().closed()) ids.push_back(former.id);
  }
  return ids;
}

void SessionPool::ForgetFormer(const std::string& host, const std::string& identity,
                               uint64_t session_id) {
  const auto found = entries_.find(KeyOf(host, identity));
  if (found == entries_.end()) return;
  std::erase_if(found->second->former,
                [&](const Former& former) { return former.id == session_id; });
}

Task<absl::StatusOr<std::vector<runtime::IpAddress>>> SessionPool::ResolveHost(std::string host,
                                                                               Deadline deadline) {
  // Name servers may be down with the site that failed; what was right a moment ago will do, and
  // soon enough to leave time for connecting.
  const bool known = last_addresses_.contains(host);
  absl::StatusOr<std::vector<runtime::IpAddress>> addresses =
      co_await runtime::Loop::Current().network().Resolve(
          host, known ? deadline.Within(kNameTimeIfKnown) : deadline);
  if (addresses.ok()) {
    last_addresses_[host] = *addresses;
  } else if (known && !absl::IsNotFound(addresses.status())) {
    co_return last_addresses_[host];
  }
  co_return addresses;
}

Task<absl::StatusOr<std::shared_ptr<Connection>>> SessionPool::ConnectAny(std::string host,
                                                                          wire::Guid client_guid,
                                                                          ConnectRules rules,
                                                                          ConnectPhase* phase,
                                                                          Deadline deadline) {
  *phase = ConnectPhase::kResolve;
  const size_t at = host.find('@');  // host@port, as in UNC paths of WebDAV and some NAS.
  const bool has_own_port =
      options_.port_host.empty() || absl::EqualsIgnoreCase(host, options_.port_host);
  uint16_t port = has_own_port ? options_.port : Options().port;
  std::string name = host;
  if (at != std::string::npos) {
    int number = 0;
    if (!absl::SimpleAtoi(host.substr(at + 1), &number) || number < 1 || number > 65535) {
      co_return absl::InvalidArgumentError(absl::StrCat("not a port: ", host));
    }
    port = static_cast<uint16_t>(number);
    name = host.substr(0, at);
  }
  CO_ASSIGN_OR_RETURN(std::vector<runtime::IpAddress> addresses,
                      co_await ResolveHost(name, deadline));
  CO_RETURN_IF_ERROR(KeepAllowed(rules, &addresses));
  *phase = ConnectPhase::kConnect;
  struct Attempt {
    static Task<absl::StatusOr<std::shared_ptr<Connection>>> Run(runtime::SocketAddress to,
                                                                 std::string host_name,
                                                                 Options options,
                                                                 absl::Duration delay,
                                                                 Deadline until) {
      if (delay > absl::ZeroDuration()) {
        CO_RETURN_IF_ERROR(co_await runtime::Sleep(delay, until));
      }
      CO_ASSIGN_OR_RETURN(std::unique_ptr<runtime::Stream> stream,
                          co_await runtime::Loop::Current().network().Connect(to, until));
      co_return co_await Connection::Negotiate(std::move(stream), std::move(host_name),
                                               std::move(options), until);
    }
  };
  std::vector<std::function<Task<absl::StatusOr<std::shared_ptr<Connection>>>(Deadline)>> attempts;
  Options options = options_;
  options.client_guid = client_guid;
  absl::Duration delay = absl::ZeroDuration();
  for (const runtime::IpAddress& address : addresses) {
    attempts.push_back(
        [to = runtime::SocketAddress{address, port}, name, options, delay](Deadline until) {
          return Attempt::Run(to, name, options, delay, std::move(until));
        });
    delay += options_.address_stagger;
  }
  // What a server said tells more than that another address did not answer.
  const auto better = [](const absl::Status& a, const absl::Status& b) {
    return !absl::IsUnavailable(a) && !absl::IsDeadlineExceeded(a) &&
           (absl::IsUnavailable(b) || absl::IsDeadlineExceeded(b));
  };
  absl::StatusOr<std::shared_ptr<Connection>> connection =
      co_await runtime::Race<std::shared_ptr<Connection>>(std::move(attempts), better, deadline);
  if (!connection.ok() && !absl::IsUnavailable(connection.status())) {
    *phase = ConnectPhase::kNegotiate;
  }
  co_return connection;
}

Task<absl::Status> SessionPool::EndSession(std::string host, Credential credential,
                                           uint64_t session_id, Deadline deadline,
                                           ConnectRules rules) {
  const std::string name = host;
  const std::string identity = credential.Identity();
  std::shared_ptr<Entry>& slot = entries_[KeyOf(name, identity)];
  if (slot == nullptr) {
    slot = std::make_shared<Entry>();
    slot->client_guid = options_.client_guid;
  }
  const std::shared_ptr<Entry> entry = slot;
  CO_ASSIGN_OR_RETURN(const runtime::Mutex::Guard guard, co_await entry->connecting.Lock(deadline));
  if (IsEnded(name, identity, session_id)) co_return absl::OkStatus();
  // What is to be ended may be silent: then as another client, as in GetSession().
  const bool beside_silent =
      entry->is_silent || (entry->session != nullptr && !MayServe(*entry->session));
  const wire::Guid client_guid =
      beside_silent ? AnotherGuid(entry->client_guid) : entry->client_guid;
  rules.ends = session_id;
  ConnectPhase phase;
  const absl::Time began = runtime::Loop::Current().Now();
  absl::StatusOr<std::shared_ptr<Session>> made = co_await Connect(
      std::move(host), client_guid, std::move(credential), std::move(rules), &phase, deadline);
  const absl::Time now = runtime::Loop::Current().Now();
  if (IsTimeUp(made.status(), deadline) && phase >= ConnectPhase::kNegotiate &&
      now - began >= kSilent) {
    entry->is_silent = !beside_silent;  // In turn: the whole host may be silent.
  }
  CO_ASSIGN_OR_RETURN(std::shared_ptr<Session> session, std::move(made));
  NoteEnded(*entry, session_id);
  entry->used = now;
  if (entry->session != nullptr && MayServe(*entry->session)) {
    // It is the one that another agent is to end, not this short-lived one.
    if (memory_ != nullptr) memory_->RememberSessionId(name, identity, entry->session->id());
    (void)co_await session->LogOff(Deadline::After(options_.connect_timeout));
    co_return absl::OkStatus();
  }
  Install(*entry, std::move(session), client_guid);
  entry->is_silent = false;
  co_return absl::OkStatus();
}

bool SessionPool::IsEnded(const std::string& host, const std::string& identity,
                          uint64_t session_id) const {
  const auto found = entries_.find(KeyOf(host, identity));
  if (found == entries_.end()) return false;
  const std::vector<uint64_t>& ended = found->second->ended;
  return std::find(ended.begin(), ended.end(), session_id) != ended.end();
}

Task<absl::StatusOr<std::shared_ptr<Session>>> SessionPool::Connect(
    std::string host, wire::Guid client_guid, Credential credential, ConnectRules rules,
    ConnectPhase* phase, Deadline deadline) {
  const std::string identity = credential.Identity();
  if (memory_ != nullptr) {
    const absl::Duration remaining = memory_->RefusedFor(host, identity);
    if (remaining > absl::ZeroDuration()) {
      *phase = ConnectPhase::kSessionSetup;
      co_return WithForbidden(
          wire::ToStatus(wire::NtStatus::kLogonFailure,
                         absl::StrCat("log-on to ", host, " (refused a moment ago)")),
          remaining);
    }
  }
  const Deadline until = deadline.Within(options_.connect_timeout);
  uint64_t previous = rules.ends;
  if (previous == 0 && memory_ != nullptr) previous = memory_->PreviousSessionId(host, identity);
  absl::StatusOr<std::shared_ptr<Session>> session = LogOnInterruptedError();
  for (int i = 0; i < kMostLogOns && IsLogOnInterrupted(session.status()); ++i) {
    // The server waits for the rest of the old log-on: a new one has a connection of its own.
    CO_ASSIGN_OR_RETURN(std::shared_ptr<Connection> connection,
                        co_await ConnectAny(host, client_guid, rules, phase, until));
    *phase = ConnectPhase::kSessionSetup;
    session = co_await Session::Setup(std::move(connection), authenticators_, credential, previous,
                                      until);
  }
  if (memory_ != nullptr && session.ok()) {
    memory_->RememberSessionId(host, identity, (*session)->id());
  }
  if (memory_ != nullptr && RefusesUser(session.status())) {
    memory_->RememberRefusal(host, credential, session.status());
    co_return WithForbidden(session.status(), memory_->RefusedFor(host, identity));
  }
  co_return session;
}

Task<absl::StatusOr<std::shared_ptr<Session>>> SessionPool::GetSession(std::string host,
                                                                       Credential credential,
                                                                       ConnectRules rules,
                                                                       ConnectPhase* phase,
                                                                       Deadline deadline) {
  std::shared_ptr<Entry>& slot = entries_[KeyOf(host, credential.Identity())];
  if (slot == nullptr) {
    slot = std::make_shared<Entry>();
    slot->client_guid = options_.client_guid;
  }
  const std::shared_ptr<Entry> entry = slot;
  entry->used = runtime::Loop::Current().Now();
  const auto at_hand = [&] {
    return entry->session != nullptr && MayServe(*entry->session) && entry->session != rules.avoid;
  };
  // Another mount with the same credential may have connected to where this one may not go.
  const auto checked = [&]() -> absl::StatusOr<std::shared_ptr<Session>> {
    if (rules.may_connect != nullptr) {
      RETURN_IF_ERROR(rules.may_connect(entry->session->connection().peer().address));
    }
    return entry->session;
  };
  if (at_hand()) co_return checked();
  const uint64_t failures = entry->failures;
  CO_ASSIGN_OR_RETURN(const runtime::Mutex::Guard guard, co_await entry->connecting.Lock(deadline));
  if (at_hand()) co_return checked();
  if (entry->failures != failures) {
    *phase = entry->failure_phase;
    co_return entry->failure;
  }
  if (rules.join_only) co_return nullptr;
  if (entry->session != nullptr && !entry->session->usable()) {
    NoteFormer(*entry, std::exchange(entry->session, nullptr));
  }
  if (Former* const broken = FindBroken(*entry); broken != nullptr) {
    rules.ends = broken->id;
    broken->broken = false;
    broken->session.reset();
  }
  const bool beside_silent = std::exchange(entry->is_silent, false) || entry->session != nullptr;
  const wire::Guid client_guid =
      beside_silent ? AnotherGuid(entry->client_guid) : entry->client_guid;
  const absl::Time began = runtime::Loop::Current().Now();
  absl::StatusOr<std::shared_ptr<Session>> session =
      co_await Connect(host, client_guid, std::move(credential), rules, phase, deadline);
  const absl::Time now = runtime::Loop::Current().Now();
  if (!session.ok() &&
      !(IsTimeUp(session.status(), deadline) && *phase >= ConnectPhase::kSessionSetup)) {
    for (Former& former : entry->former) former.broken |= former.id == rules.ends;
  }
  if (IsTimeUp(session.status(), deadline) && *phase >= ConnectPhase::kNegotiate &&
      now - began >= kSilent) {
    entry->is_silent = !beside_silent;  // In turn: the whole host may be silent.
  }
  // The one that was silent has answered meanwhile: slow, not dead.
  if (!session.ok() && !absl::IsCancelled(session.status()) && at_hand()) co_return checked();
  if (session.ok()) {
    if (rules.ends != 0) NoteEnded(*entry, rules.ends);
    Install(*entry, *session, client_guid);
    entry->used = now;
  } else if (!absl::IsCancelled(session.status()) &&
             !(*phase == ConnectPhase::kResolve && absl::IsPermissionDenied(session.status())) &&
             (!absl::IsDeadlineExceeded(session.status()) ||
              now - began >= options_.connect_timeout)) {
    // Not so if it was this caller's time that was up: the others may have more.
    ++entry->failures;
    entry->failure = session.status();
    entry->failure_phase = *phase;
  }
  co_return session;
}

Task<absl::StatusOr<std::shared_ptr<Tree>>> SessionPool::GetTree(
    std::string host, std::string share, Credential credential, ConnectPhase* phase,
    Deadline deadline, ConnectRules rules) {
  const absl::StatusOr<std::shared_ptr<Session>> session =
      co_await GetSession(host, std::move(credential), std::move(rules), phase, deadline);
  if (!session.ok()) co_return WithPhase(session.status(), *phase);
  if (*session == nullptr) co_return nullptr;  // rules.join_only
  *phase = ConnectPhase::kTreeConnect;
  const absl::Time began = runtime::Loop::Current().Now();
  const Deadline until = deadline.Within(options_.connect_timeout);
  absl::StatusOr<std::shared_ptr<Tree>> tree =
      co_await (*session)->ConnectTree(std::move(share), until);
  if (!tree.ok()) {
    // A peer that broke the protocol is to see the end of the connection now.
    if (!(*session)->usable()) Retire(**session);
    RetireIfSilent(**session, tree.status(), began, until);
    co_return WithPhase(tree.status(), *phase);
  }
  co_return tree;
}

void SessionPool::Retire(const Session& session) {
  for (auto& [key, entry] : entries_) {
    if (entry->session.get() != &session) continue;
    if (!MayServe(*entry->session) && entry->session->usable()) entry->is_silent = true;
    NoteFormer(*entry, std::exchange(entry->session, nullptr));
  }
}

void SessionPool::RetireIfSilent(const Session& session, const absl::Status& status,
                                 absl::Time began, const Deadline& deadline) {
  if (!IsTimeUp(status, deadline) || runtime::Loop::Current().Now() - began < kSilent) return;
  for (auto& [key, entry] : entries_) {
    if (entry->session.get() == &session) entry->is_silent = true;
  }
  Retire(session);
}

std::shared_ptr<Session> SessionPool::Find(const std::string& host,
                                           const std::string& identity) const {
  const auto found = entries_.find(KeyOf(host, identity));
  if (found == entries_.end() || found->second->session == nullptr ||
      !MayServe(*found->second->session)) {
    return nullptr;
  }
  return found->second->session;
}

std::vector<SessionPool::Listed> SessionPool::List() const {
  std::vector<Listed> listed;
  for (const auto& [key, entry] : entries_) {
    if (entry->session == nullptr || !entry->session->usable()) continue;
    Connection& connection = entry->session->connection();
    listed.push_back({.host = key.first,
                      .peer = connection.peer().ToString(),
                      .suspect = connection.suspect(),
                      .frames_sent = connection.frames_sent()});
  }
  return listed;
}

Task<void> SessionPool::LogOffIdle() {
  while (true) {
    if (!(co_await runtime::Sleep(options_.idle_timeout / 2, Deadline::Never())).ok()) co_return;
    const absl::Time now = runtime::Loop::Current().Now();
    std::vector<std::shared_ptr<Session>> idle;
    for (auto at = entries_.begin(); at != entries_.end();) {
      Entry& entry = *at->second;
      // Somebody holds the session, or is making one: it is in use.
      const bool in_use =
          at->second.use_count() > 1 || (entry.session != nullptr && entry.session.use_count() > 1);
      if (in_use) entry.used = now;
      if (!in_use && now - entry.used >= options_.idle_timeout) {
        if (entry.session != nullptr) idle.push_back(std::move(entry.session));
        entry.session = nullptr;
        const bool forgets = entry.former.empty() || now - entry.used >= kFormerKept;
        at = forgets ? entries_.erase(at) : std::next(at);
      } else {
        ++at;
      }
    }
    for (const std::shared_ptr<Session>& session : idle) {
      (void)co_await session->LogOff(Deadline::After(options_.connect_timeout));
    }
  }
}

}  // namespace dfscsi::smb
