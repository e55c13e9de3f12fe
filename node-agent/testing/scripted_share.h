// What a scripted server shares: a tree of files in memory. The bytes of a file are a function of
// its path (or its text), so a test can check any byte without having written it.

#ifndef NODE_AGENT_TESTING_SCRIPTED_SHARE_H_
#define NODE_AGENT_TESTING_SCRIPTED_SHARE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "node-agent/smb/wire/file_attributes.h"
#include "node-agent/smb/wire/ioctl.h"
#include "node-agent/smb/wire/nt_status.h"
#include "node-agent/smb/wire/reader.h"
#include "node-agent/smb/wire/session.h"

namespace dfscsi::testing {

// The generated content of the file at `path` ('/' between components, any case), at its
// `version`: copies of one file on several servers are equal, as those of a real namespace are,
// unless a test gives one another version.
uint64_t ContentSeed(std::string_view path, uint64_t version = 0);
void FillContent(uint64_t seed, uint64_t offset, smb::wire::MutableBytes out);
uint8_t ContentByte(uint64_t seed, uint64_t offset);

// What a link, or a root, answers to a referral request.
struct ScriptedReferral {
  struct Target {
    // NOLINTNEXTLINE(google-explicit-constructor): lists of addresses read better without it.
    Target(std::string target_address, bool begins_set = false)
        : address(std::move(target_address)), starts_set(begins_set) {}
    // NOLINTNEXTLINE(google-explicit-constructor)
    Target(const char* target_address) : address(target_address) {}
    std::string address;      // "t1/data/sub"; sent as \t1\data\sub
    bool starts_set = false;  // V4: TargetSetBoundary. The first one always does.
  };
  std::vector<Target> targets = {};  // None: an empty link.
  uint16_t version = 3;              // The most that is answered; never more than was asked for.
  uint32_t ttl_seconds = 600;
  bool interlink = false;  // ReferralServers without StorageServers.
  bool failback = false;   // V4: TargetFailback
  // Answered as it is, whatever it means.
  std::optional<std::vector<uint8_t>> raw = {};
};

enum class FileKind { kFile, kDirectory, kSymlink, kLink };

// A byte range that an open has locked.
struct ScriptedLock {
  uint64_t owner = 0;  // The persistent half of its FileId.
  uint64_t offset = 0;
  uint64_t length_bytes = 0;
  bool exclusive = false;
};

struct ScriptedFile {
  std::u16string name = {};
  FileKind kind = FileKind::kDirectory;
  uint64_t id = 0;  // Of its server.
  uint64_t size = 0;
  uint64_t content_seed = 0;
  std::optional<std::string> text = {};  // Instead of generated content.
  // What is not a hole, for FSCTL_QUERY_ALLOCATED_RANGES; unset: all of it.
  std::optional<std::vector<smb::wire::FileRange>> allocated = {};
  absl::Time last_write = {};
  bool denied = false;             // Opening it is ACCESS_DENIED.
  std::u16string target = {};      // kSymlink: as in the reparse point.
  bool relative = true;            // kSymlink
  ScriptedReferral referral = {};  // kLink
  std::map<std::u16string, std::shared_ptr<ScriptedFile>> children = {};  // By folded name.
  std::weak_ptr<ScriptedFile> parent = {};  // None: the root, or it was removed.

  // What clients have made of it. Times: as last_write, unless they were set.
  std::optional<absl::Time> created = {};
  std::optional<absl::Time> accessed = {};
  std::optional<absl::Time> changed = {};
  uint32_t extra_attributes = 0;  // READONLY, HIDDEN, SYSTEM, TEMPORARY; REPARSE_POINT: a junction
  std::map<std::string, std::string> extended = {};  // By name in upper case.
  std::vector<ScriptedLock> locks = {};
  bool delete_pending = false;
  uint32_t names = 1;  // Hard links; the others are not in `name` and `parent`.

