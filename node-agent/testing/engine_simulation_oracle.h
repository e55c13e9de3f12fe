// What must be true of a simulated engine, whatever happens.
//
//   no wrong byte, name, size or inode number     the workload asks Check…()
//   no request lost or answered twice             every unique is followed from question to answer
//   progress                                      within kProgress once somebody serves the link
//   an interrupt ends what it interrupts          within kInterrupted
//   no false failover                             where nothing but slowness happens
//   ten connection attempts a second              per server, at most
//
// The first violation ends the seed.

#ifndef NODE_AGENT_TESTING_ENGINE_SIMULATION_ORACLE_H_
#define NODE_AGENT_TESTING_ENGINE_SIMULATION_ORACLE_H_

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "node-agent/runtime/sim_world.h"

namespace dfscsi::simulation {

// How long a request may wait for servers that are well, an agent that runs and a settled referral.
// In it: a connection whose peer is gone without a word (suspect after 1 s, searched again at
// once), a target that was just seen to be down (back-off 5 s), a namespace server that hangs (5 s
// for each referral), retransmissions.
inline constexpr absl::Duration kProgress = absl::Seconds(15);
inline constexpr absl::Duration kInterrupted = absl::Seconds(1);
inline constexpr int kMostConnects = 10;

struct RequestRecord {
  uint64_t unique = 0;
  uint32_t opcode = 0;
  std::string link;
  absl::Time asked;
  absl::Duration patience = absl::ZeroDuration();  // It may wait so much longer than others.
  absl::Time interrupted = absl::InfiniteFuture();
};

class Oracle {
 public:
  explicit Oracle(runtime::SimWorld& world) : world_(world) {}

  bool failed() const { return !violations_.empty(); }
  const std::vector<std::string>& violations() const { return violations_; }
  void Violation(const std::string& what);

  // `served_since`: since when nothing keeps the request from being answered.
  void CheckProgress(const RequestRecord& record, absl::Time served_since, absl::Time agent_since);
  void CheckBytes(std::string_view file, uint64_t offset, uint64_t asked, std::string_view got);
  // Of one mount: a path has one inode number for as long as the mount lives.
  void CheckInode(uint32_t mount, const std::string& path, uint64_t ino);
  void CheckFileSize(const std::string& path, uint64_t expected, uint64_t got);
  // Names of the whole listing; `entries`: how many there are besides "." and "..".
  void CheckListing(const std::string& path, std::vector<std::string> names, int entries);
  // What the network was asked for; `starts`: when agents began.
  void CheckConnects(const std::vector<absl::Time>& starts);

  // The longest wait for an answer that was owed, for figures.
  absl::Duration longest_wait() const { return longest_wait_; }

  // For one behaviour: how long requests of one kind wait from now on. What came before does not
  // count.
  void WatchAnswers(uint32_t opcode);
  void NoteAnswer(const RequestRecord& record, absl::Time agent_since);
  // Answers noted since, and the longest wait for one of them.
  int64_t watched_answers() const { return watched_answers_; }
  absl::Duration longest_watched() const { return longest_watched_; }

 private:
  runtime::SimWorld& world_;
  std::vector<std::string> violations_;
  std::map<std::string, uint64_t> inodes_;
  absl::Duration longest_wait_;
  uint32_t watched_opcode_ = 0;
  absl::Time watched_since_ = absl::InfiniteFuture();
  int64_t watched_answers_ = 0;
  absl::Duration longest_watched_;
};

}  // namespace dfscsi::simulation

#endif  // NODE_AGENT_TESTING_ENGINE_SIMULATION_ORACLE_H_
