#include "node-agent/vfs/written_record.h"

#include <utility>

namespace dfscsi::vfs {

namespace {

// Copies by tools that round times; and servers' clocks.
constexpr absl::Duration kTolerance = absl::Seconds(2);

bool IsOlder(const WrittenRecord::Written& written, const WrittenRecord::Seen& seen) {
  // Changed since, by whomever; a copy keeps the time of what it copies.
  if (!written.set_time.has_value()) return seen.last_write < written.when - kTolerance;
  const absl::Duration apart = absl::AbsDuration(seen.last_write - *written.set_time);
  if (apart <= kTolerance && seen.size_bytes == written.size_bytes) return false;
  return seen.last_write < written.when - kTolerance;
}

}  // namespace

void WrittenRecord::NoteWritten(std::u16string_view key, const Written& written, absl::Time until) {
  const auto [entry, is_new] = entries_.try_emplace(std::u16string(key));
  if (is_new) {
    entry->second.place = oldest_first_.insert(oldest_first_.end(), entry->first);
  } else {
    oldest_first_.splice(oldest_first_.end(), oldest_first_, entry->second.place);
  }
  entry->second.written = written;
  entry->second.until = until;
  entry->second.told = false;
  if (entries_.size() > kMost) Erase(std::u16string(oldest_first_.front()));
}

void WrittenRecord::NoteTimeSet(std::u16string_view key, uint64_t server_key, absl::Time set_time) {
  const auto entry = entries_.find(std::u16string(key));
  if (entry == entries_.end() || entry->second.written.server_key != server_key) return;
  entry->second.written.set_time = set_time;
}

void WrittenRecord::NoteRenamed(std::u16string_view from, std::u16string_view to) {
  const auto entry = entries_.find(std::u16string(from));
  if (entry == entries_.end()) return Erase(to);
  const Written written = entry->second.written;
  const absl::Time until = entry->second.until;
  Erase(from);
  NoteWritten(to, written, until);
}

WrittenRecord::Verdict WrittenRecord::Judge(std::u16string_view key, const Seen& seen,
                                            absl::Time now) {
  const auto found = entries_.find(std::u16string(key));
  if (found == entries_.end()) return Verdict::kUnknown;
  Entry& entry = found->second;
  if (entry.until <= now) {
    Erase(key);
    return Verdict::kUnknown;
  }
  if (entry.written.server_key == seen.server_key) return Verdict::kUnknown;
  if (!IsOlder(entry.written, seen)) return Verdict::kNotOlder;
  return std::exchange(entry.told, true) ? Verdict::kOlderAgain : Verdict::kOlder;
}

void WrittenRecord::Erase(std::u16string_view key) {
  const auto entry = entries_.find(std::u16string(key));
  if (entry == entries_.end()) return;
  oldest_first_.erase(entry->second.place);
  entries_.erase(entry);
}

}  // namespace dfscsi::vfs
