#include "node-agent/state/heartbeat.h"

#include "node-agent/base/status_macros.h"

namespace dfscsi::state {

static_assert(sizeof(TwoCopies<Heartbeat::MounterNote>) <= 64);

absl::StatusOr<UniqueFd> Heartbeat::Create() { return CreateSharedMemory("dfs-heartbeat", kBytes); }

absl::StatusOr<Heartbeat> Heartbeat::Map(int fd) {
  ASSIGN_OR_RETURN(SharedMemory memory, SharedMemory::Map(fd, kBytes));
  return Heartbeat(std::move(memory));
}

std::atomic<uint64_t>& Heartbeat::Line(uint32_t line) const {
  return *reinterpret_cast<std::atomic<uint64_t>*>(memory_.data() + size_t{line % kLines} * 64);
}

void Heartbeat::Beat(uint32_t line) { Line(line).fetch_add(1, std::memory_order_relaxed); }

uint64_t Heartbeat::Count(uint32_t line) const {
  return Line(line).load(std::memory_order_relaxed);
}

void Heartbeat::Clear(uint32_t line) { Line(line).store(0, std::memory_order_relaxed); }

void Heartbeat::SetNote(const MounterNote& note) {
  reinterpret_cast<TwoCopies<MounterNote>*>(memory_.data())->Set(note);
}

Heartbeat::MounterNote Heartbeat::GetNote() const {
  return reinterpret_cast<TwoCopies<MounterNote>*>(memory_.data())->Get();
}

}  // namespace dfscsi::state
