// Which operations there are, and how they are drawn. What they do: tree_exercise_operations.cc.

#include "e2e/tools/tree_exercise.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <system_error>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"

namespace dfscsi::exercise {
namespace {

constexpr size_t kDepthMax = 4;
constexpr size_t kLongNameBytes = 200;

// No two differ in case alone, and none begins as another one does in 8.3 form.
const char* const kNames[] = {
    "a",
    "file.txt",
    "with some spaces",
    "grüße-文件",
    "",  // A long one.
    ".hidden",
    "emoji-😀",
    "many.dots.in.it",
    "#%&'();=@[]^_`{}~$!+,-",
    "colon:star*question?",
    "0",
    "Mixed Case Name",
    "tilde~1",
    "quote\"less<more>pipe|",
    "back\\slash",
    "ελληνικά",
};

struct Choice {
  absl::string_view verb;
  uint64_t weight;
};
constexpr Choice kChoices[] = {
    {"create", 10}, {"open", 10},   {"close", 6},   {"write", 14},     {"read", 10},
    {"cut", 4},     {"fsync", 2},   {"stat", 10},   {"list", 4},       {"mkdir", 8},
    {"rmdir", 5},   {"unlink", 10}, {"rename", 12}, {"rename-new", 4},
};

absl::string_view DrawVerb(Random& random) {
  uint64_t sum = 0;
  for (const Choice& choice : kChoices) sum += choice.weight;
  uint64_t drawn = random.Below(sum);
  for (const Choice& choice : kChoices) {
    if (drawn < choice.weight) return choice.verb;
    drawn -= choice.weight;
  }
  return "check";
}

}  // namespace

int TreeExercise::names_max() { return static_cast<int>(std::size(kNames)); }

TreeExercise::TreeExercise(Options options) : options_(std::move(options)) {
  for (int i = 0; i < std::min(options_.names, names_max()); ++i) {
    names_.emplace_back(kNames[i]);
    if (names_.back().empty()) names_.back() = std::string(kLongNameBytes, 'l');
  }
}

const std::map<absl::string_view, TreeExercise::Handler>& TreeExercise::Handlers() {
  static const auto* const handlers = new std::map<absl::string_view, Handler>{
      {"create", &TreeExercise::Create},
      {"open", &TreeExercise::Open},
      {"close", &TreeExercise::Close},
      {"write", &TreeExercise::Write},
      {"read", &TreeExercise::Read},
      {"cut", &TreeExercise::Cut},
      {"fsync", &TreeExercise::Fsync},
      {"stat", &TreeExercise::Stat},
      {"list", &TreeExercise::List},
      {"mkdir", &TreeExercise::MakeDirectory},
      {"rmdir", &TreeExercise::RemoveDirectory},
      {"unlink", &TreeExercise::Unlink},
      {"rename", &TreeExercise::Rename},
      {"rename-new", &TreeExercise::RenameNew},
      {"check", &TreeExercise::Check},
  };
  return *handlers;
}

absl::Status TreeExercise::Run(absl::string_view operation) {
  const Words words(operation);
  const auto handler = Handlers().find(words.verb());
  if (handler == Handlers().end()) {
    return absl::InvalidArgumentError(absl::StrCat("no such operation: ", operation));
  }
  return (this->*handler->second)(words);
}

// --- Coming and going

absl::Status TreeExercise::Begin() {
  CloseAll();
  std::error_code error;
  std::filesystem::remove_all(options_.folder, error);
  if (!error) std::filesystem::create_directory(options_.folder, error);
  if (error) return absl::InternalError(absl::StrCat(options_.folder, ": ", error.message()));
  model_ = std::make_unique<TreeModel>();
  next_content_ = 1;
  return absl::OkStatus();
}

void TreeExercise::CloseAll() {
  for (Slot& slot : slots_) (void)CloseSlot(slot);
}

void TreeExercise::End() {
  CloseAll();
  std::error_code error;
  if (!options_.keep) std::filesystem::remove_all(options_.folder, error);
}

bool TreeExercise::Lie(Random& random) {
  for (const TreePath& path : model_->Directories()) {
    std::shared_ptr<TreeNode> directory;
    if (model_->Find(path, &directory) != 0) continue;
    for (const auto& [name, node] : directory->entries) {
      if (node->content.empty()) continue;
      node->content[random.Below(node->content.size())] ^= 0x5a;
      return true;
    }
  }
  return false;
}

// --- Drawing

std::string TreeExercise::DrawPath(Random& random) const {
  TreePath path;
  const std::vector<TreePath> directories = model_->Directories();
  if (random.Percent(80)) {
    path = directories[random.Below(directories.size())];
  } else {
    for (uint64_t depth = random.Below(kDepthMax); depth > 0; --depth) {
      path.push_back(names_[random.Below(names_.size())]);
    }
  }
  if (path.size() >= kDepthMax) path.resize(kDepthMax - 1);
  path.push_back(names_[random.Below(names_.size())]);
  return NumbersOf(path);
}

std::string TreeExercise::NumbersOf(const TreePath& path) const {
  std::string numbers;
  for (const std::string& name : path) {
    const auto index = std::find(names_.begin(), names_.end(), name) - names_.begin();
    absl::StrAppend(&numbers, numbers.empty() ? "" : "/", index);
  }
  return numbers;
}

std::string TreeExercise::DrawRemoval(Random& random) const {
  const std::vector<TreePath> directories = model_->Directories();
  TreePath path = directories[random.Below(directories.size())];
  std::shared_ptr<TreeNode> node;
  while (model_->Find(path, &node) == 0 && node->is_directory && !node->entries.empty()) {
    path.push_back(std::next(node->entries.begin(), random.Below(node->entries.size()))->first);
  }
  if (path.empty()) return "list 0";
  return absl::StrFormat("%s %s", node->is_directory ? "rmdir" : "unlink", NumbersOf(path));
}

std::string TreeExercise::Draw(Random& random) {
  const bool is_full =
      options_.directories > 0 && model_->Directories().size() > options_.directories;
  if (is_full && random.Percent(50)) return DrawRemoval(random);
  const absl::string_view verb = DrawVerb(random);
  const std::string path = DrawPath(random);
  const uint64_t slot = random.Below(kSlots);
  if (verb == "create") return absl::StrFormat("%s %s %d", verb, path, slot);
  if (verb == "open") {
    constexpr absl::string_view kFlags[] = {"-", "c", "t", "ct"};
    return absl::StrFormat("%s %s %d %s", verb, path, slot, kFlags[random.Below(4)]);
  }
  const uint64_t size = random.Size(4000);
  const uint64_t offset = random.Below(kFileBytesMax - size);
  if (verb == "write") {
    return absl::StrFormat("%s %d %d %d %d", verb, slot, offset, size, next_content_++);
  }
  if (verb == "read") return absl::StrFormat("%s %d %d %d", verb, slot, offset, size);
  if (verb == "cut") return absl::StrFormat("%s %d %d", verb, slot, offset);
  if (verb == "close" || verb == "fsync") return absl::StrFormat("%s %d", verb, slot);
  if (verb == "rename" || verb == "rename-new") {
    return absl::StrFormat("%s %s %s", verb, path, DrawPath(random));
  }
  return absl::StrFormat("%s %s", verb, path);
}

TreePath TreeExercise::PathOf(absl::string_view numbers) const {
  TreePath path;
  for (const absl::string_view word : absl::StrSplit(numbers, '/')) {
    uint64_t index = 0;
    if (!absl::SimpleAtoi(word, &index)) index = 0;
    path.push_back(names_[index % names_.size()]);
  }
  return path;
}

std::string TreeExercise::FullPath(const TreePath& path) const {
  std::string full = options_.folder;
  for (const std::string& name : path) absl::StrAppend(&full, "/", name);
  return full;
}

}  // namespace dfscsi::exercise
