// GETXATTR, LISTXATTR, SETXATTR, REMOVEXATTR.

#include <errno.h>
#include <gtest/gtest.h>
#include <sys/xattr.h>

#include <optional>
#include <string>

#include "node-agent/vfs/filesystem_test_lab.h"

namespace dfscsi::vfs {
namespace {

using smb::wire::Command;
using smb::wire::NtStatus;
using testing::Closing;
using testing::ScriptedShare;

struct ExtendedAttributesTest : public ::testing::Test {
  ExtendedAttributesTest() {
    lab.OnBoth([](ScriptedShare& share) {
      share.writable = true;
      share.AddText("file", "0123456789");
      share.AddDirectory("dir");
    });
  }
  int Set(const std::string& name, const std::string& value, int flags = 0,
          ChangeJournal* journal = nullptr) {
    const state::NodeId node = lab.Walk("file");
    return ErrnoOf(lab.Change([=, this](runtime::Deadline until) {
      return lab.filesystem().SetXattr(node, name, value, flags, journal, until);
    }));
  }
  int Remove(const std::string& name) {
    const state::NodeId node = lab.Walk("file");
    return ErrnoOf(lab.Change([=, this](runtime::Deadline until) {
      return lab.filesystem().RemoveXattr(node, name, nullptr, until);
    }));
  }
  absl::StatusOr<std::string> Get(const std::string& name, const std::string& path = "file") {
    const state::NodeId node = lab.Walk(path);
    return *lab.Await<absl::StatusOr<std::string>>(
        [=, this] { return lab.filesystem().GetXattr(node, name, runtime::Deadline::Never()); });
  }
  absl::StatusOr<std::string> List() {
    const state::NodeId node = lab.Walk("file");
    return *lab.Await<absl::StatusOr<std::string>>(
        [=, this] { return lab.filesystem().ListXattrs(node, runtime::Deadline::Never()); });
  }
  void Lose(Command command, bool executed) {
    lab.server("t1").ClearRules();
    lab.server("t1").AddRule(
        {.command = command,
         .times = 1,
         .action = {.drop = executed, .ignore = !executed, .close = Closing::kReset}});
  }
  FilesystemLab lab;
};

TEST_F(ExtendedAttributesTest, TheyComeAndGo) {
  lab.Mount("//t1/share");
  EXPECT_EQ(List().value_or("error"), "");
  EXPECT_EQ(ErrnoOf(Get("user.A").status()), ENODATA);
  EXPECT_EQ(Set("user.A", "one"), 0);
  EXPECT_EQ(Set("user.B", std::string("t\0wo", 4)), 0);
  EXPECT_EQ(Get("user.A").value_or(""), "one");
  EXPECT_EQ(Get("user.B").value_or(""), std::string("t\0wo", 4));
  EXPECT_EQ(List().value_or(""), std::string("user.A\0user.B\0", 14));
  EXPECT_EQ(Set("user.A", "three"), 0);
  EXPECT_EQ(Get("user.A").value_or(""), "three");
  EXPECT_EQ(Remove("user.A"), 0);
  EXPECT_EQ(ErrnoOf(Get("user.A").status()), ENODATA);
  EXPECT_EQ(ErrnoOf(Get("user.A", "dir").status()), ENODATA);
  EXPECT_EQ(lab.share("t1").Find("file")->extended.size(), 1u);
}

TEST_F(ExtendedAttributesTest, WhatIsRefused) {
  lab.Mount("//t1/share");
  EXPECT_EQ(Set("user.A", "1", XATTR_REPLACE), ENODATA);
  EXPECT_EQ(Set("user.A", "1", XATTR_CREATE), 0);
  EXPECT_EQ(Set("user.A", "2", XATTR_CREATE), EEXIST);
  EXPECT_EQ(Set("user.A", "3", XATTR_REPLACE), 0);
  EXPECT_EQ(Remove("user.B"), ENODATA);
  EXPECT_EQ(Set("user.A", std::string(65536, 'x')), E2BIG);
  EXPECT_EQ(Set("user." + std::string(255, 'x'), "1"), ERANGE);
  EXPECT_EQ(Set("user.", "1"), EINVAL);
  EXPECT_EQ(Set("user.\xc3\xbc", "1"), EOPNOTSUPP);
  EXPECT_EQ(Set("user.A", ""), EOPNOTSUPP);
  for (const char* name : {"security.selinux", "system.posix_acl_access", "trusted.x"}) {
    EXPECT_EQ(Set(name, "1"), EOPNOTSUPP) << name;
    EXPECT_EQ(ErrnoOf(Get(name).status()), EOPNOTSUPP) << name;
  }
  EXPECT_EQ(Get("user.A").value_or(""), "3");
}

TEST_F(ExtendedAttributesTest, AServerWithoutThem) {
  lab.Mount("//t1/share");
  for (const NtStatus status : {NtStatus::kEasNotSupported, NtStatus::kInvalidInfoClass,
                                NtStatus::kNotSupported, NtStatus::kInvalidDeviceRequest}) {
    lab.server("t1").ClearRules();
    lab.server("t1").AddRule({.command = Command::kQueryInfo, .action = {.status = status}});
    lab.server("t1").AddRule({.command = Command::kSetInfo, .action = {.status = status}});
    EXPECT_EQ(ErrnoOf(Get("user.A").status()), EOPNOTSUPP);
    EXPECT_EQ(ErrnoOf(List().status()), EOPNOTSUPP);
    EXPECT_EQ(Set("user.A", "1"), EOPNOTSUPP);
  }
}

TEST_F(ExtendedAttributesTest, AChangeWhoseAnswerWasLostIsMadeOnce) {
  lab.Mount("//t1/share");
  for (const bool executed : {true, false}) {
    Lose(Command::kSetInfo, executed);
    EXPECT_EQ(Set("user.A", "1", XATTR_CREATE), 0) << executed;
    EXPECT_EQ(Get("user.A").value_or(""), "1");
    Lose(Command::kSetInfo, executed);
    EXPECT_EQ(Remove("user.A"), 0) << executed;
    EXPECT_EQ(ErrnoOf(Get("user.A").status()), ENODATA);
  }
  EXPECT_EQ(lab.counters().lost_answers, 4);
  EXPECT_EQ(lab.CountMutations("t1", Command::kSetInfo), 4);
}

TEST_F(ExtendedAttributesTest, ALinkHasNone) {
  lab.Mount("//root1/dfs");
  lab.Walk("two/file");
  for (const char* name : {"t1", "t2"}) lab.server(name).options().silent = true;
  const int64_t before = lab.frames();
  EXPECT_EQ(ErrnoOf(Get("user.A", "two").status()), ENODATA);
  EXPECT_EQ(lab.frames(), before);
}

}  // namespace
}  // namespace dfscsi::vfs
