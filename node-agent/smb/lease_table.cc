#include "node-agent/smb/lease_table.h"

#include <utility>
#include <vector>

#include "node-agent/smb/wire/utf16.h"

namespace dfscsi::smb {
namespace {

// Epochs go round: half of the circle lies ahead.
bool IsNewer(uint16_t epoch, uint16_t than) {
  return static_cast<int16_t>(static_cast<uint16_t>(epoch - than)) > 0;
}

}  // namespace

LeaseTable::Ticket LeaseTable::Ask(const wire::LeaseKey& key, uint32_t tree_id,
                                   std::weak_ptr<LeaseObserver> observer) {
  Lease& lease = leases_[key];
  lease.observer = std::move(observer);
  lease.tree_id = tree_id;
  ++lease.asking;
  return {.epoch = lease.epoch.value_or(0), .breaks = lease.breaks};
}

uint32_t LeaseTable::OnGranted(const wire::Lease& granted, Ticket ticket) {
  const auto found = leases_.find(granted.key);
  if (found == leases_.end()) return 0;
  Lease& lease = found->second;
  --lease.asking;
  // A break has overtaken this answer on its way to us, or waits to be acknowledged, and until then
  // the server tells the state of before: what it left, or what was acknowledged.
  const bool breaking = (granted.flags & wire::kLeaseBreakInProgress) != 0;
  const bool overtaken = breaking || lease.breaks != ticket.breaks;
  const uint32_t left = overtaken ? granted.state & lease.broken_to : granted.state;
  if (!granted.v2 || breaking) {
    lease.state = left;  // Version 1 has no epochs to tell which came first.
  } else if (!lease.epoch.has_value() || IsNewer(granted.epoch, *lease.epoch)) {
    lease.state = granted.state;
    lease.epoch = granted.epoch;
  } else if (overtaken) {
    lease.state |= left;
  } else if (granted.epoch == *lease.epoch) {
    lease.state = granted.state;
  }
  return lease.state;
}

void LeaseTable::OnRefused(const wire::LeaseKey& key) {
  const auto found = leases_.find(key);
  if (found == leases_.end()) return;
  if (--found->second.asking == 0 && found->second.state == 0) Forget(key);
}

LeaseTable::Broken LeaseTable::OnBreak(const wire::LeaseBreakNotification& notification) {
  Broken broken{.lease_break = {.key = notification.key,
                                .from = notification.current_state,
                                .to = notification.new_state,
                                .must_acknowledge = notification.ack_required},
                .observer = nullptr};
  const auto found = leases_.find(notification.key);
  if (found == leases_.end()) return broken;
  Lease& lease = found->second;
  ++lease.breaks;
  lease.broken_to = notification.new_state;
  // Only ever down: a break that comes late, or twice, gives nothing.
  lease.state &= notification.new_state;
  if (notification.new_epoch != 0 &&
      (!lease.epoch.has_value() || IsNewer(notification.new_epoch, *lease.epoch))) {
    lease.epoch = notification.new_epoch;
  }
  broken.observer = lease.observer.lock();
  return broken;
}

void LeaseTable::OnAcknowledged(const wire::LeaseKey& key, uint32_t state) {
  const auto found = leases_.find(key);
  if (found == leases_.end()) return;
  found->second.state &= state;
  found->second.broken_to &= state;
}

void LeaseTable::Forget(const wire::LeaseKey& key) {
  const auto found = leases_.find(key);
  if (found == leases_.end()) return;
  Unname(found->second);
  leases_.erase(found);
}

void LeaseTable::Unname(const Lease& lease) {
  if (lease.name.has_value()) names_.erase(*lease.name);
}

void LeaseTable::SetName(const wire::LeaseKey& key, uint32_t tree_id, std::u16string_view name) {
  const auto found = leases_.find(key);
  if (found == leases_.end()) return;
  ForgetName(tree_id, name);
  Unname(found->second);
  found->second.name = Name(tree_id, wire::FoldCase(name));
  names_[*found->second.name] = key;
}

std::optional<wire::Lease> LeaseTable::OfName(uint32_t tree_id, std::u16string_view name) const {
  if (names_.empty()) return std::nullopt;
  const auto found = names_.find(Name(tree_id, wire::FoldCase(name)));
  if (found == names_.end()) return std::nullopt;
  const Lease& lease = leases_.at(found->second);
  if ((lease.state & wire::kLeaseRead) == 0) return std::nullopt;
  const std::shared_ptr<LeaseObserver> observer = lease.observer.lock();
  if (observer != nullptr && observer->IsUnwritten()) return std::nullopt;
  return wire::Lease{
      .key = found->second, .state = wire::kLeaseRead, .epoch = lease.epoch.value_or(0)};
}

void LeaseTable::Rename(uint32_t tree_id, std::u16string_view from, std::u16string_view to) {
  const std::u16string old_name = wire::FoldCase(from);
  std::vector<std::pair<wire::LeaseKey, std::u16string>> renamed;
  for (auto at = names_.lower_bound(Name(tree_id, old_name)); at != names_.end(); ++at) {
    const auto& [tree, name] = at->first;
    if (tree != tree_id || !name.starts_with(old_name)) break;
    if (name.size() > old_name.size() && name[old_name.size()] != u'\\') continue;
    renamed.emplace_back(at->second, std::u16string(to) + name.substr(old_name.size()));
  }
  for (const auto& [key, name] : renamed) SetName(key, tree_id, name);
}

bool LeaseTable::ForgetName(uint32_t tree_id, std::u16string_view name) {
  const auto found = names_.find(Name(tree_id, wire::FoldCase(name)));
  if (found == names_.end()) return false;
  leases_.at(found->second).name.reset();
  names_.erase(found);
  return true;
}

uint32_t LeaseTable::StateOf(const wire::LeaseKey& key) const {
  const auto found = leases_.find(key);
  return found == leases_.end() ? 0 : found->second.state;
}

std::optional<uint32_t> LeaseTable::TreeOf(const wire::LeaseKey& key) const {
  const auto found = leases_.find(key);
  if (found == leases_.end()) return std::nullopt;
  return found->second.tree_id;
}

}  // namespace dfscsi::smb
