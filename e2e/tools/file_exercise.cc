// Which operations there are, how they are drawn, the file's coming and going. What they do:
// file_exercise_operations.cc.

#include "e2e/tools/file_exercise.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace dfscsi::exercise {
namespace {

constexpr uint64_t kBlockBytes = 4096;

struct Choice {
  absl::string_view verb;
  uint64_t weight;
};
constexpr Choice kChoices[] = {
    {"read", 14},    {"write", 14},    {"append", 4},     {"direct-read", 6}, {"direct-write", 6},
    {"map-read", 8}, {"map-write", 8}, {"hold", 1},       {"drop", 1},        {"copy", 4},
    {"cut", 4},      {"truncate", 3},  {"copy-range", 2}, {"empty", 1},       {"allocate", 2},
    {"punch", 2},    {"clear", 2},     {"fsync", 3},      {"fdatasync", 1},   {"reopen", 4},
    {"stat", 4},     {"forget", 2},    {"seek-data", 1},  {"seek-hole", 1},
};

bool IsOneOf(absl::string_view word, std::initializer_list<absl::string_view> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

}  // namespace

FileExercise::FileExercise(Options options)
    : options_(std::move(options)),
      shadow_(options_.size_max_bytes),
      buffer_(options_.size_max_bytes) {}

const std::map<absl::string_view, FileExercise::Handler>& FileExercise::Handlers() {
  static const auto* const handlers = new std::map<absl::string_view, Handler>{
      {"read", &FileExercise::Read},
      {"write", &FileExercise::Write},
      {"append", &FileExercise::Append},
      {"direct-read", &FileExercise::DirectRead},
      {"direct-write", &FileExercise::DirectWrite},
      {"map-read", &FileExercise::MapRead},
      {"map-write", &FileExercise::MapWrite},
      {"hold", &FileExercise::Hold},
      {"drop", &FileExercise::Drop},
      {"copy", &FileExercise::Copy},
      {"copy-range", &FileExercise::CopyRange},
      {"truncate", &FileExercise::Truncate},
      {"cut", &FileExercise::Cut},
      {"empty", &FileExercise::Empty},
      {"allocate", &FileExercise::Allocate},
      {"punch", &FileExercise::Punch},
      {"clear", &FileExercise::Clear},
      {"fsync", &FileExercise::Fsync},
      {"fdatasync", &FileExercise::Fdatasync},
      {"reopen", &FileExercise::Reopen},
      {"stat", &FileExercise::Stat},
      {"forget", &FileExercise::Forget},
      {"seek-data", &FileExercise::SeekData},
      {"seek-hole", &FileExercise::SeekHole},
      {"check", &FileExercise::Check},
  };
  return *handlers;
}

absl::Status FileExercise::Run(absl::string_view operation) {
  const Words words(operation);
  const auto handler = Handlers().find(words.verb());
  if (handler == Handlers().end()) {
    return absl::InvalidArgumentError(absl::StrCat("no such operation: ", operation));
  }
  const absl::Status status = (this->*handler->second)(words);
  return status.ok() ? SizeIsRight(a_) : status;
}

// --- Coming and going

absl::Status FileExercise::Open(int* handle, int flags) {
  if (*handle >= 0) close(*handle);
  *handle = open(options_.path.c_str(), flags | O_CLOEXEC, 0644);
  return *handle >= 0 ? absl::OkStatus() : ErrnoStatus(absl::StrCat("open of ", options_.path));
}

absl::Status FileExercise::Begin() {
  Close();
  shadow_ = ShadowFile(options_.size_max_bytes);
  next_content_ = 1;
  if (unlink(options_.path.c_str()) != 0 && errno != ENOENT) return ErrnoStatus("unlink");
  absl::Status status = Open(&a_, O_RDWR | O_CREAT | O_EXCL);
  if (status.ok()) AskWhatIsSupported();
  if (status.ok()) status = Open(&b_, O_RDWR);
  if (status.ok() && options_.direct) status = Open(&direct_, O_RDWR | O_DIRECT);
  if (options_.direct && aligned_ == nullptr) {
    aligned_ = static_cast<uint8_t*>(aligned_alloc(kBlockBytes, options_.size_max_bytes));
  }
  return status;
}

void FileExercise::Close() {
  if (held_ != nullptr) munmap(std::exchange(held_, nullptr), options_.size_max_bytes);
  for (int* const handle : {&a_, &b_, &direct_}) {
    if (*handle >= 0) close(std::exchange(*handle, -1));
  }
  free(std::exchange(aligned_, nullptr));
}

void FileExercise::End() {
  Close();
  if (!options_.keep) unlink(options_.path.c_str());
}

void FileExercise::AskFor(absl::string_view verb, int error) {
  if (error == EOPNOTSUPP || error == ENOSYS || error == EXDEV) unsupported_.emplace_back(verb);
}

bool FileExercise::Supports(absl::string_view verb) const {
  if (std::find(options_.without.begin(), options_.without.end(), verb) != options_.without.end()) {
    return false;
  }
  if (IsOneOf(verb, {"direct-read", "direct-write"})) return options_.direct;
  if (IsOneOf(verb, {"map-read", "map-write", "hold", "drop"})) return options_.mmap;
  if (verb == "append") return options_.append;
  if (IsOneOf(verb, {"seek-data", "seek-hole"})) return options_.holes;
  return std::find(unsupported_.begin(), unsupported_.end(), verb) == unsupported_.end();
}

void FileExercise::AskWhatIsSupported() {
  unsupported_.clear();
  const auto asked = [this](absl::string_view verb, int mode) {
    if (!options_.holes) return AskFor(verb, EOPNOTSUPP);
    AskFor(verb, fallocate(a_, mode, 0, kBlockBytes) == 0 ? 0 : errno);
  };
  asked("allocate", 0);
  asked("punch", FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
  asked("clear", FALLOC_FL_ZERO_RANGE);
  if (ftruncate(a_, kBlockBytes) != 0) return;  // The first operation will say so.
  off_t from = 0;
  off_t to = kBlockBytes / 2;
  AskFor("copy-range", copy_file_range(a_, &from, a_, &to, 1, 0) == 1 ? 0 : errno);
  (void)!ftruncate(a_, 0);
}

bool FileExercise::Lie(Random& random) {
  if (shadow_.size() == 0) return false;
  shadow_.Flip(random.Below(shadow_.size()));
  return true;
}

// --- Drawing

uint64_t FileExercise::DrawOffset(Random& random) const {
  const uint64_t limit = options_.size_max_bytes - 1;
  switch (random.Below(5)) {
    case 0:  // Around the end.
      return std::min(limit,
                      shadow_.size() - std::min(shadow_.size(), random.Size(64)) + random.Size(64));
    case 1: {  // Around a page's edge.
      const uint64_t edge = random.Below(options_.size_max_bytes / kBlockBytes) * kBlockBytes;
      return std::min(limit, edge + random.Below(9) - std::min<uint64_t>(edge, 4));
    }
    case 2:
      return random.Below(options_.size_max_bytes);
    default:
      return random.Below(std::max<uint64_t>(shadow_.size(), 1));
  }
}

std::string FileExercise::Draw(Random& random) {
  uint64_t sum = 0;
  for (const Choice& choice : kChoices) sum += Supports(choice.verb) ? choice.weight : 0;
  uint64_t drawn = random.Below(sum);
  for (const Choice& choice : kChoices) {
    if (!Supports(choice.verb)) continue;
    if (drawn < choice.weight) {
      return absl::StrCat(choice.verb, DrawArguments(choice.verb, random));
    }
    drawn -= choice.weight;
  }
  return CheckOperation();
}

std::string FileExercise::DrawArguments(absl::string_view verb, Random& random) {
  const uint64_t max = options_.size_max_bytes;
  const char handle = random.Percent(50) ? 'a' : 'b';
  const uint64_t offset = DrawOffset(random);
  const uint64_t size = random.Size(max - offset);
  if (verb == "read") return absl::StrFormat(" %c %d %d", handle, offset, size);
  if (verb == "write") {
    return absl::StrFormat(" %c %d %d %d", handle, offset, size, next_content_++);
  }
  if (verb == "append") {
    const uint64_t room = max - shadow_.size();
    return absl::StrFormat(" %d %d", std::min(random.Size(64 << 10), room), next_content_++);
  }
  if (IsOneOf(verb, {"direct-read", "direct-write"})) {
    const uint64_t block = offset / kBlockBytes;
    const uint64_t blocks = random.Size(max / kBlockBytes - block);
    const uint32_t content = verb == "direct-write" ? next_content_++ : 0;
    return absl::StrFormat(" %d %d %d", block * kBlockBytes, blocks * kBlockBytes, content);
  }
  if (verb == "map-write") {
    return absl::StrFormat(" %d %d %d %s", offset, size, next_content_++,
                           random.Percent(50) ? "sync" : "lazy");
  }
  if (IsOneOf(verb, {"copy", "copy-range"})) {
    const uint64_t to = DrawOffset(random);
    uint64_t most = max - std::max(offset, to);
    // The kernel's copies inside one file may not overlap.
    if (verb == "copy-range") most = std::min(most, std::max(offset, to) - std::min(offset, to));
    return absl::StrFormat(" %d %d %d", offset, to, random.Size(most));
  }
  if (IsOneOf(verb, {"map-read", "allocate", "punch", "clear"})) {
    return absl::StrFormat(" %d %d", offset, size);
  }
  if (verb == "truncate") return absl::StrFormat(" %d", offset);
  if (verb == "cut") return absl::StrFormat(" %c %d", handle, offset);
  if (IsOneOf(verb, {"fsync", "fdatasync", "reopen"})) return absl::StrFormat(" %c", handle);
  if (IsOneOf(verb, {"seek-data", "seek-hole"})) return absl::StrFormat(" %d", offset);
  return "";
}

}  // namespace dfscsi::exercise
