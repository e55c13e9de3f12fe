#include "node-agent/vfs/write_behind.h"

#include <algorithm>

#include "node-agent/base/status_macros.h"

namespace dfscsi::vfs {

using runtime::Deadline;
using runtime::Task;

namespace {

bool Overlap(const WriteBehind::Range& a, const WriteBehind::Range& b) {
  return a.offset < b.offset + b.size_bytes && b.offset < a.offset + a.size_bytes;
}

}  // namespace

WriteBehind::Pending WriteBehind::Begin(state::NodeId node, const Range& range) {
  File& file = files_[node];
  file.writes[next_number_] = range;
  file.held_bytes += range.held_bytes;
  held_bytes_ += range.held_bytes;
  ++writes_;
  return Pending(this, node, next_number_++);
}

void WriteBehind::End(state::NodeId node, uint64_t number) {
  const auto file = files_.find(node);
  const auto write = file->second.writes.find(number);
  file->second.held_bytes -= write->second.held_bytes;
  held_bytes_ -= write->second.held_bytes;
  --writes_;
  file->second.writes.erase(write);
  if (file->second.writes.empty()) files_.erase(file);
  ended_.NotifyAll();
}

bool WriteBehind::MayBegin(state::NodeId node, const Range& range) const {
  const auto file = files_.find(node);
  if (file == files_.end()) return true;
  const auto& [writes, held_bytes] = file->second;
  if (writes.size() >= kMostWritesOfFile || held_bytes + range.held_bytes > kMostBytesOfFile) {
    return false;
  }
  return std::none_of(writes.begin(), writes.end(),
                      [&](const auto& write) { return Overlap(write.second, range); });
}

Task<absl::Status> WriteBehind::AwaitTurn(state::NodeId node, Range range, Deadline deadline) {
  while (!MayBegin(node, range)) CO_RETURN_IF_ERROR(co_await ended_.WaitForNotify(deadline));
  co_return absl::OkStatus();
}

Task<absl::Status> WriteBehind::AwaitEndOf(std::vector<state::NodeId> nodes, uint64_t before,
                                           Deadline deadline) {
  // What comes later is not waited for: a writer that goes on must not keep others for ever.
  for (const state::NodeId node : nodes) {
    while (true) {
      const auto file = files_.find(node);
      if (file == files_.end() || file->second.writes.begin()->first >= before) break;
      CO_RETURN_IF_ERROR(co_await ended_.WaitForNotify(deadline));
    }
  }
  co_return absl::OkStatus();
}

uint64_t WriteBehind::EndOf(state::NodeId node) const {
  uint64_t end = 0;
  const auto file = files_.find(node);
  if (file == files_.end()) return end;
  for (const auto& [number, write] : file->second.writes) {
    end = std::max(end, write.offset + write.size_bytes);
  }
  return end;
}

uint64_t WriteBehind::LeastBaseOf(state::NodeId node) const {
  uint64_t least = ~uint64_t{0};
  const auto file = files_.find(node);
  if (file == files_.end()) return least;
  for (const auto& [number, write] : file->second.writes) least = std::min(least, write.base);
  return least;
}

std::vector<state::NodeId> WriteBehind::Nodes() const {
  std::vector<state::NodeId> nodes;
  nodes.reserve(files_.size());
  for (const auto& [node, file] : files_) nodes.push_back(node);
  return nodes;
}

}  // namespace dfscsi::vfs
