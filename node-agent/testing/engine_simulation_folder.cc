#include "node-agent/testing/engine_simulation_folder.h"

#include <errno.h>
#include <string.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "node-agent/smb/wire/utf16.h"

namespace dfscsi::simulation {
namespace {

constexpr CopySet Bit(size_t copy) { return CopySet{1} << copy; }

bool SaysUnknown(int error) {
  return error == EIO || error == EINTR || error == ENOTCONN || error == EHOSTDOWN;
}

// Of several writes, whatever may be done where not all of them are.
std::vector<Step> PartsOf(const Step& step) {
  std::vector<Step> parts;
  if (step.earlier.empty()) return parts;
  std::vector<Step::Piece> all = step.earlier;
  all.push_back({.offset = step.offset, .bytes = step.bytes});
  for (size_t chosen = 1; chosen + 1 < size_t{1} << all.size(); ++chosen) {
    Step part = step;
    part.earlier.clear();
    for (size_t i = 0; i < all.size(); ++i) {
      if ((chosen >> i & 1) != 0) part.earlier.push_back(all[i]);
    }
    part.offset = part.earlier.back().offset;
    part.bytes = std::move(part.earlier.back().bytes);
    part.earlier.pop_back();
    parts.push_back(std::move(part));
  }
  return parts;
}

const testing::ScriptedFile* FindById(const testing::ScriptedFile& folder, uint64_t id) {
  if (folder.id == id) return &folder;
  for (const auto& [folded, child] : folder.children) {
    if (const testing::ScriptedFile* const found = FindById(*child, id)) return found;
  }
  return nullptr;
}

// What may have been done of a step.
std::vector<Step> VariantsOf(const Step& step) {
  std::vector<Step> variants = PartsOf(step);
  variants.push_back(step);
  if (step.kind == Step::Kind::kRename && step.replaces) {
    // The file that is to be replaced was open: it was hidden, and then nobody knows.
    variants.push_back({.kind = Step::Kind::kUnlink, .path = step.target});
  }
  return variants;
}

// The file whose content, or time, the step changes; 0: it changes names.
uint64_t FileOf(const Step& step, const TreeModel& model) {
  switch (step.kind) {
    case Step::Kind::kCreate:
    case Step::Kind::kOpen:
    case Step::Kind::kWrite:
    case Step::Kind::kTruncate:
    case Step::Kind::kSetTime:
    case Step::Kind::kSync:
      return step.through_handle ? step.file : model.FileAt(step.path);
    default:
      return 0;
  }
}

}  // namespace

// --- Copies

std::string Copies::BaseName(int base) { return absl::StrCat("base", base); }

std::string Copies::BaseContent(int base, int file) {
  std::string content;
  while (content.size() < 3000)
    absl::StrAppend(&content, base, ".", file, ".", content.size(), ";");
  return content;
}

Copies::Copies(Lab& lab) : lab_(lab) {
  for (const Copy& copy : kAll) {
    testing::ScriptedShare& share = *lab.server(copy.server).scripted().FindShare(copy.share);
    share.writable = true;
    const std::string work = absl::StrCat(copy.folder, kFolder);
    share.AddDirectory(work);
    for (int base = 0; base < kBases; ++base) {
      for (size_t i = 0; i < kBaseFiles.size(); ++i) {
        share.AddText(absl::StrCat(work, "/", BaseName(base), "/", kBaseFiles[i]),
                      BaseContent(base, static_cast<int>(i)));
      }
    }
  }
}

testing::ScriptedFile* Copies::Work(size_t copy) const {
  const testing::ScriptedShare& share =
      *lab_.server(kAll[copy].server).scripted().FindShare(kAll[copy].share);
  return share.Find(absl::StrCat(kAll[copy].folder, kFolder));
}

const testing::ScriptedFile* Copies::Find(size_t copy, const std::string& folder) const {
  const testing::ScriptedFile& work = *Work(copy);
  const auto found = work.children.find(smb::wire::FoldCase(*smb::wire::Utf8ToUtf16(folder)));
  return found == work.children.end() || found->second->delete_pending ? nullptr
                                                                       : found->second.get();
}

std::vector<std::string> Copies::List(size_t copy) const {
  std::vector<std::string> names;
  for (const auto& [folded, child] : Work(copy)->children) {
    names.push_back(smb::wire::Utf16ToUtf8(child->name));
  }
  return names;
}

int Copies::CountHidden() const {
  int hidden = 0;
  const std::function<void(const testing::ScriptedFile&)> look =
      [&](const testing::ScriptedFile& folder) {
        for (const auto& [folded, child] : folder.children) {
          if (absl::StartsWith(smb::wire::Utf16ToUtf8(child->name), ".dfscsi")) ++hidden;
          look(*child);
        }
      };
  for (size_t copy = 0; copy < kAll.size(); ++copy) look(*Work(copy));
  return hidden;
}

// --- A folder

void Folder::TakeBase(int base, uint64_t first_file) {
  for (TreeModel& model : models_) {
    for (size_t i = 0; i < Copies::kBaseFiles.size(); ++i) {
      model.Add(Copies::kBaseFiles[i], first_file + i,
                Copies::BaseContent(base, static_cast<int>(i)));
    }
  }
  for (size_t copy = 0; copy < models_.size(); ++copy) {
    for (const char* const file : Copies::kBaseFiles) {
      models_[copy].Identify(file, copies_.Find(copy, name_));
    }
  }
}

int Folder::Begin(const Step& step, const Files& files, CopySet reachable) {
  under_way_.push_back(
      {.number = ++last_number_, .step = step, .files = files, .where = reachable});
  return last_number_;
}

void Folder::Extend(int number, const Step& step) {
  for (Possible& possible : under_way_) {
    if (possible.number == number) possible.step = step;
  }
}

void Folder::End(int number) {
  under_way_.remove_if([&](const Possible& possible) { return possible.number == number; });
}

Folder::Files Folder::FilesAt(const std::string& path) const {
  Files files = {};
  for (size_t copy = 0; copy < models_.size(); ++copy) files[copy] = models_[copy].FileAt(path);
  return files;
}

std::set<uint64_t> Folder::FilesOf(const Step& step, const Files& files) const {
  std::set<uint64_t> all;
  for (size_t copy = 0; copy < models_.size(); ++copy) {
    Step here = step;
    if (step.through_handle) here.file = files[copy];
    all.insert(FileOf(here, models_[copy]));
  }
  all.erase(0);
  return all;
}

bool Folder::MayBeNameless(const Files& files) const {
  for (size_t copy = 0; copy < models_.size(); ++copy) {
    if (files[copy] == 0 || models_[copy].ContentOf(files[copy]) == nullptr) continue;
    const std::vector<std::string> paths = models_[copy].Paths();
    const auto at = std::find_if(paths.begin(), paths.end(), [&](const std::string& path) {
      return models_[copy].FileAt(path) == files[copy];
    });
    if (at == paths.end()) return true;
    if (std::any_of(under_way_.begin(), under_way_.end(), [&](const Possible& possible) {
          const Step& step = possible.step;
          return (step.kind == Step::Kind::kUnlink && step.path == *at) ||
                 (step.kind == Step::Kind::kRename && step.target == *at);
        })) {
      return true;
    }
  }
  return false;
}

bool Folder::IsLike(size_t copy, const TreeModel& model, std::set<int>* used) const {
  const testing::ScriptedFile* const actual = copies_.Find(copy, name_);
  if (model.DifferenceTo(actual).empty()) return true;
  std::vector<Alternative> contents;
  std::vector<Alternative> names;
  for (const std::list<Possible>* const list : {&under_way_, &unknown_}) {
    for (const Possible& possible : *list) {
      if ((possible.where & Bit(copy)) == 0) continue;
      for (Step& variant : VariantsOf(possible.step)) {
        if (variant.through_handle) variant.file = possible.files[copy];
        const uint64_t file = FileOf(variant, model);
        Alternative other{.file = file, .step = possible.number, .model = model};
        if (other.model.Apply(variant) != 0) continue;
        (file == 0 ? names : contents).push_back(std::move(other));
      }
    }
  }
  names.insert(names.begin(), Alternative{.model = model});
  for (const Alternative& other : names) {
    std::set<int> needed;
    if (other.step != 0) needed.insert(other.step);
    if (!other.model.DifferenceTo(actual, contents, &needed).empty()) continue;
    *used = std::move(needed);
    return true;
  }
  return false;
}

CopySet Folder::UnlikeModels() const {
  CopySet unlike = 0;
  std::set<int> all;
  for (size_t copy = 0; copy < models_.size(); ++copy) {
    std::set<int> used;
    if (!IsLike(copy, models_[copy], &used)) unlike |= Bit(copy);
    for (const int step : used) {
      if (!all.insert(step).second) unlike |= Bit(copy);  // On one copy at most.
    }
  }
  return unlike;
}

std::string Folder::Describe(const Step& step, int error, const Models& next) const {
  std::string text = absl::StrCat("folder ", name_, ", ", step.ToString(), ": ",
                                  error == 0 ? "done" : strerror(error));
  for (size_t copy = 0; copy < models_.size(); ++copy) {
    const testing::ScriptedFile* const actual = copies_.Find(copy, name_);
    const std::string before = models_[copy].DifferenceTo(actual);
    const std::string after = next[copy].DifferenceTo(actual);
    if (before.empty() && after.empty() && actual == nullptr) continue;
    absl::StrAppend(&text, "\n    ", Copies::kAll[copy].target,
                    ": to before: ", before.empty() ? "like" : before,
                    "; to after: ", after.empty() ? "like" : after);
  }
  return text;
}

bool Folder::IsTolerated(const Step& step, int error) const {
  switch (step.kind) {
    case Step::Kind::kRename:
      // Somebody has something open below it.
      return error == EACCES && std::any_of(models_.begin(), models_.end(), [&](const auto& model) {
               return model.Has(step.path) && model.FileAt(step.path) == 0;
             });
    case Step::Kind::kRemoveDirectory:
      return error == ENOTEMPTY && has_hidden_;
    default:
      return false;
  }
}

Folder::Outcome Folder::Settle(const Step& step, int error, CopySet reachable, bool unsettled,
                               const Files& files, int number) {
  End(number);
  Models next = models_;
  Files opened = {};
  CopySet able = 0;
  CopySet refusing = 0;
  for (size_t copy = 0; copy < models_.size(); ++copy) {
    Step here = step;
    if (step.through_handle) here.file = files[copy];
    const int result = next[copy].Apply(here, &opened[copy]);
    if (result != 0) next[copy] = models_[copy];
    if ((reachable & Bit(copy)) == 0) continue;
    if (result == 0) able |= Bit(copy);
    if (result == error) refusing |= Bit(copy);
  }
  if (error == 0) {
    Outcome outcome = SettleDone(step, next, able);
    for (size_t copy = 0; copy < models_.size(); ++copy) {
      if ((outcome.where & Bit(copy)) != 0) outcome.opened[copy] = opened[copy];
    }
    return outcome;
  }
  if (SaysUnknown(error)) return SettleUnknown(step, error, next, able, files);
  // The copy that serves now has another file there: the kernel looks it up again.
  const bool gone = error == ESTALE || (error == ENOENT && step.through_handle);
  const bool elsewhere = (gone && reachable == Copies::kEvery) ||
                         (unsettled && (error == ENOENT || error == ESTALE || error == ENOTDIR));
  if (UnlikeModels() != 0 || (refusing == 0 && !elsewhere && !IsTolerated(step, error))) {
    return {.violation = Describe(step, error, next)};
  }
  return {.where = refusing};
}

Folder::Outcome Folder::SettleDone(const Step& step, const Models& next, CopySet able) {
  Outcome outcome{.done = true};
  const CopySet unlike = UnlikeModels();
  for (size_t copy = 0; copy < models_.size(); ++copy) {
    if ((able & Bit(copy)) == 0 || (unlike & ~Bit(copy)) != 0) continue;
    std::set<int> used;
    if (IsLike(copy, next[copy], &used)) outcome.where |= Bit(copy);
  }
  if (outcome.where == 0) return {.violation = Describe(step, 0, next)};
  for (size_t copy = 0; copy < models_.size(); ++copy) {
    if ((outcome.where & Bit(copy)) == 0) continue;
    models_[copy] = next[copy];
    if (step.kind == Step::Kind::kCreate) {
      models_[copy].Identify(step.path, copies_.Find(copy, name_));
    }
  }
  return outcome;
}

Folder::Outcome Folder::SettleUnknown(const Step& step, int error, const Models& next, CopySet able,
                                      const Files& files) {
  unknown_.push_back({.number = ++last_number_, .step = step, .files = files, .where = able});
  if (!FindChange().empty()) return {.violation = Describe(step, error, next)};
  return {.unknown = true, .where = able};
}

std::string Folder::FindChange() const {
  const CopySet unlike = UnlikeModels();
  if (unlike == 0) return "";
  std::string text;
  for (size_t copy = 0; copy < models_.size(); ++copy) {
    if ((unlike & Bit(copy)) == 0) continue;
    const testing::ScriptedFile* const actual = copies_.Find(copy, name_);
    absl::StrAppend(&text, "\n    ", Copies::kAll[copy].target, ": ",
                    models_[copy].DifferenceTo(actual));
  }
  for (const Possible& possible : under_way_) {
    absl::StrAppend(&text, "\n    under way: ", possible.step.ToString());
  }
  for (const Possible& possible : unknown_) {
    absl::StrAppend(&text, "\n    unknown: ", possible.step.ToString());
  }
  return absl::StrCat("folder ", name_, " has changed", text);
}

bool Folder::MayRead(const Files& files, uint64_t offset, uint64_t asked,
                     std::string_view got) const {
  for (size_t copy = 0; copy < models_.size(); ++copy) {
    const std::string* const content = models_[copy].ContentOf(files[copy]);
    if (content == nullptr) continue;
    const uint64_t from = std::min<uint64_t>(offset, content->size());
    if (std::string_view(*content).substr(from, asked) == got) return true;
  }
  return false;
}

bool Folder::MayHaveSize(const std::string& path, uint64_t size_bytes, CopySet where) const {
  for (size_t copy = 0; copy < models_.size(); ++copy) {
    if ((where & Bit(copy)) == 0 || !models_[copy].Has(path)) continue;
    const std::string* const content = models_[copy].ContentOf(models_[copy].FileAt(path));
    if (content == nullptr || content->size() == size_bytes) return true;
  }
  return false;
}

bool Folder::HasSize(const Files& files, uint64_t size_bytes) const {
  for (size_t copy = 0; copy < models_.size(); ++copy) {
    const std::string* const content = models_[copy].ContentOf(files[copy]);
    if (content != nullptr && content->size() == size_bytes) return true;
  }
  return false;
}

const testing::ScriptedFile* Folder::FindOnServer(size_t copy, uint64_t file) const {
  const testing::ScriptedFile* const folder = copies_.Find(copy, name_);
  const uint64_t id = models_[copy].IdOf(file);
  return folder == nullptr || id == 0 ? nullptr : FindById(*folder, id);
}

}  // namespace dfscsi::simulation
