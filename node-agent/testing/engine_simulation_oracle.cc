#include "node-agent/testing/engine_simulation_oracle.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "node-agent/runtime/sim_network.h"
#include "node-agent/testing/engine_simulation_lab.h"
#include "node-agent/testing/scripted_share.h"

namespace dfscsi::simulation {

void Oracle::Violation(const std::string& what) {
  world_.Log(absl::StrCat("VIOLATION ", what));
  violations_.push_back(absl::StrCat(
      absl::FormatDuration(world_.now() - (absl::UnixEpoch() + absl::Hours(24))), " ", what));
}

void Oracle::CheckProgress(const RequestRecord& record, absl::Time served_since,
                           absl::Time agent_since) {
  const absl::Time now = world_.now();
  const absl::Duration waited = now - std::max({record.asked, served_since, agent_since});
  if (record.patience == absl::ZeroDuration()) longest_wait_ = std::max(longest_wait_, waited);
  if (waited > kProgress + record.patience) {
    Violation(absl::StrCat("opcode ", record.opcode, " of link \"", record.link, "\" (unique ",
                           record.unique, ", asked ", absl::FormatDuration(now - record.asked),
                           " ago) is owed an answer for ", absl::FormatDuration(waited)));
  }
  const absl::Duration ignored = now - std::max(record.interrupted, agent_since);
  if (ignored > kInterrupted) {
    Violation(absl::StrCat("opcode ", record.opcode, " of link \"", record.link,
                           "\" was interrupted ", absl::FormatDuration(ignored), " ago"));
  }
}

void Oracle::WatchAnswers(uint32_t opcode) {
  watched_opcode_ = opcode;
  watched_since_ = world_.now();
  watched_answers_ = 0;
  longest_watched_ = absl::ZeroDuration();
}

void Oracle::NoteAnswer(const RequestRecord& record, absl::Time agent_since) {
  const absl::Time now = world_.now();
  if (record.opcode != watched_opcode_ || now < watched_since_) return;
  ++watched_answers_;
  longest_watched_ =
      std::max(longest_watched_, now - std::max({record.asked, watched_since_, agent_since}));
}

void Oracle::CheckBytes(std::string_view file, uint64_t offset, uint64_t asked,
                        std::string_view got) {
  const int index = file.back() - '0';
  const uint64_t size = kFileBytes[index];
  const uint64_t want = offset >= size ? 0 : std::min(asked, size - offset);
  if (got.size() != want) {
    Violation(absl::StrCat("READ of ", std::string(file), " at ", offset, ": ", got.size(),
                           " bytes instead of ", want));
    return;
  }
  std::vector<uint8_t> expected(got.size());
  testing::FillContent(testing::ContentSeed(file), offset, absl::MakeSpan(expected));
  if (!std::equal(expected.begin(), expected.end(), got.begin(),
                  [](uint8_t a, char b) { return a == static_cast<uint8_t>(b); })) {
    Violation(absl::StrCat("READ of ", std::string(file), " at ", offset, ": wrong bytes"));
  }
}

void Oracle::CheckInode(uint32_t mount, const std::string& path, uint64_t ino) {
  const auto [known, is_new] = inodes_.emplace(absl::StrCat(mount, ":", path), ino);
  if (known->second != ino) Violation(absl::StrCat(path, ": another inode number"));
}

void Oracle::CheckFileSize(const std::string& path, uint64_t expected, uint64_t got) {
  if (got != expected) {
    Violation(absl::StrCat(path, ": ", got, " bytes long instead of ", expected));
  }
}

void Oracle::CheckListing(const std::string& path, std::vector<std::string> names, int entries) {
  std::vector<std::string> want = {".", ".."};
  for (int i = 0; i < entries; ++i) want.push_back(EntryName(i));
  std::sort(want.begin(), want.end());
  std::sort(names.begin(), names.end());
  if (names == want) return;
  std::vector<std::string> lost;
  std::vector<std::string> extra;
  std::set_difference(want.begin(), want.end(), names.begin(), names.end(),
                      std::back_inserter(lost));
  std::set_difference(names.begin(), names.end(), want.begin(), want.end(),
                      std::back_inserter(extra));
  Violation(absl::StrCat("listing of ", path, ": ", lost.size(), " names lost, ", extra.size(),
                         " doubled or foreign",
                         lost.empty() ? "" : absl::StrCat("; lost ", lost.front()),
                         extra.empty() ? "" : absl::StrCat("; extra ", extra.front())));
}

void Oracle::CheckConnects(const std::vector<absl::Time>& starts) {
  const auto life_of = [&](absl::Time when) {
    return std::upper_bound(starts.begin(), starts.end(), when) - starts.begin();
  };
  std::map<runtime::SocketAddress, std::vector<absl::Time>> by_server;
  for (const auto& attempt : world_.network().connect_attempts()) {
    by_server[attempt.to].push_back(attempt.when);
  }
  for (const auto& [server, times] : by_server) {
    for (size_t i = kMostConnects; i < times.size(); ++i) {
      const absl::Time first = times[i - kMostConnects];
      if (times[i] - first < absl::Seconds(1) && life_of(first) == life_of(times[i])) {
        Violation(
            absl::StrCat(server.ToString(), ": more than ", kMostConnects,
                         " connection attempts in a second, until ",
                         absl::FormatDuration(times[i] - absl::UnixEpoch() - absl::Hours(24))));
        return;
      }
    }
  }
}

}  // namespace dfscsi::simulation
