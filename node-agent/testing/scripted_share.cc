#include "node-agent/testing/scripted_share.h"

#include <string.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_split.h"
#include "node-agent/smb/wire/filetime.h"
#include "node-agent/smb/wire/reparse.h"
#include "node-agent/smb/wire/utf16.h"

namespace dfscsi::testing {
namespace {

using smb::wire::NtStatus;

uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

uint64_t ContentWord(uint64_t seed, uint64_t index) {
  return Mix(seed + index * 0x9e3779b97f4a7c15);
}

std::u16string Wide(std::string_view text) { return smb::wire::Utf8ToUtf16(text).value_or(u"?"); }

// All files were last written then; a test that wants otherwise says so.
const absl::Time kWritten = absl::FromUnixSeconds(1'700'000'000);

}  // namespace

uint64_t ContentSeed(std::string_view path, uint64_t version) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : smb::wire::FoldCaseUtf8(path)) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  }
  return Mix(hash + version);
}

void FillContent(uint64_t seed, uint64_t offset, smb::wire::MutableBytes out) {
  size_t at = 0;
  while (at < out.size()) {
    const uint64_t position = offset + at;
    const uint64_t word = ContentWord(seed, position / 8);
    const size_t skip = position % 8;
    const size_t n = std::min<size_t>(8 - skip, out.size() - at);
    memcpy(out.data() + at, reinterpret_cast<const char*>(&word) + skip, n);
    at += n;
  }
}

uint8_t ContentByte(uint64_t seed, uint64_t offset) {
  return static_cast<uint8_t>(ContentWord(seed, offset / 8) >> (8 * (offset % 8)));
}

smb::wire::FileAttributes ScriptedFile::Attributes() const {
  smb::wire::FileAttributes attributes;
  const uint64_t time = smb::wire::FileTimeOf(last_write);
  const auto or_written = [&](const std::optional<absl::Time>& set) {
    return set.has_value() ? smb::wire::FileTimeOf(*set) : time;
  };
  attributes.creation_time = or_written(created);
  attributes.last_access_time = or_written(accessed);
  attributes.last_write_time = time;
  attributes.change_time = or_written(changed);
  attributes.attributes = extra_attributes;
  if (is_directory()) attributes.attributes |= smb::wire::kAttributeDirectory;
  if (ReparseTag() != 0) attributes.attributes |= smb::wire::kAttributeReparsePoint;
  if (kind == FileKind::kFile) {
    attributes.attributes |= smb::wire::kAttributeArchive;
    attributes.end_of_file = size;
    attributes.allocation_size = (size + 4095) / 4096 * 4096;
  }
  return attributes;
}

uint32_t ScriptedFile::ReparseTag() const {
  if (kind == FileKind::kSymlink) return smb::wire::kTagSymlink;
  if (kind == FileKind::kLink) return smb::wire::kTagDfs;
  if ((extra_attributes & smb::wire::kAttributeReparsePoint) != 0) return smb::wire::kTagMountPoint;
  return 0;
}

void ScriptedFile::Read(uint64_t offset, smb::wire::MutableBytes out) const {
  if (text.has_value()) {
    memcpy(out.data(), text->data() + offset, out.size());
  } else {
    FillContent(content_seed, offset, out);
  }
}

std::string ScriptedFile::Content() const {
  std::string content(size, '\0');
  Read(0, absl::MakeSpan(reinterpret_cast<uint8_t*>(content.data()), content.size()));
  return content;
}

void ScriptedFile::Write(uint64_t offset, smb::wire::Bytes from) {
  Resize(std::max<uint64_t>(size, offset + from.size()));
  memcpy(text->data() + offset, from.data(), from.size());
}

void ScriptedFile::Resize(uint64_t size_bytes) {
  if (!text.has_value()) text = Content();
  text->resize(size_bytes, '\0');
  size = size_bytes;
}

ScriptedShare::ScriptedShare() : root_(std::make_shared<ScriptedFile>()) {
  root_->id = ++last_id_;
  root_->last_write = kWritten;
}

std::shared_ptr<ScriptedFile> ScriptedShare::MakePath(std::string_view path, FileKind kind) {
  std::shared_ptr<ScriptedFile> at = root_;
  for (const absl::string_view part :
       absl::StrSplit(absl::string_view(path.data(), path.size()), '/', absl::SkipEmpty())) {
    const std::u16string name = Wide({part.data(), part.size()});
    std::shared_ptr<ScriptedFile>& child = at->children[smb::wire::FoldCase(name)];
    if (child == nullptr) {
      child = std::make_shared<ScriptedFile>();
      child->name = name;
      child->id = ++last_id_;
      child->last_write = kWritten;
      child->parent = at;
    }
    at = child;
  }
  at->kind = kind;
  return at;
}

ScriptedFile& ScriptedShare::AddFile(std::string_view path, uint64_t size_bytes, uint64_t version) {
  ScriptedFile& file = *MakePath(path, FileKind::kFile);
  file.size = size_bytes;
  file.content_seed = ContentSeed(path, version);
  file.text.reset();
  return file;
}

