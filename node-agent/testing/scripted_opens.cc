#include "node-agent/testing/scripted_opens.h"

#include <algorithm>

#include "node-agent/testing/scripted_connection.h"
#include "node-agent/testing/scripted_server.h"

namespace dfscsi::testing {
namespace {

using smb::wire::NtStatus;

// As long as Windows waits for an acknowledgment.
constexpr absl::Duration kBreakTime = absl::Seconds(35);

constexpr uint32_t kReads = smb::wire::kAccessReadData | smb::wire::kAccessExecute;
constexpr uint32_t kWrites = smb::wire::kAccessWriteData | smb::wire::kAccessAppendData;

bool Forbids(uint32_t share_access, uint32_t access) {
  return ((access & kReads) != 0 && (share_access & smb::wire::kShareRead) == 0) ||
         ((access & kWrites) != 0 && (share_access & smb::wire::kShareWrite) == 0) ||
         ((access & smb::wire::kAccessDelete) != 0 &&
          (share_access & smb::wire::kShareDelete) == 0);
}

bool Uses(uint32_t access) { return (access & (kReads | kWrites | smb::wire::kAccessDelete)) != 0; }

}  // namespace

bool ScriptedOpen::uses_data() const { return Uses(access); }

void ScriptedOpens::SetNow(absl::Time now) {
  now_ = now;
  for (auto at = durable_.begin(); at != durable_.end();) {
    if (at->second.expires > now) {
      ++at;
      continue;
    }
    ScriptedOpen open = std::move(at->second);
    at = durable_.erase(at);
    End(std::move(open));
  }
  for (auto& [id, lease] : leases_) {
    if (!lease.breaking || lease.break_ends > now) continue;
    lease.breaking = false;
    lease.state = lease.breaking_to;
    changed_.NotifyAll();
  }
}

// --- Opens

void ScriptedOpens::ForEach(const ScriptedFile& file,
                            const std::function<void(ScriptedOpen&)>& visit) {
  for (const auto& [id, session] : server_.sessions_) {
    for (auto& [open_id, open] : session->opens) {
      if (open.file.get() == &file) visit(open);
    }
  }
  for (auto& [id, open] : durable_) {
    if (open.file.get() == &file) visit(open);
  }
}

bool ScriptedOpens::ViolatesSharing(const ScriptedFile& file, uint32_t access,
                                    uint32_t share_access) {
  if (!Uses(access)) return false;
  bool violates = false;
  ForEach(file, [&](const ScriptedOpen& open) {
    violates |= open.uses_data() &&
                (Forbids(open.share_access, access) || Forbids(share_access, open.access));
  });
  return violates;
}

bool ScriptedOpens::IsLocked(const ScriptedFile& file, uint64_t owner, uint64_t offset,
                             uint64_t length, bool to_write) {
  return std::any_of(file.locks.begin(), file.locks.end(), [&](const ScriptedLock& lock) {
    return lock.owner != owner && (lock.exclusive || to_write) && length > 0 &&
           offset < lock.offset + lock.length_bytes && lock.offset < offset + length;
  });
}

bool ScriptedOpens::HasOpensBelow(const ScriptedFile& directory) {
  const auto is_below = [&](const ScriptedOpen& open) {
    for (std::shared_ptr<ScriptedFile> at = open.file->parent.lock(); at != nullptr;
         at = at->parent.lock()) {
      if (at.get() == &directory) return true;
    }
    return false;
  };
  for (const auto& [id, session] : server_.sessions_) {
    for (const auto& [open_id, open] : session->opens) {
      if (is_below(open)) return true;
    }
  }
  return false;
}

void ScriptedOpens::End(ScriptedOpen open) {
  ScriptedFile& file = *open.file;
  std::erase_if(file.locks,
                [&](const ScriptedLock& lock) { return lock.owner == open.id.persistent_id; });
  DropLeaseIfUnused(open);
  if (open.has_written && !open.sets_time) file.last_write = now_;
  if (open.delete_on_close) file.delete_pending = true;
  if (file.delete_pending) {
    bool others = false;
    ForEach(file, [&](const ScriptedOpen& other) { others |= other.id != open.id; });
    if (!others || open.posix_delete) ScriptedShare::Unlink(open.file);
  }
  changed_.NotifyAll();
}

void ScriptedOpens::EndSession(ScriptedSession& session, bool keep_durable) {
  std::map<uint64_t, ScriptedOpen> opens = std::move(session.opens);
  session.opens.clear();
  for (auto& [id, open] : opens) {
    if (keep_durable && open.durable_for > absl::ZeroDuration()) {
      open.expires = now_ + open.durable_for;
      const uint64_t persistent = open.id.persistent_id;
      durable_[persistent] = std::move(open);
    } else {
      End(std::move(open));
    }
  }
  changed_.NotifyAll();
}

void ScriptedOpens::ForgetVolatile() {
  for (auto at = durable_.begin(); at != durable_.end();) {
    if (at->second.persistent) {
      ++at;
      continue;
    }
    ScriptedOpen open = std::move(at->second);
    at = durable_.erase(at);
    End(std::move(open));
  }
}

std::optional<ScriptedOpen> ScriptedOpens::TakeDurable(
    const smb::wire::DurableReconnect& reconnect, const smb::wire::Guid& client,
    const std::optional<smb::wire::Lease>& lease) {
  const auto found = durable_.find(reconnect.file_id.persistent_id);
  if (found == durable_.end()) return std::nullopt;
  const ScriptedOpen& open = found->second;
  if (open.client != client || open.create_guid != reconnect.create_guid ||
      open.lease_key.has_value() != lease.has_value() ||
      (lease.has_value() && *open.lease_key != lease->key)) {
    return std::nullopt;
  }
  ScriptedOpen taken = std::move(found->second);
  durable_.erase(found);
  taken.expires = absl::InfiniteFuture();
  return taken;
}

void ScriptedOpens::DropDurable(const ScriptedFile& file, uint32_t access, uint32_t share_access) {
  for (auto at = durable_.begin(); at != durable_.end();) {
    const ScriptedOpen& open = at->second;
    if (open.file.get() != &file || open.persistent ||
        !(Forbids(open.share_access, access) || Forbids(share_access, open.access))) {
      ++at;
      continue;
    }
    ScriptedOpen dropped = std::move(at->second);
    at = durable_.erase(at);
    End(std::move(dropped));
  }
}

// --- Leases

ScriptedLease* ScriptedOpens::FindLease(const smb::wire::Guid& client,
                                        const smb::wire::LeaseKey& key) {
  const auto found = leases_.find({client, key});
  return found == leases_.end() ? nullptr : &found->second;
}

ScriptedLease& ScriptedOpens::Grant(const smb::wire::Guid& client, const smb::wire::Lease& asked,
                                    const std::shared_ptr<ScriptedFile>& file) {
  bool others = false;
  ForEach(*file, [&](const ScriptedOpen& open) {
    others |= open.uses_data() && (open.client != client || open.lease_key != asked.key);
  });
  ScriptedLease& lease = leases_[{client, asked.key}];
  const bool is_new = lease.file == nullptr;
  lease.client = client;
  lease.key = asked.key;
  lease.v2 = asked.v2;
  lease.file = file;
  if (is_new) lease.epoch = asked.epoch;
  uint32_t state = asked.state;
  if (others) state &= ~uint32_t{smb::wire::kLeaseWrite};
  if (file->is_directory()) state = 0;
  // Only up, and not while it is being taken down.
  if (!lease.breaking && (state & lease.state) == lease.state && state != lease.state) {
    lease.state = state;
    ++lease.epoch;
  }
  return lease;
}

bool ScriptedOpens::BreakOthers(const ScriptedFile& file, const smb::wire::Guid& client,
                                const std::optional<smb::wire::LeaseKey>& except, uint32_t keep) {
  bool waits = false;
  for (auto& [id, lease] : leases_) {
    if (lease.file.get() != &file) continue;
    if (lease.client == client && except.has_value() && lease.key == *except) continue;
    uint32_t to = lease.state & keep;
    if ((to & smb::wire::kLeaseRead) == 0) to = 0;  // H and W go with R alone.
    if (to != lease.state && !lease.breaking) Break(lease, to);
    waits |= lease.breaking;
  }
  return waits;
}

void ScriptedOpens::Break(ScriptedLease& lease, uint32_t to) {
  if (lease.breaking) return;  // Further down, if need be, once this is acknowledged.
  smb::wire::LeaseBreakNotification notification;
  notification.key = lease.key;
  notification.current_state = lease.state;
  notification.new_state = to;
  notification.ack_required = (lease.state & ~uint32_t{smb::wire::kLeaseRead}) != 0;
  if (lease.v2) notification.new_epoch = ++lease.epoch;
  for (ScriptedConnection* const connection : server_.connections_) {
    if (connection->client() != lease.client) continue;
    connection->SendBreak(notification);
    if (!notification.ack_required) {
      lease.state = to;
      return;
    }
    lease.breaking = true;
    lease.breaking_to = to;
    lease.break_ends = now_ + kBreakTime;
    return;
  }
  // Its client is away. A durable handle does not outlive a lease that another one needs.
  lease.state = to;
  const smb::wire::Guid client = lease.client;
  const smb::wire::LeaseKey key = lease.key;
  for (auto at = durable_.begin(); at != durable_.end();) {
    if (at->second.client != client || at->second.lease_key != key || at->second.persistent) {
      ++at;
      continue;
    }
    std::erase_if(at->second.file->locks, [&](const ScriptedLock& lock) {
      return lock.owner == at->second.id.persistent_id;
    });
    at = durable_.erase(at);
  }
}

NtStatus ScriptedOpens::Acknowledge(const smb::wire::Guid& client, const smb::wire::LeaseKey& key,
                                    uint32_t state) {
  ScriptedLease* const lease = FindLease(client, key);
  if (lease == nullptr) return NtStatus::kObjectNameNotFound;
  if (!lease->breaking) return NtStatus::kUnsuccessful;
  if ((state & ~lease->breaking_to) != 0) return NtStatus::kRequestNotAccepted;
  lease->breaking = false;
  lease->state = state;
  changed_.NotifyAll();
  return NtStatus::kSuccess;
}

void ScriptedOpens::DropLeaseIfUnused(const ScriptedOpen& closed) {
  if (!closed.lease_key.has_value()) return;
  bool used = false;
  ForEach(*closed.file, [&](const ScriptedOpen& open) {
    used |=
        open.id != closed.id && open.client == closed.client && open.lease_key == closed.lease_key;
  });
  if (!used) leases_.erase({closed.client, *closed.lease_key});
}

}  // namespace dfscsi::testing
