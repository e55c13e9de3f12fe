// fs-exercise [OPTIONS] DIRECTORY: random operations on one file, or on a tree of names, each
// compared with a model in memory. It stops at the first wrong byte, size, name or errno, and
// prints the last operations. Exit code: 0 all was right; 1 it was not; 2 it could not be tried.
//
//   --operations=N   10000                  --seed=N       random; it is printed
//   --seconds=S      ends then, too         --check-every=N  everything is compared (250)
//   --size-max=BYTES 262144; a multiple of 4096
//   --direct         also O_DIRECT          --no-mmap  --no-append  --no-holes   leave that out
//   --without=LIST   operations that are left out, with commas between (of a file)
//   --names=N        a tree of N different names (1 … 16) instead of one file
//   --directories=N  with --names: no more than about so many
//   --smb            with --names: leaves out what SMB servers refuse
//   --log=FILE       every operation, one a line, as far as it came
//   --replay=FILE    those operations instead of random ones
//   --shrink=S       after a failure: leaves out what is not needed for it, for S seconds
//   --shadow=FILE    what the file must hold at the end
//   --keep           leaves the file or tree
//   --lie=N          makes the model wrong at operation N: it must fail

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "e2e/tools/exercise_run.h"
#include "e2e/tools/file_exercise.h"
#include "e2e/tools/tree_exercise.h"

namespace dfscsi::exercise {
namespace {

constexpr size_t kShownOperations = 100;
constexpr int kWrong = 1;
constexpr int kNotTried = 2;

struct Settings {
  std::string folder;
  RunOptions run;
  FileExercise::Options file{.path = "", .size_max_bytes = 256 << 10};
  TreeExercise::Options tree{.folder = "", .names = 0};
  std::string log;
  std::string replay;
  std::string shadow;
  double shrink_seconds = 0;
};

// What getopt_long returns for each option.
enum Option {
  kOperations = 256,
  kSeed,
  kSeconds,
  kCheckEvery,
  kSizeMax,
  kNames,
  kDirectories,
  kWithout,
  kLog,
  kReplay,
  kShrink,
  kShadow,
  kLie,
  kDirect,
  kNoMmap,
  kNoAppend,
  kNoHoles,
  kSmb,
  kKeep,
};

const option kOptions[] = {
    {"operations", required_argument, nullptr, kOperations},
    {"seed", required_argument, nullptr, kSeed},
    {"seconds", required_argument, nullptr, kSeconds},
    {"check-every", required_argument, nullptr, kCheckEvery},
    {"size-max", required_argument, nullptr, kSizeMax},
    {"names", required_argument, nullptr, kNames},
    {"directories", required_argument, nullptr, kDirectories},
    {"without", required_argument, nullptr, kWithout},
    {"log", required_argument, nullptr, kLog},
    {"replay", required_argument, nullptr, kReplay},
    {"shrink", required_argument, nullptr, kShrink},
    {"shadow", required_argument, nullptr, kShadow},
    {"lie", required_argument, nullptr, kLie},
    {"direct", no_argument, nullptr, kDirect},
    {"no-mmap", no_argument, nullptr, kNoMmap},
    {"no-append", no_argument, nullptr, kNoAppend},
    {"no-holes", no_argument, nullptr, kNoHoles},
    {"smb", no_argument, nullptr, kSmb},
    {"keep", no_argument, nullptr, kKeep},
    {nullptr, 0, nullptr, 0},
};

uint64_t NumberOrExit(const char* text) {
  uint64_t number = 0;
  if (!absl::SimpleAtoi(text, &number)) {
    fprintf(stderr, "fs-exercise: %s is no number\n", text);
    exit(kNotTried);
  }
  return number;
}

bool Set(Settings* settings, int option) {
  switch (option) {
    case kOperations:
      settings->run.operations = NumberOrExit(optarg);
      return true;
    case kSeed:
      settings->run.seed = NumberOrExit(optarg);
      return true;
    case kSeconds:
      settings->run.time = absl::Seconds(NumberOrExit(optarg));
      return true;
    case kCheckEvery:
      settings->run.check_every = NumberOrExit(optarg);
      return settings->run.check_every > 0;
    case kSizeMax:
      settings->file.size_max_bytes = NumberOrExit(optarg);
      return settings->file.size_max_bytes > 0 && settings->file.size_max_bytes % 4096 == 0;
    case kDirectories:
      settings->tree.directories = NumberOrExit(optarg);
      return true;
    case kNames:
      settings->tree.names = static_cast<int>(NumberOrExit(optarg));
      return settings->tree.names > 0 && settings->tree.names <= TreeExercise::names_max();
    case kWithout:
      settings->file.without = absl::StrSplit(optarg, ',');
      return true;
    case kLog:
      settings->log = optarg;
      return true;
    case kReplay:
      settings->replay = optarg;
      return true;
    case kShrink:
      settings->shrink_seconds = static_cast<double>(NumberOrExit(optarg));
      return true;
    case kShadow:
      settings->shadow = optarg;
      return true;
    case kLie:
      settings->run.lie_at = NumberOrExit(optarg);
      return true;
    default:
      break;
  }
  if (option == kDirect) settings->file.direct = true;
  if (option == kNoMmap) settings->file.mmap = false;
  if (option == kNoAppend) settings->file.append = false;
  if (option == kNoHoles) settings->file.holes = false;
  if (option == kSmb) settings->tree.smb = true;
  if (option == kKeep) settings->file.keep = settings->tree.keep = true;
  return option >= kDirect;
}

bool Parse(int argc, char** argv, Settings* settings) {
  settings->run.seed = std::random_device()();
  for (int option = 0; (option = getopt_long(argc, argv, "", kOptions, nullptr)) != -1;) {
    if (!Set(settings, option)) return false;
  }
  if (optind != argc - 1) return false;
  settings->folder = argv[optind];
  settings->file.path = absl::StrCat(settings->folder, "/exercised-file");
  settings->tree.folder = absl::StrCat(settings->folder, "/exercised-tree");
  return true;
}

// With which the same is done again. The last of the operations would be a check.
std::string CommandLine(int argc, char** argv, const Settings& settings, size_t operations) {
  std::vector<std::string> words = {argv[0]};
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word.rfind("--seed", 0) == 0 || word.rfind("--operations", 0) == 0) continue;
    words.push_back(word);
  }
  words.insert(words.begin() + 1, {absl::StrCat("--seed=", settings.run.seed),
                                   absl::StrCat("--operations=", operations)});
  return absl::StrJoin(words, " ");
}

