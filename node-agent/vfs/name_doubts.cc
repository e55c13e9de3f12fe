#include "node-agent/vfs/name_doubts.h"

#include <algorithm>

#include "node-agent/base/status_macros.h"

namespace dfscsi::vfs {
namespace {

bool Covers(const std::vector<dfs::DfsPath>& names, const dfs::DfsPath& path) {
  return std::any_of(names.begin(), names.end(),
                     [&](const dfs::DfsPath& name) { return path.HasPrefix(name); });
}

}  // namespace

void NameDoubts::Doubt::Begin() {
  if (std::exchange(begun_, true)) return;
  record_ = names_->doubts_.insert(names_->doubts_.end(), Record{.paths = std::move(paths_)});
}

NameDoubts::Doubt::~Doubt() {
  if (!begun_) return;
  record_->ended = ++names_->now_;
  names_->ended_.splice(names_->ended_.end(), names_->doubts_, record_);
  if (names_->ended_.size() > kMostEnded) {
    names_->forgotten_ = names_->ended_.front().ended;
    names_->ended_.pop_front();
  }
  names_->settled_.NotifyAll();
}

bool NameDoubts::Touched(const dfs::DfsPath& path, uint64_t since) const {
  const auto touches = [&](const Record& record) {
    return record.ended > since && Covers(record.paths, path);
  };
  return forgotten_ > since || std::any_of(doubts_.begin(), doubts_.end(), touches) ||
         std::any_of(ended_.begin(), ended_.end(), touches);
}

bool NameDoubts::IsInDoubt(const dfs::DfsPath& path) const {
  return std::any_of(doubts_.begin(), doubts_.end(),
                     [&](const Record& record) { return Covers(record.paths, path); });
}

runtime::Task<absl::Status> NameDoubts::AwaitSettled(dfs::DfsPath path,
                                                     runtime::Deadline deadline) {
  while (IsInDoubt(path)) CO_RETURN_IF_ERROR(co_await settled_.WaitForNotify(deadline));
  co_return absl::OkStatus();
}

NameDoubts::Opening::~Opening() {
  names_->opening_.erase(path_);
  names_->opened_.NotifyAll();
}

bool NameDoubts::IsBeingOpened(const dfs::DfsPath& path) const {
  return std::find(opening_.begin(), opening_.end(), path) != opening_.end();
}

runtime::Task<absl::Status> NameDoubts::AwaitOpened(dfs::DfsPath path, runtime::Deadline deadline) {
  while (IsBeingOpened(path)) CO_RETURN_IF_ERROR(co_await opened_.WaitForNotify(deadline));
  co_return absl::OkStatus();
}

}  // namespace dfscsi::vfs