  bool is_directory() const { return kind == FileKind::kDirectory || kind == FileKind::kLink; }
  smb::wire::FileAttributes Attributes() const;
  uint32_t ReparseTag() const;  // 0: none
  void Read(uint64_t offset, smb::wire::MutableBytes out) const;
  // All of it.
  std::string Content() const;
  // REQUIRES: kind == kFile. From then on the content is text.
  void Write(uint64_t offset, smb::wire::Bytes from);
  void Resize(uint64_t size_bytes);
};

// Paths are UTF-8 with '/', without a leading one; "" is the share's root. Folders on the way are
// made. What a test changes here, a client sees with its next request.
class ScriptedShare {
 public:
  ScriptedShare();

  ScriptedFile& AddFile(std::string_view path, uint64_t size_bytes, uint64_t version = 0);
  ScriptedFile& AddText(std::string_view path, std::string text);
  ScriptedFile& AddDirectory(std::string_view path);
  ScriptedFile& AddSymlink(std::string_view path, std::string_view target);
  ScriptedFile& AddLink(std::string_view path, ScriptedReferral referral);
  void Remove(std::string_view path);
  // Null if there is none.
  ScriptedFile* Find(std::string_view path) const;

  // What CREATE makes of `name` (share-relative, '\' between components). For kStoppedOnSymlink
  // `file` is the symlink and `unparsed_units` what lies behind it; for kPathNotCovered `file` is
  // the link.
  struct Found {
    smb::wire::NtStatus status = smb::wire::NtStatus::kSuccess;
    std::shared_ptr<ScriptedFile> file = {};
    size_t consumed_units = 0;  // Of `name`, up to and with `file`.
    size_t unparsed_units = 0;
  };
  Found Walk(std::u16string_view name, bool follow_last_symlink) const;

  const std::shared_ptr<ScriptedFile>& root() const { return root_; }

  // What CREATE, rename and the last CLOSE do. `name` is the last component.
  std::shared_ptr<ScriptedFile> Make(const std::shared_ptr<ScriptedFile>& parent,
                                     std::u16string_view name, FileKind kind, absl::Time now);
  static void Unlink(const std::shared_ptr<ScriptedFile>& file);
  // A second name for a file.
  static void Link(const std::shared_ptr<ScriptedFile>& file,
                   const std::shared_ptr<ScriptedFile>& parent, std::u16string_view name);
  static void Move(const std::shared_ptr<ScriptedFile>& file,
                   const std::shared_ptr<ScriptedFile>& parent, std::u16string_view name);

  // Of the share as a whole.
  uint8_t type = smb::wire::kShareDisk;
  bool encrypt = false;
  // A DFS root: the referral for itself (no targets: the asker's own words, as Samba does).
  bool dfs_root = false;
  ScriptedReferral root_referral = {};
  // TREE_CONNECT's answer; a proxy share is BAD_NETWORK_NAME and a root referral.
  smb::wire::NtStatus connect_status = smb::wire::NtStatus::kSuccess;
  // Listings come in another order for each value: copies list in different orders.
  uint64_t listing_order = 0;
  // False: what would change a file is MEDIA_WRITE_PROTECTED.
  bool writable = false;
  // Bytes that files may still grow by: DISK_FULL, or QUOTA_EXCEEDED, beyond. Unset: no bound.
  std::optional<uint64_t> free_bytes = {};
  std::optional<uint64_t> quota_bytes = {};
  // Continuously available: durable handles are persistent, and outlive the server's process.
  bool persistent_handles = false;
  bool hard_links = false;    // FileLinkInformation; NOT_SUPPORTED without.
  bool posix_unlink = false;  // DispositionEx and RenameEx with POSIX flags.

 private:
  std::shared_ptr<ScriptedFile> MakePath(std::string_view path, FileKind kind);

  std::shared_ptr<ScriptedFile> root_;
  uint64_t last_id_ = 0;
};

}  // namespace dfscsi::testing

#endif  // NODE_AGENT_TESTING_SCRIPTED_SHARE_H_