ScriptedFile& ScriptedShare::AddText(std::string_view path, std::string text) {
  ScriptedFile& file = *MakePath(path, FileKind::kFile);
  file.size = text.size();
  file.text = std::move(text);
  return file;
}

ScriptedFile& ScriptedShare::AddDirectory(std::string_view path) {
  return *MakePath(path, FileKind::kDirectory);
}

ScriptedFile& ScriptedShare::AddSymlink(std::string_view path, std::string_view target) {
  ScriptedFile& file = *MakePath(path, FileKind::kSymlink);
  std::string windows(target);
  std::replace(windows.begin(), windows.end(), '/', '\\');
  file.target = Wide(windows);
  file.relative = !windows.starts_with('\\');
  return file;
}

ScriptedFile& ScriptedShare::AddLink(std::string_view path, ScriptedReferral referral) {
  ScriptedFile& file = *MakePath(path, FileKind::kLink);
  file.referral = std::move(referral);
  return file;
}

void ScriptedShare::Remove(std::string_view path) {
  const size_t slash = path.rfind('/');
  ScriptedFile* const parent =
      slash == std::string_view::npos ? root_.get() : Find(path.substr(0, slash));
  if (parent == nullptr) return;
  const std::string_view name = slash == std::string_view::npos ? path : path.substr(slash + 1);
  parent->children.erase(smb::wire::FoldCase(Wide(name)));
}

ScriptedFile* ScriptedShare::Find(std::string_view path) const {
  ScriptedFile* at = root_.get();
  for (const absl::string_view part :
       absl::StrSplit(absl::string_view(path.data(), path.size()), '/', absl::SkipEmpty())) {
    const auto child = at->children.find(smb::wire::FoldCase(Wide({part.data(), part.size()})));
    if (child == at->children.end()) return nullptr;
    at = child->second.get();
  }
  return at;
}

std::shared_ptr<ScriptedFile> ScriptedShare::Make(const std::shared_ptr<ScriptedFile>& parent,
                                                  std::u16string_view name, FileKind kind,
                                                  absl::Time now) {
  auto file = std::make_shared<ScriptedFile>();
  file->name = name;
  file->kind = kind;
  file->id = ++last_id_;
  file->last_write = now;
  file->created = now;
  file->text = "";
  file->parent = parent;
  parent->children[smb::wire::FoldCase(file->name)] = file;
  return file;
}

void ScriptedShare::Unlink(const std::shared_ptr<ScriptedFile>& file) {
  const std::shared_ptr<ScriptedFile> parent = file->parent.lock();
  file->parent.reset();
  if (parent == nullptr) return;
  const auto found = parent->children.find(smb::wire::FoldCase(file->name));
  if (found != parent->children.end() && found->second == file) parent->children.erase(found);
}

void ScriptedShare::Link(const std::shared_ptr<ScriptedFile>& file,
                         const std::shared_ptr<ScriptedFile>& parent, std::u16string_view name) {
  parent->children[smb::wire::FoldCase(std::u16string(name))] = file;
  ++file->names;
}

void ScriptedShare::Move(const std::shared_ptr<ScriptedFile>& file,
                         const std::shared_ptr<ScriptedFile>& parent, std::u16string_view name) {
  Unlink(file);
  file->name = name;
  file->parent = parent;
  parent->children[smb::wire::FoldCase(file->name)] = file;
}

ScriptedShare::Found ScriptedShare::Walk(std::u16string_view name, bool follow_last_symlink) const {
  Found found{.file = root_};
  if (name.empty()) return found;
  if (name.front() == u'\\') return {.status = NtStatus::kInvalidParameter};
  size_t begin = 0;
  while (true) {
    const size_t end = std::min(name.find(u'\\', begin), name.size());
    const bool last = end == name.size();
    const std::u16string_view component = name.substr(begin, end - begin);
    if (component.empty() || component == u"." || component == u"..") {
      return {.status = NtStatus::kObjectNameInvalid};
    }
    const auto child = found.file->children.find(smb::wire::FoldCase(component));
    if (found.file->kind != FileKind::kDirectory || child == found.file->children.end()) {
      return {.status = last && found.file->kind == FileKind::kDirectory
                            ? NtStatus::kObjectNameNotFound
                            : NtStatus::kObjectPathNotFound};
    }
    found.file = child->second;
    found.consumed_units = end;
    if (found.file->kind == FileKind::kLink) {
      found.status = NtStatus::kPathNotCovered;
      return found;
    }
    if (found.file->kind == FileKind::kSymlink && (!last || follow_last_symlink)) {
      found.status = NtStatus::kStoppedOnSymlink;
      found.unparsed_units = name.size() - end;
      return found;
    }
    if (last) return found;
    begin = end + 1;
  }
}

}  // namespace dfscsi::testing
