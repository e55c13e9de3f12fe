#include "node-agent/vfs/reparse_target.h"

#include <errno.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "node-agent/smb/wire/reparse.h"
#include "node-agent/vfs/errno.h"

namespace dfscsi::vfs {
namespace {

namespace wire = smb::wire;

TEST(ReparseTargetTest, Kinds) {
  const struct {
    const char* what;
    wire::ReparseData reparse;
    std::string target;
    int error;
  } kCases[] = {
      {"relative",
       wire::SymlinkReparse{.relative = true, .substitute_name = u"..\\a\\b", .print_name = u"x"},
       "../a/b", 0},
      {"to a drive",
       wire::SymlinkReparse{
           .relative = false, .substitute_name = u"\\??\\C:\\a", .print_name = u"C:\\a"},
       "", ELOOP},
      {"relative to the drive",
       wire::SymlinkReparse{.relative = true, .substitute_name = u"\\a", .print_name = u"\\a"}, "",
       ELOOP},
      {"empty", wire::SymlinkReparse{.relative = true, .substitute_name = u"", .print_name = u""},
       "", EIO},
      {"WSL, relative", wire::LxSymlinkReparse{.target = "a/ä"}, "a/ä", 0},
      {"WSL, absolute", wire::LxSymlinkReparse{.target = "/etc/passwd"}, "", ELOOP},
      {"NFS, relative", wire::NfsReparse{.target = u"a/b"}, "a/b", 0},
      {"NFS, absolute", wire::NfsReparse{.target = u"/a"}, "", ELOOP},
      {"NFS, no link", wire::NfsReparse{.type = wire::NfsType::kFifo}, "", EINVAL},
      {"junction",
       wire::MountPointReparse{.substitute_name = u"\\??\\C:\\a", .print_name = u"C:\\a"}, "",
       ELOOP},
      {"unknown", wire::OtherReparse{.tag = wire::kTagCloud}, "", EOPNOTSUPP},
  };
  for (const auto& test : kCases) {
    std::vector<uint8_t> bytes;
    wire::Writer writer(&bytes);
    wire::EncodeReparseData(test.reparse, writer);
    const absl::StatusOr<std::string> target = ReparseTarget(bytes);
    EXPECT_EQ(ErrnoOf(target.status()), test.error) << test.what << ": " << target.status();
    if (target.ok()) EXPECT_EQ(*target, test.target) << test.what;
  }
  EXPECT_EQ(ErrnoOf(ReparseTarget({}).status()), EIO);
}

}  // namespace
}  // namespace dfscsi::vfs
