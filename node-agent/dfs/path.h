// A path in a DFS namespace or on an SMB share: \host\share\a\b.
//
// Source: [MS-DFSC] 2.2.1.4 (paths), [MS-FSCC] 2.1.5 (names). Comparison ignores case by the one
// table of smb/wire/utf16.h, never by locale; names are not normalised (NFC and NFD are two names).

#ifndef NODE_AGENT_DFS_PATH_H_
#define NODE_AGENT_DFS_PATH_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace dfscsi::dfs {

// Lengths in UTF-16 units.
inline constexpr size_t kMaxHostUnits = 255;
inline constexpr size_t kMaxShareUnits = 80;  // NNLEN
inline constexpr size_t kMaxComponentUnits = 255;
inline constexpr size_t kMaxPathUnits = 32767;

// A host, a share and the names below it; always at least host and share. A value: copyable,
// compared without case. Spelling is kept as it came (servers echo it, users read it).
//
// Names are as they go on the wire: a caller that maps characters SMB cannot carry does so before
// Join. Not synchronised; const methods may run concurrently.
class DfsPath {
 public:
  // From what a user typed: //host/share[/path], with / or \ in any mix, doubled or trailing
  // separators ignored. The host may carry a port (host@1445) or be an IPv6 address, bare or in [].
  // Errors: kInvalidArgument with a message for that user; the caller shows it.
  static absl::StatusOr<DfsPath> Parse(absl::string_view source);

  // From a server's network address: \host\share[\path]. A second leading and a trailing backslash
  // are tolerated. Refuses what no honest referral contains: wildcards, control characters, '/',
  // ports, "." and "..", empty names, lone surrogates, IPC$.
  // Errors: kInvalidArgument; the caller drops that one target.
  static absl::StatusOr<DfsPath> ParseTarget(std::u16string_view address);

  absl::string_view host() const { return Component(0); }
  absl::string_view share() const { return Component(1); }
  absl::string_view Component(size_t index) const;  // REQUIRES: index < size().
  size_t size() const { return ends_.size(); }      // Components; >= 2.

  // The host without port and brackets, as a resolver and a UNC path want it, and its port.
  absl::string_view HostName() const;
  std::optional<uint16_t> Port() const;
  // The same by HostName(), as referrals write it. The port then goes into smb::Options::port.
  DfsPath WithoutPort() const;

  // \HOST\SHARE\A in upper case: equal keys mean equal paths. A prefix of n components is a prefix
  // of the key. Views live as long as the object.
  std::u16string_view Key() const { return key_; }
  std::u16string_view KeyPrefix(size_t components) const;  // REQUIRES: components <= size().

  // True if the first components of this path are those of `prefix`: \h\s\ab is not below \h\s\a.
  bool HasPrefix(const DfsPath& prefix) const;

  DfsPath Prefix(size_t components) const;  // REQUIRES: 2 <= components <= size().
  // One name deeper. Errors: kInvalidArgument (no such name can exist), kOutOfRange (too long).
  absl::StatusOr<DfsPath> Join(absl::string_view component) const;
  // `replacement` in place of the first `components`: how a referral rewrites a path.
  // Errors: kOutOfRange (too long). REQUIRES: components <= size().
  absl::StatusOr<DfsPath> ReplacePrefix(size_t components, const DfsPath& replacement) const;

  // The names from component `first` on, joined by '\': what CREATE takes (first = 2).
  absl::string_view Relative(size_t first) const;

  // //host/share/a: for people and logs.
  std::string ToString() const;
  // \host\share\a in UTF-16, the host without its port: what a referral request carries.
  std::u16string ToWire() const;

  friend bool operator==(const DfsPath& a, const DfsPath& b) { return a.key_ == b.key_; }
  friend std::ostream& operator<<(std::ostream& os, const DfsPath& path) {
    return os << path.ToString();
  }
  template <typename H>
  friend H AbslHashValue(H h, const DfsPath& path) {
    return H::combine(std::move(h), path.key_);
  }

 private:
  enum class Origin { kUser, kServer };
  struct End {
    uint32_t text;  // Offset into text_ behind the component, bytes.
    uint32_t key;   // Offset into key_, units.
  };

  DfsPath() = default;
  static absl::Status CheckName(absl::string_view name, size_t index, Origin origin);
  absl::Status Append(absl::string_view name, Origin origin);

  std::string text_;    // \host\share\a, WTF-8.
  std::u16string key_;  // The same, folded; unit for unit as long as the unfolded UTF-16.
  absl::InlinedVector<End, 8> ends_;
};

}  // namespace dfscsi::dfs

#endif  // NODE_AGENT_DFS_PATH_H_
