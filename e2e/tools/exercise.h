// What a model test does to a file system: operations that are lines of text, each drawn at random,
// each compared with a model in memory. As text they can be logged, replayed and left out.

#ifndef DFSCSI_E2E_TOOLS_EXERCISE_H_
#define DFSCSI_E2E_TOOLS_EXERCISE_H_

#include <stdint.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace dfscsi::exercise {

// The same numbers for the same seed, on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next();
  // 0 … bound - 1; 0 for bound 0.
  uint64_t Below(uint64_t bound) { return bound == 0 ? 0 : Next() % bound; }
  bool Percent(uint64_t percent) { return Below(100) < percent; }
  // 1 … bound; as often 1 … 8 as 1000 … 8000.
  uint64_t Size(uint64_t bound);

 private:
  uint64_t state_;
};

// One file, or one tree, and its model. One thread.
class Exercise {
 public:
  virtual ~Exercise() = default;

  // What is there is removed, and made anew together with its model. May be called again.
  // Errors: the folder cannot be used.
  virtual absl::Status Begin() = 0;
  // An operation that is possible now. Draws alone change no state but the random numbers'.
  virtual std::string Draw(Random& random) = 0;
  // Does it, and compares. An operation that means nothing now (a replay with parts left out) does
  // nothing. Errors: the file system did not do as the model did; the message says where.
  // kInvalidArgument: no such operation.
  virtual absl::Status Run(absl::string_view operation) = 0;
  // The operation that compares everything.
  virtual std::string CheckOperation() const { return "check"; }
  // Makes the model wrong, so that a later operation must fail. False: there is nothing yet that
  // could be wrong; ask again after the next operation.
  virtual bool Lie(Random& random) = 0;
  // Removes what Begin made.
  virtual void End() = 0;
};

// The words of an operation.
class Words {
 public:
  explicit Words(absl::string_view operation);
  absl::string_view verb() const { return Word(0); }
  // "" where there is none.
  absl::string_view Word(size_t index) const;
  // 0 where there is none.
  uint64_t Number(size_t index) const;

 private:
  std::vector<absl::string_view> words_;
};

// `errno` as a status; `what` is the call that failed.
absl::Status ErrnoStatus(absl::string_view what);
// "ENOENT"; "0" for 0.
std::string ErrnoName(int error);

}  // namespace dfscsi::exercise

#endif  // DFSCSI_E2E_TOOLS_EXERCISE_H_