void Print(const RunOutcome& outcome, size_t shown) {
  const size_t first = outcome.operations.size() - std::min(shown, outcome.operations.size());
  for (size_t i = first; i < outcome.operations.size(); ++i) {
    printf("%7zu  %s\n", i + 1, outcome.operations[i].c_str());
  }
}

void Write(const std::string& path, const std::vector<std::string>& lines) {
  std::ofstream file(path);
  for (const std::string& line : lines) file << line << '\n';
}

std::vector<std::string> ReadLines(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) {
    if (!line.empty()) lines.push_back(line);
  }
  return lines;
}

void ShrinkAndPrint(Exercise* exercise, const Settings& settings, const RunOutcome& outcome) {
  const auto shrunk = Shrink(exercise, outcome.operations, absl::Seconds(settings.shrink_seconds));
  if (!shrunk.has_value()) {
    printf("the same operations do not fail again\n");
    return;
  }
  printf("these alone fail: %s\n", std::string(shrunk->status.message()).c_str());
  Print(*shrunk, kShownOperations);
  if (!settings.log.empty()) Write(settings.log + ".shrunk", shrunk->operations);
}

int Main(int argc, char** argv) {
  Settings settings;
  if (!Parse(argc, argv, &settings)) {
    fprintf(stderr, "fs-exercise: see the head of e2e/tools/fs_exercise_main.cc\n");
    return kNotTried;
  }
  std::unique_ptr<Exercise> exercise;
  const FileExercise* file = nullptr;
  if (settings.tree.names > 0) {
    exercise = std::make_unique<TreeExercise>(settings.tree);
  } else {
    auto made = std::make_unique<FileExercise>(settings.file);
    file = made.get();
    exercise = std::move(made);
  }
  printf("seed %llu\n", static_cast<unsigned long long>(settings.run.seed));
  fflush(stdout);
  const RunOutcome outcome = settings.replay.empty()
                                 ? RunAtRandom(exercise.get(), settings.run)
                                 : RunAgain(exercise.get(), ReadLines(settings.replay));
  if (!settings.log.empty()) Write(settings.log, outcome.operations);
  if (file != nullptr && !file->unsupported().empty()) {
    printf("not supported here: %s\n", absl::StrJoin(file->unsupported(), ", ").c_str());
  }
  if (file != nullptr && !settings.shadow.empty()) {
    const absl::Span<const uint8_t> bytes = file->shadow().bytes();
    std::ofstream(settings.shadow, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
  }
  if (outcome.status.ok()) {
    exercise->End();
    printf("%zu operations, all as they must be\n", outcome.operations.size());
    return 0;
  }
  const std::string why(outcome.status.message());
  if (outcome.operations.empty()) {
    fprintf(stderr, "fs-exercise: %s\n", why.c_str());
    return kNotTried;
  }
  printf("operation %zu failed: %s: %s\n", outcome.operations.size(),
         outcome.operations.back().c_str(), why.c_str());
  Print(outcome, kShownOperations);
  printf("again: %s\n", CommandLine(argc, argv, settings, outcome.operations.size() + 1).c_str());
  if (settings.shrink_seconds > 0) ShrinkAndPrint(exercise.get(), settings, outcome);
  return kWrong;
}

}  // namespace
}  // namespace dfscsi::exercise

int main(int argc, char** argv) { return dfscsi::exercise::Main(argc, argv); }
