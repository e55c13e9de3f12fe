#include "node-agent/smb/wire/reparse.h"

#include <string_view>
#include <utility>

#include "node-agent/base/status_macros.h"
#include "node-agent/smb/wire/utf16.h"

namespace dfscsi::smb::wire {
namespace {

constexpr std::string_view kWhat = "reparse point";
constexpr uint32_t kSymlinkRelative = 1;
constexpr uint32_t kLxSymlinkVersion = 2;

struct NamePair {
  std::u16string substitute_name;
  std::u16string print_name;
  uint32_t flags = 0;
};

// What symbolic links and mount points have in common: two names by offset in a path buffer.
absl::StatusOr<NamePair> DecodeNames(Reader reader, bool has_flags) {
  const uint16_t substitute_offset = reader.U16();
  const uint16_t substitute_length = reader.U16();
  const uint16_t print_offset = reader.U16();
  const uint16_t print_length = reader.U16();
  NamePair names;
  if (has_flags) names.flags = reader.U32();
  const Bytes path_buffer = reader.Take(reader.remaining());
  if (!reader.ok()) return MalformedError(kWhat, "too short");
  Bytes substitute;
  Bytes print;
  if (!Slice(path_buffer, substitute_offset, substitute_length, &substitute) ||
      !Slice(path_buffer, print_offset, print_length, &print)) {
    return MalformedError(kWhat, "name outside its buffer");
  }
  if (substitute_length % 2 != 0 || print_length % 2 != 0) {
    return MalformedError(kWhat, "string of odd length");
  }
  names.substitute_name = Utf16FromBytes(substitute);
  names.print_name = Utf16FromBytes(print);
  if (names.substitute_name.find(u'\0') != std::u16string::npos ||
      names.print_name.find(u'\0') != std::u16string::npos) {
    return MalformedError(kWhat, "NUL in a name");
  }
  return names;
}

absl::StatusOr<ReparseData> DecodeNfs(Reader reader) {
  NfsReparse nfs;
  nfs.type = static_cast<NfsType>(reader.U64());
  switch (nfs.type) {
    case NfsType::kLink: {
      const Bytes target = reader.Take(reader.remaining());
      if (target.size() % 2 != 0) return MalformedError(kWhat, "string of odd length");
      nfs.target = Utf16FromBytes(target);
      if (nfs.target.find(u'\0') != std::u16string::npos) {
        return MalformedError(kWhat, "NUL in a name");
      }
      break;
    }
    case NfsType::kCharacterDevice:
    case NfsType::kBlockDevice:
      nfs.major = reader.U32();
      nfs.minor = reader.U32();
      break;
    case NfsType::kFifo:
    case NfsType::kSocket:
      break;
    default:
      return MalformedError(kWhat, reader.ok() ? "unknown NFS type" : "too short");
  }
  if (!reader.ok()) return MalformedError(kWhat, "too short");
  return nfs;
}

absl::StatusOr<ReparseData> DecodeLxSymlink(Reader reader) {
  const uint32_t version = reader.U32();
  const Bytes target = reader.Take(reader.remaining());
  if (!reader.ok()) return MalformedError(kWhat, "too short");
  if (version != kLxSymlinkVersion) return MalformedError(kWhat, "unknown LX version");
  LxSymlinkReparse link;
  link.target.assign(reinterpret_cast<const char*>(target.data()), target.size());
  if (link.target.find('\0') != std::string::npos) return MalformedError(kWhat, "NUL in a name");
  return link;
}

// Writes one alternative's content; EncodeReparseData puts tag and length around it.
struct ContentEncoder {
  Writer& writer;

  void Names(std::u16string_view substitute, std::u16string_view print,
             const uint32_t* flags) const {
    writer.U16(0);
    writer.Length16(substitute.size() * 2);
    writer.Length16(substitute.size() * 2);
    writer.Length16(print.size() * 2);
    if (flags != nullptr) writer.U32(*flags);
    writer.Utf16(substitute);
    writer.Utf16(print);
  }
  uint32_t operator()(const SymlinkReparse& link) const {
    const uint32_t flags = link.relative ? kSymlinkRelative : 0;
    Names(link.substitute_name, link.print_name, &flags);
    return kTagSymlink;
  }
  uint32_t operator()(const MountPointReparse& mount) const {
    Names(mount.substitute_name, mount.print_name, nullptr);
    return kTagMountPoint;
  }
  uint32_t operator()(const NfsReparse& nfs) const {
    writer.U64(static_cast<uint64_t>(nfs.type));
    if (nfs.type == NfsType::kLink) {
      writer.Utf16(nfs.target);
    } else if (nfs.type == NfsType::kCharacterDevice || nfs.type == NfsType::kBlockDevice) {
      writer.U32(nfs.major);
      writer.U32(nfs.minor);
    }
    return kTagNfs;
  }
  uint32_t operator()(const LxSymlinkReparse& link) const {
    writer.U32(kLxSymlinkVersion);
    writer.Append(Bytes(reinterpret_cast<const uint8_t*>(link.target.data()), link.target.size()));
    return kTagLxSymlink;
  }
  uint32_t operator()(const OtherReparse& other) const {
    writer.Append(other.content);
    return other.tag;
  }
};

}  // namespace

void EncodeReparseData(const ReparseData& reparse, Writer& writer) {
  const size_t start = writer.size();
  writer.U64(0);  // Tag, length, reserved.
  const uint32_t tag = std::visit(ContentEncoder{writer}, reparse);
  writer.PatchU32(start, tag);
  writer.PatchU16(start + 4, writer.size() - start - 8);
}

absl::StatusOr<ReparseData> DecodeReparseData(Bytes buffer) {
  Reader reader(buffer);
  const uint32_t tag = reader.U32();
  const uint16_t length = reader.U16();
  reader.Skip(2);
  const Bytes content = reader.Take(length);
  if (!reader.ok()) return MalformedError(kWhat, "too short");
  switch (tag) {
    case kTagSymlink: {
      ASSIGN_OR_RETURN(NamePair names, DecodeNames(Reader(content), /*has_flags=*/true));
      return SymlinkReparse{(names.flags & kSymlinkRelative) != 0, std::move(names.substitute_name),
                            std::move(names.print_name)};
    }
    case kTagMountPoint: {
      ASSIGN_OR_RETURN(NamePair names, DecodeNames(Reader(content), /*has_flags=*/false));
      return MountPointReparse{std::move(names.substitute_name), std::move(names.print_name)};
    }
    case kTagNfs:
      return DecodeNfs(Reader(content));
    case kTagLxSymlink:
      return DecodeLxSymlink(Reader(content));
    default:
      return OtherReparse{tag, content};
  }
}

}  // namespace dfscsi::smb::wire
