// One file against a shadow of it in memory: read, written, mapped, cut, punched, by several
// handles.

#ifndef DFSCSI_E2E_TOOLS_FILE_EXERCISE_H_
#define DFSCSI_E2E_TOOLS_FILE_EXERCISE_H_

#include <stdint.h>
#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "e2e/tools/exercise.h"
#include "e2e/tools/shadow_file.h"

namespace dfscsi::exercise {

// Operations; H is a handle, a or b, and N a number that makes the written bytes unlike all others:
//   read H OFFSET SIZE           write H OFFSET SIZE N      append SIZE N
//   direct-read OFFSET SIZE      direct-write OFFSET SIZE N
//   map-read OFFSET SIZE         map-write OFFSET SIZE N sync|lazy
//   hold                         drop                       a mapping that lasts, and its end
//   copy FROM TO SIZE            copy-range FROM TO SIZE    by both handles; by the kernel
//   truncate SIZE                cut H SIZE                 empty: an open with O_TRUNC
//   allocate OFFSET SIZE         punch OFFSET SIZE          clear OFFSET SIZE
//   fsync H                      fdatasync H                reopen H
//   stat                         forget                     the page cache is dropped
//   seek-data OFFSET             seek-hole OFFSET           check: the whole file by a new handle
class FileExercise final : public Exercise {
 public:
  struct Options {
    std::string path;         // The file; whatever is there is replaced.
    uint64_t size_max_bytes;  // It never grows beyond that.
    bool direct = false;      // O_DIRECT, at multiples of 4096.
    bool mmap = true;
    bool append = true;
    // SEEK_DATA and SEEK_HOLE, and fallocate's operations where the file system has them; Begin
    // asks it.
    bool holes = true;
    std::vector<std::string> without;  // Other operations that are left out.
    bool keep = false;                 // End leaves the file.
  };

  explicit FileExercise(Options options);
  ~FileExercise() override { Close(); }

  absl::Status Begin() override;
  std::string Draw(Random& random) override;
  absl::Status Run(absl::string_view operation) override;
  bool Lie(Random& random) override;
  void End() override;

  const ShadowFile& shadow() const { return shadow_; }
  // What the file system refused when Begin asked: "punch", …
  const std::vector<std::string>& unsupported() const { return unsupported_; }

 private:
  using Handler = absl::Status (FileExercise::*)(const Words&);
  static const std::map<absl::string_view, Handler>& Handlers();

  absl::Status Read(const Words& words);
  absl::Status Write(const Words& words);
  absl::Status Append(const Words& words);
  absl::Status DirectRead(const Words& words);
  absl::Status DirectWrite(const Words& words);
  absl::Status MapRead(const Words& words);
  absl::Status MapWrite(const Words& words);
  absl::Status Hold(const Words& words);
  absl::Status Drop(const Words& words);
  absl::Status Copy(const Words& words);
  absl::Status CopyRange(const Words& words);
  absl::Status Truncate(const Words& words);
  absl::Status Cut(const Words& words);
  absl::Status Empty(const Words& words);
  absl::Status Allocate(const Words& words);
  absl::Status Punch(const Words& words);
  absl::Status Clear(const Words& words);
  absl::Status Fsync(const Words& words);
  absl::Status Fdatasync(const Words& words);
  absl::Status Reopen(const Words& words);
  absl::Status Stat(const Words& words);
  absl::Status Forget(const Words& words);
  absl::Status SeekData(const Words& words);
  absl::Status SeekHole(const Words& words);
  absl::Status Check(const Words& words);

  uint64_t DrawOffset(Random& random) const;
  std::string DrawArguments(absl::string_view verb, Random& random);
  void AskWhatIsSupported();

  int& Handle(const Words& words) { return words.Word(1) == "b" ? b_ : a_; }
  absl::Status Open(int* handle, int flags);
  void Close();
  absl::Status Fallocate(int mode, const Words& words);
  absl::Status ReadAndCompare(int handle, uint64_t offset, uint64_t size);
  absl::Status WriteAll(int handle, uint64_t offset, absl::Span<const uint8_t> bytes);
  // Before a buffered write that ends there.
  absl::Status SyncMappedTail(uint64_t end);
  absl::Status SizeIsRight(int handle) const;
  enum class MapAccess { kRead, kWriteLazily, kWriteAndSync };
  // Between buffer_ and the held mapping, or one made for it. Inside the file.
  absl::Status AccessMapping(uint64_t offset, uint64_t size, MapAccess access);
  // Leaves out what the file system refuses.
  void AskFor(absl::string_view verb, int error);
  bool Supports(absl::string_view verb) const;

  const Options options_;
  ShadowFile shadow_;
  std::vector<std::string> unsupported_;
  int a_ = -1;
  int b_ = -1;
  int direct_ = -1;
  uint8_t* held_ = nullptr;      // size_max_bytes of the file, mapped shared.
  uint8_t* aligned_ = nullptr;   // For O_DIRECT: a buffer of size_max_bytes.
  std::vector<uint8_t> buffer_;  // The same for everything else.
  uint32_t next_content_ = 1;
};

}  // namespace dfscsi::exercise

#endif  // DFSCSI_E2E_TOOLS_FILE_EXERCISE_H_
