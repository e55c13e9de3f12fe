#include "node-agent/vfs/file_lease.h"

#include <optional>
#include <utility>

#include "node-agent/runtime/loop.h"
#include "node-agent/smb/session.h"
#include "node-agent/smb/wire/create.h"
#include "node-agent/smb/wire/nt_status.h"

namespace dfscsi::vfs {

namespace wire = smb::wire;

namespace {

// After R was asked for in vain, reads go on without it for so long.
constexpr absl::Duration kAskAgainAfter = absl::Seconds(1);

wire::LeaseKey DrawKey() {
  wire::LeaseKey key;
  uint64_t bits = 0;
  for (size_t i = 0; i < key.size(); ++i) {
    if (i % sizeof bits == 0) bits = runtime::Loop::Current().Random();
    key[i] = static_cast<uint8_t>(bits);
    bits >>= 8;
  }
  return key;
}

}  // namespace

uint32_t LeaseStateFor(uint32_t access, bool write_behind) {
  const bool writes =
      write_behind && (access & (wire::kAccessWriteData | wire::kAccessAppendData)) != 0;
  return writes ? wire::kLeaseRead | wire::kLeaseWrite | wire::kLeaseHandle : wire::kLeaseRead;
}

bool IsLeaseRefused(const absl::Status& status) {
  const std::optional<wire::NtStatus> answer = wire::NtStatusOf(status);
  return answer == wire::NtStatus::kInvalidParameter || answer == wire::NtStatus::kNotSupported;
}

LeaseTenure::LeaseTenure(std::shared_ptr<smb::Tree> tree, OnBroken on_broken,
                         std::function<bool()> is_unwritten, bool write_behind,
                         std::optional<wire::LeaseKey> key)
    : tree_(std::move(tree)),
      on_broken_(std::move(on_broken)),
      is_unwritten_(std::move(is_unwritten)),
      write_behind_(write_behind),
      key_(key.has_value() ? *key : DrawKey()) {}

LeaseTenure::~LeaseTenure() { tree_->session().leases().Forget(key_); }

uint32_t LeaseTenure::state() const {
  return tree_->usable() ? tree_->session().leases().StateOf(key_) : 0;
}

wire::Lease LeaseTenure::ToAsk(uint32_t access) const {
  return {.key = key_, .state = LeaseStateFor(access, write_behind_)};
}

void LeaseTenure::NoteAnswer(uint32_t granted, uint64_t breaks, absl::Time now) {
  if ((granted & wire::kLeaseRead) != 0) {
    read_lost_ = false;
  } else if (breaks == breaks_) {  // Else it was granted, and taken down on its way.
    ask_again_at_ = now + kAskAgainAfter;
  }
}

bool LeaseTenure::IsReadLost(absl::Time now) const {
  return read_lost_ && answering_ == 0 && now >= ask_again_at_ && tree_->usable();
}

void LeaseTenure::OnLeaseBreak(const smb::LeaseBreak& broken) {
  ++breaks_;
  if ((broken.to & wire::kLeaseRead) == 0) read_lost_ = true;
  on_broken_(shared_from_this(), broken);
}

std::shared_ptr<LeaseTenure> FileLease::On(const std::shared_ptr<smb::Tree>& tree) {
  std::shared_ptr<LeaseTenure> current = current_.lock();
  if (current != nullptr && &current->tree() == tree.get()) return current;
  std::shared_ptr<LeaseTenure> former = former_.lock();
  if (former != nullptr && &former->tree() == tree.get()) {
    std::swap(current_, former_);  // Its link has moved back.
    return former;
  }
  former_ = current_;
  std::shared_ptr<LeaseTenure> begun = std::make_shared<LeaseTenure>(
      tree,
      [lease = weak_from_this()](std::shared_ptr<LeaseTenure> tenure,
                                 const smb::LeaseBreak& broken) {
        const std::shared_ptr<FileLease> self = lease.lock();
        if (self == nullptr) return;
        if ((broken.to & wire::kLeaseRead) == 0) ++self->reads_lost_;
        self->on_broken_(*self, std::move(tenure), broken);
      },
      [lease = weak_from_this()] {
        const std::shared_ptr<FileLease> self = lease.lock();
        return self != nullptr && self->is_unwritten_(self->node_);
      },
      write_behind_, next_key_);
  current_ = begun;
  return begun;
}

uint32_t FileLease::state() const {
  const std::shared_ptr<LeaseTenure> current = current_.lock();
  if (current == nullptr) return 0;
  const std::shared_ptr<LeaseTenure> former = former_.lock();
  if (former == nullptr) return current->state();
  return current->state() & former->state() & wire::kLeaseRead;
}

}  // namespace dfscsi::vfs
