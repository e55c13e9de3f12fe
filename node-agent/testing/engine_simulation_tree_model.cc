#include "node-agent/testing/engine_simulation_tree_model.h"

#include <errno.h>

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "node-agent/smb/wire/utf16.h"

namespace dfscsi::simulation {
namespace {

using testing::FileKind;
using testing::ScriptedFile;

constexpr uint64_t kDirectory = 0;

std::string Below(const std::string& directory, const std::string& name) {
  return directory.empty() ? name : absl::StrCat(directory, "/", name);
}

bool IsHidden(const std::string& name) { return absl::StartsWith(name, ".dfscsi"); }

// What a folder of a server holds.
struct Found {
  std::map<std::string, const ScriptedFile*> by_path = {};
  std::map<uint64_t, const ScriptedFile*> hidden = {};  // By id.
};

void Collect(const ScriptedFile& folder, const std::string& path, Found* found) {
  found->by_path[path] = &folder;
  for (const auto& [folded, child] : folder.children) {
    const std::string name = smb::wire::Utf16ToUtf8(child->name);
    if (child->delete_pending || IsHidden(name)) {
      found->hidden[child->id] = child.get();
    } else {
      Collect(*child, Below(path, name), found);
    }
  }
}

// Where two contents differ first.
std::string Difference(const std::string& path, const std::string& want, const std::string& got) {
  const size_t same = static_cast<size_t>(
      std::mismatch(want.begin(), want.end(), got.begin(), got.end()).first - want.begin());
  return absl::StrCat(path, " has ", got.size(), " bytes, must have ", want.size(),
                      "; they differ from ", same, " on");
}

void Put(uint64_t offset, const std::string& what, std::string* into) {
  into->resize(std::max<uint64_t>(into->size(), offset + what.size()), '\0');
  into->replace(offset, what.size(), what);
}

}  // namespace

bool Step::ChangesNames() const {
  return kind == Kind::kRename || kind == Kind::kUnlink || kind == Kind::kMakeDirectory ||
         kind == Kind::kRemoveDirectory || kind == Kind::kCreate;
}

std::string Step::ToString() const {
  constexpr const char* kNames[] = {"mkdir",    "rmdir", "create", "open",   "write",
                                    "truncate", "utime", "rename", "unlink", "fsync"};
  std::string text = absl::StrCat(kNames[static_cast<size_t>(kind)], " \"", path, "\"");
  if (!target.empty()) absl::StrAppend(&text, " to \"", target, "\"");
  if (file != 0) absl::StrAppend(&text, " file ", file);
  if (kind == Kind::kWrite) {
    absl::StrAppend(&text, appends ? " at the end" : absl::StrCat(" at ", offset), " ",
                    bytes.size(), " bytes");
    for (const Piece& piece : earlier) {
      absl::StrAppend(&text, ", after ", piece.bytes.size(), " at ", piece.offset);
    }
  }
  if (kind == Kind::kTruncate) absl::StrAppend(&text, " to ", size_bytes);
  if (exclusive) text += " O_EXCL";
  if (truncates) text += " O_TRUNC";
  if (replaces) text += " over what is there";
  return text;
}

void TreeModel::Add(const std::string& path, uint64_t file, std::string content) {
  entries_[""] = kDirectory;
  entries_[path] = file;
  files_[file].bytes = std::move(content);
}

bool TreeModel::IsDirectory(const std::string& path) const {
  const auto found = entries_.find(path);
  return found != entries_.end() && found->second == kDirectory;
}

bool TreeModel::HasParent(const std::string& path) const {
  if (path.empty()) return true;  // What holds the folder is on every copy.
  const size_t slash = path.rfind('/');
  return IsDirectory(slash == std::string::npos ? "" : path.substr(0, slash));
}

bool TreeModel::HasEntriesIn(const std::string& path) const {
  return std::any_of(entries_.begin(), entries_.end(), [&](const auto& entry) {
    return entry.first != path &&
           (path.empty() || absl::StartsWith(entry.first, absl::StrCat(path, "/")));
  });
}

std::vector<std::string> TreeModel::Paths() const {
  std::vector<std::string> paths;
  paths.reserve(entries_.size());
  for (const auto& [path, file] : entries_) paths.push_back(path);
  return paths;
}

uint64_t TreeModel::FileAt(const std::string& path) const {
  const auto found = entries_.find(path);
  return found == entries_.end() ? 0 : found->second;
}

const std::string* TreeModel::ContentOf(uint64_t file) const {
  const auto found = files_.find(file);
  return found == files_.end() ? nullptr : &found->second.bytes;
}

void TreeModel::Move(const std::string& path, const std::string& target) {
  std::map<std::string, uint64_t> moved;
  for (auto at = entries_.begin(); at != entries_.end();) {
    const bool below = absl::StartsWith(at->first, absl::StrCat(path, "/"));
    if (at->first != path && !below) {
      ++at;
      continue;
    }
    moved[target + at->first.substr(path.size())] = at->second;
    at = entries_.erase(at);
  }
  for (const auto& [to, file] : moved) entries_[to] = file;
}

int TreeModel::Apply(const Step& step, uint64_t* opened) {
  uint64_t file = step.file;
  if (step.through_handle) {
    if (!files_.contains(file)) return ESTALE;
  } else if (!HasParent(step.path)) {
    return ENOENT;
  } else if (step.kind != Step::Kind::kCreate && step.kind != Step::Kind::kMakeDirectory) {
    if (!Has(step.path)) return ENOENT;
    file = FileAt(step.path);
  }
  switch (step.kind) {
    case Step::Kind::kMakeDirectory:
      if (Has(step.path)) return EEXIST;
      entries_[step.path] = kDirectory;
      return 0;
    case Step::Kind::kRemoveDirectory:
      if (file != kDirectory) return ENOTDIR;
      if (HasEntriesIn(step.path)) return ENOTEMPTY;
      entries_.erase(step.path);
      return 0;
    case Step::Kind::kCreate:
      if (Has(step.path)) {
        if (step.exclusive) return EEXIST;
        if (IsDirectory(step.path)) return EISDIR;
        file = FileAt(step.path);
      } else {
        entries_[step.path] = file;
        files_[file] = {};
      }
      break;
    case Step::Kind::kOpen:
      if (file == kDirectory) return EISDIR;
      break;
    case Step::Kind::kWrite: {
      std::string& bytes = files_[file].bytes;
      for (const Step::Piece& piece : step.earlier) Put(piece.offset, piece.bytes, &bytes);
      Put(step.appends ? bytes.size() : step.offset, step.bytes, &bytes);
      files_[file].written.reset();
      return 0;
    }
    case Step::Kind::kTruncate:
      if (file == kDirectory) return EISDIR;
      files_[file].bytes.resize(step.size_bytes, '\0');
      files_[file].written.reset();
      return 0;
    case Step::Kind::kSetTime:
      if (file != kDirectory) files_[file].written = step.time;
      return 0;
    case Step::Kind::kRename:
      if (!HasParent(step.target)) return ENOENT;
      if (Has(step.target)) {
        if (!step.replaces) return EEXIST;
        if (IsDirectory(step.target)) return EISDIR;
      }
      Move(step.path, step.target);
      return 0;
    case Step::Kind::kUnlink:
      if (file == kDirectory) return EISDIR;
      entries_.erase(step.path);
      return 0;
    case Step::Kind::kSync:
      return 0;
  }
  if (step.truncates && !files_[file].bytes.empty()) files_[file] = {.id = files_[file].id};
  if (opened != nullptr) *opened = file;
  return 0;
}

void TreeModel::Identify(const std::string& path, const ScriptedFile* folder) {
  Found found;
  if (folder != nullptr) Collect(*folder, "", &found);
  const auto there = found.by_path.find(path);
  const uint64_t file = FileAt(path);
  if (there != found.by_path.end() && file != kDirectory) files_[file].id = there->second->id;
}

uint64_t TreeModel::IdOf(uint64_t file) const {
  const auto found = files_.find(file);
  return found == files_.end() ? 0 : found->second.id;
}

std::string TreeModel::DifferenceOf(const std::string& path, uint64_t file,
                                    const ScriptedFile& on_server) const {
  const Content& content = files_.at(file);
  if (content.id != 0 && on_server.id != content.id) {
    return absl::StrCat("\"", path, "\" is another file, ", on_server.id, " and not ", content.id);
  }
  const std::string bytes = on_server.Content();
  if (bytes != content.bytes) return Difference(path, content.bytes, bytes);
  if (content.written.has_value() && on_server.last_write != *content.written) {
    return absl::StrCat("\"", path, "\" was last written at ",
                        absl::FormatTime(on_server.last_write, absl::UTCTimeZone()));
  }
  return "";
}

std::string TreeModel::DifferenceOfOne(const std::string& path, uint64_t file,
                                       const ScriptedFile& on_server,
                                       const std::vector<Alternative>& alternatives,
                                       std::set<int>* used) const {
  const std::string difference = DifferenceOf(path, file, on_server);
  if (difference.empty()) return "";
  for (const Alternative& other : alternatives) {
    if (other.file != file || !other.model.DifferenceOf(path, file, on_server).empty()) continue;
    used->insert(other.step);
    return "";
  }
  return difference;
}

std::string TreeModel::DifferenceTo(const ScriptedFile* actual) const {
  std::set<int> none;
  return DifferenceTo(actual, {}, &none);
}

std::string TreeModel::DifferenceTo(const ScriptedFile* actual,
                                    const std::vector<Alternative>& alternatives,
                                    std::set<int>* used) const {
  Found found;
  if (actual != nullptr) Collect(*actual, "", &found);
  for (const auto& [path, file] : entries_) {
    const auto there = found.by_path.find(path);
    if (there == found.by_path.end()) return absl::StrCat("\"", path, "\" is missing");
    const ScriptedFile& on_server = *there->second;
    if ((on_server.kind == FileKind::kDirectory) != (file == kDirectory)) {
      return absl::StrCat("\"", path, "\" is of another kind");
    }
    if (file == kDirectory) continue;
    const std::string difference = DifferenceOfOne(path, file, on_server, alternatives, used);
    if (!difference.empty()) return difference;
  }
  for (const auto& [path, file] : found.by_path) {
    if (!Has(path)) return absl::StrCat("\"", path, "\" is there");
  }
  if (found.hidden.empty()) return "";
  for (const auto& [file, content] : files_) {
    const auto hidden = found.hidden.find(content.id);
    if (content.id == 0 || hidden == found.hidden.end()) continue;
    const std::string difference = DifferenceOfOne(absl::StrCat("(hidden) file ", file), file,
                                                   *hidden->second, alternatives, used);
    if (!difference.empty()) return difference;
  }
  return "";
}

}  // namespace dfscsi::simulation
