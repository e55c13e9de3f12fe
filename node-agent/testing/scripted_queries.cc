// QUERY_DIRECTORY and QUERY_INFO on a scripted server ([MS-SMB2] 3.3.5.18, 3.3.5.20).

#include <algorithm>

#include "absl/strings/str_replace.h"
#include "node-agent/smb/wire/directory.h"
#include "node-agent/smb/wire/file_information.h"
#include "node-agent/smb/wire/fs_information.h"
#include "node-agent/smb/wire/utf16.h"
#include "node-agent/testing/scripted_connection.h"

namespace dfscsi::testing {
namespace {

using smb::wire::Dialect;
using smb::wire::NtStatus;

// '*' and '?'; names and pattern are folded.
bool Matches(std::u16string_view pattern, std::u16string_view name) {
  if (pattern.empty()) return name.empty();
  if (pattern.front() == u'*') {
    return Matches(pattern.substr(1), name) || (!name.empty() && Matches(pattern, name.substr(1)));
  }
  return !name.empty() && (pattern.front() == u'?' || pattern.front() == name.front()) &&
         Matches(pattern.substr(1), name.substr(1));
}

uint64_t OrderKey(const ScriptedFile& file, uint64_t order) {
  return ContentSeed(smb::wire::Utf16ToUtf8(file.name), order);
}

}  // namespace

void ScriptedConnection::QueryDirectory(Call& call) {
  const absl::StatusOr<smb::wire::QueryDirectoryRequest> request =
      smb::wire::DecodeQueryDirectoryRequest(call.body);
  if (!request.ok()) return ReplyError(call, NtStatus::kInvalidParameter);
  ScriptedOpen* const open = FindOpen(call, request->file_id);
  if (open == nullptr) return;
  CheckCharge(call, request->max_output_bytes);
  if (request->max_output_bytes > negotiate_response_.max_transact_bytes) {
    server_.Violation(number_, "a QUERY_DIRECTORY larger than the maximum");
    return ReplyError(call, NtStatus::kInvalidParameter);
  }
  if (open->file->kind != FileKind::kDirectory) {
    return ReplyError(call, NtStatus::kInvalidParameter);
  }
  const bool first = !open->listing_begun;
  if (first || (request->flags & (smb::wire::kRestartScan | smb::wire::kReopen)) != 0) {
    const std::u16string pattern = smb::wire::FoldCase(request->pattern);
    open->listing.clear();
    if (pattern == u"*") open->listing = {nullptr, nullptr};  // "." and ".."
    for (const auto& [folded, child] : open->file->children) {
      if (Matches(pattern, folded)) open->listing.push_back(child);
    }
    if (const uint64_t order = call.tree->tree->listing_order; order != 0) {
      std::sort(open->listing.begin(), open->listing.end(), [&](const auto& a, const auto& b) {
        if (a == nullptr || b == nullptr) return a == nullptr && b != nullptr;
        return OrderKey(*a, order) < OrderKey(*b, order);
      });
    }
    open->listed = 0;
    open->listing_begun = true;
  }
  if (open->listed == open->listing.size()) {
    return ReplyError(
        call, open->listing.empty() && first ? NtStatus::kNoSuchFile : NtStatus::kNoMoreFiles);
  }
  std::vector<uint8_t> output;
  smb::wire::Writer writer(&output);
  smb::wire::DirectoryWriter entries(request->info_class, request->max_output_bytes, &writer);
  const size_t before = open->listed;
  while (open->listed < open->listing.size()) {
    const ScriptedFile* const child = open->listing[open->listed].get();
    const ScriptedFile& file = child != nullptr ? *child : *open->file;
    const std::u16string_view name = child != nullptr    ? std::u16string_view(child->name)
                                     : open->listed == 0 ? u"."
                                                         : u"..";
    if (!entries.Add(name, file.Attributes(), file.ReparseTag(), file.id)) break;
    ++open->listed;
    if ((request->flags & smb::wire::kSingleEntry) != 0) break;
  }
  if (open->listed == before) return ReplyError(call, NtStatus::kBufferOverflow);
  ReplyBuffer(call, output);
}

NtStatus ScriptedConnection::FileInformation(const ScriptedOpen& open, uint8_t info_class,
                                             smb::wire::Writer& writer) {
  using smb::wire::FileInfoClass;
  const ScriptedFile& file = *open.file;
  const smb::wire::FileAttributes attributes = file.Attributes();
  smb::wire::AllInformation all;
  all.basic = {attributes.creation_time, attributes.last_access_time, attributes.last_write_time,
               attributes.change_time, attributes.attributes};
  all.standard.allocation_size = attributes.allocation_size;
  all.standard.end_of_file = attributes.end_of_file;
  all.standard.links = file.names;
  all.standard.directory = file.is_directory();
  all.standard.delete_pending = file.delete_pending;
  all.file_id = file.id;
  all.ea_size = file.ReparseTag();
  all.access = 0x001200a9;
  const std::u16string name =
      smb::wire::Utf8ToUtf16(absl::StrReplaceAll(open.path, {{"/", "\\"}})).value_or(u"");
  switch (static_cast<FileInfoClass>(info_class)) {
    case FileInfoClass::kBasic:
      smb::wire::EncodeBasicInformation(all.basic, writer);
      return NtStatus::kSuccess;
    case FileInfoClass::kStandard:
      smb::wire::EncodeStandardInformation(all.standard, writer);
      return NtStatus::kSuccess;
    case FileInfoClass::kInternal:
      smb::wire::EncodeInternalInformation(file.id, writer);
      return NtStatus::kSuccess;
    case FileInfoClass::kEa:
      writer.U32(file.ReparseTag());
      return NtStatus::kSuccess;
    case FileInfoClass::kFullEa: {
      if (file.extended.empty()) return NtStatus::kNoEasOnFile;
      std::vector<smb::wire::ExtendedAttribute> extended;
      extended.reserve(file.extended.size());
      for (const auto& [ea, value] : file.extended) extended.push_back({0, ea, value});
      smb::wire::EncodeExtendedAttributes(extended, writer);
      return NtStatus::kSuccess;
    }
    case FileInfoClass::kAll:
      smb::wire::EncodeAllInformation(all, name, writer);
      return NtStatus::kSuccess;
    case FileInfoClass::kNetworkOpen:
      smb::wire::EncodeNetworkOpenInformation(attributes, writer);
      return NtStatus::kSuccess;
    case FileInfoClass::kAttributeTag:
      smb::wire::EncodeAttributeTagInformation({attributes.attributes, file.ReparseTag()}, writer);
      return NtStatus::kSuccess;
    case FileInfoClass::kNormalizedName:
      if (negotiate_response_.dialect < Dialect::k311) return NtStatus::kNotSupported;
      smb::wire::EncodeNormalizedName(name, writer);
      return NtStatus::kSuccess;
    default:
      return NtStatus::kInvalidInfoClass;
  }
}

NtStatus ScriptedConnection::FsInformation(uint8_t info_class, smb::wire::Writer& writer) {
  using smb::wire::FsInfoClass;
  const smb::wire::FsSizeInformation size{.total_units = 1 << 20,
                                          .available_units = 1 << 18,
                                          .free_units = 1 << 19,
                                          .sectors_per_unit = 8,
                                          .bytes_per_sector = 512};
  switch (static_cast<FsInfoClass>(info_class)) {
    case FsInfoClass::kVolume:
      smb::wire::EncodeFsVolumeInformation({.serial_number = 0x1234, .label = u"scripted"}, writer);
      return NtStatus::kSuccess;
    case FsInfoClass::kSize:
      smb::wire::EncodeFsSizeInformation(size, writer);
      return NtStatus::kSuccess;
    case FsInfoClass::kFullSize:
      smb::wire::EncodeFsFullSizeInformation(size, writer);
      return NtStatus::kSuccess;
    case FsInfoClass::kAttribute:
      smb::wire::EncodeFsAttributeInformation(
          {.attributes = smb::wire::kFsCasePreservedNames | smb::wire::kFsUnicodeOnDisk |
                         smb::wire::kFsSupportsReparsePoints,
           .file_system = u"NTFS"},
          writer);
      return NtStatus::kSuccess;
    case FsInfoClass::kSectorSize:
      smb::wire::EncodeFsSectorSizeInformation({}, writer);
      return NtStatus::kSuccess;
    default:
      return NtStatus::kInvalidInfoClass;
  }
}

void ScriptedConnection::QueryInfo(Call& call) {
  const absl::StatusOr<smb::wire::QueryInfoRequest> request =
      smb::wire::DecodeQueryInfoRequest(call.body);
  if (!request.ok()) return ReplyError(call, NtStatus::kInvalidParameter);
  const ScriptedOpen* const open = FindOpen(call, request->file_id);
  if (open == nullptr) return;
  CheckCharge(call, request->max_output_bytes);
  std::vector<uint8_t> output;
  smb::wire::Writer writer(&output);
  NtStatus status = NtStatus::kNotSupported;
  if (request->type == smb::wire::InfoType::kFile) {
    status = FileInformation(*open, request->info_class, writer);
  } else if (request->type == smb::wire::InfoType::kFileSystem) {
    status = FsInformation(request->info_class, writer);
  }
  if (status != NtStatus::kSuccess) return ReplyError(call, status);
  if (output.size() > request->max_output_bytes) {
    output.resize(request->max_output_bytes);
    call.status = NtStatus::kBufferOverflow;
  }
  ReplyBuffer(call, output);
}

}  // namespace dfscsi::testing
