// WRITE, FSYNC, CREATE, SETATTR.

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "node-agent/smb/wire/filetime.h"
#include "node-agent/vfs/filesystem_test_lab.h"

namespace dfscsi::vfs {
namespace {

using smb::wire::Command;
using smb::wire::NtStatus;
using testing::Closing;
using testing::ScriptedShare;

constexpr state::NodeId kRoot = state::kRootNode;

// A mount of //t1/share, which can be written.
struct WritesTest : public ::testing::Test {
  WritesTest() {
    lab.OnBoth([](ScriptedShare& share) {
      share.writable = true;
      share.AddText("file", "0123456789");
      share.AddDirectory("dir");
    });
  }
  state::FileHandle MustOpen(const std::string& path, int flags) {
    const absl::StatusOr<OpenReply> open = lab.Open(lab.Walk(path), flags);
    EXPECT_TRUE(open.ok()) << path << ": " << open.status();
    return open.ok() ? open->fh : 0;
  }
  // The next answer to `command` is lost: its request is executed, and then the connection breaks.
  void LoseAnswer(const std::string& server, Command command, int64_t times = 1) {
    lab.server(server).AddRule(
        {.command = command, .times = times, .action = {.drop = true, .close = Closing::kReset}});
  }
  // The next request is lost with its connection: it is not executed.
  void LoseRequest(const std::string& server, Command command) {
    lab.server(server).AddRule(
        {.command = command, .times = 1, .action = {.ignore = true, .close = Closing::kReset}});
  }
  FilesystemLab lab;
};

TEST_F(WritesTest, AWriteIsAcknowledgedWhenTheServerHasIt) {
  lab.Mount("//t1/share");
  const state::FileHandle fh = MustOpen("file", O_RDWR);
  EXPECT_EQ(lab.GetAttributes(lab.Walk("file"))->attributes.st_size, 10);
  EXPECT_EQ(lab.Write(fh, 8, "abcd"), absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t1", "file"), "01234567abcd");
  EXPECT_EQ(*lab.Read(fh, 0, 100), "01234567abcd");
  // What was cached of it is forgotten.
  EXPECT_EQ(lab.GetAttributes(lab.Walk("file"))->attributes.st_size, 12);
  EXPECT_EQ(lab.server("t1").Count(Command::kFlush), 0);
  EXPECT_EQ(lab.Sync(fh), absl::OkStatus());
  EXPECT_EQ(lab.server("t1").Count(Command::kFlush), 1);
  lab.filesystem().Release(fh);
  EXPECT_EQ(ErrnoOf(lab.Write(fh, 0, "x")), EBADF);
  const state::FileHandle reader = MustOpen("file", O_RDONLY);
  EXPECT_EQ(ErrnoOf(lab.Write(reader, 0, "x")), EBADF);
}

// Samba: when the file is closed, or 2 s later.
TEST_F(WritesTest, TheTimeOfAWriteIsShownThoughTheServerSetsItLater) {
  lab.Mount("//t1/share");
  const state::NodeId file = lab.Walk("file");
  const state::FileHandle fh = MustOpen("file", O_RDWR);
  const absl::Time old = absl::FromUnixSeconds(1);  // The simulation is younger.
  const auto set_back = [&] { lab.share("t1").Find("file")->last_write = old; };
  const auto shown = [&] {
    lab.RunFor(absl::Minutes(2));  // Longer than anything is remembered.
    return absl::TimeFromTimespec(lab.GetAttributes(file)->attributes.st_mtim);
  };
  const absl::Time before = lab.now();
  EXPECT_EQ(lab.Write(fh, 0, "x"), absl::OkStatus());
  const absl::Time after = lab.now();
  set_back();
  EXPECT_GE(shown(), before - absl::Milliseconds(1));
  EXPECT_LE(shown(), after);
  const absl::StatusOr<EntryReply> found = lab.Lookup(kRoot, "file");
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(absl::TimeFromTimespec(found->attributes.st_mtim), shown());
  // What somebody sets is so.
  EXPECT_EQ(absl::TimeFromTimespec(lab.SetAttributes(file, {.modified = old})->attributes.st_mtim),
            old);
  EXPECT_EQ(shown(), old);
  // And so is what the server says of a file that is closed.
  EXPECT_EQ(lab.Write(fh, 0, "x"), absl::OkStatus());
  set_back();
  EXPECT_GT(shown(), old);
  lab.lab().agent().RunNow([&] { lab.filesystem().Release(fh); });
  EXPECT_EQ(shown(), old);
}

// As tar and cp -p do: write, set the time, close.
TEST_F(WritesTest, ATimeThatWasSetStaysWhenWhatHasWrittenIsClosed) {
  lab.Mount("//t1/share");
  const state::NodeId file = lab.Walk("file");
  const absl::Time old = absl::FromUnixSeconds(1'600'000'000);
  const state::FileHandle one = MustOpen("file", O_RDWR);
  const state::FileHandle other = MustOpen("file", O_WRONLY);
  const state::FileHandle reader = MustOpen("file", O_RDONLY);
  EXPECT_EQ(lab.Write(one, 0, "x"), absl::OkStatus());
  EXPECT_EQ(lab.Write(other, 1, "y"), absl::OkStatus());
  EXPECT_TRUE(lab.SetAttributes(file, {.modified = old}).ok());
  lab.RunFor(absl::Seconds(1));
  for (const state::FileHandle fh : {one, other, reader}) {
    EXPECT_EQ(lab.Flush(fh), absl::OkStatus());
    lab.lab().agent().RunNow([&] { lab.filesystem().Release(fh); });
  }
  lab.RunFor(absl::Minutes(2));
  EXPECT_EQ(lab.share("t1").Find("file")->last_write, old);
  EXPECT_EQ(lab.GetAttributes(file)->attributes.st_mtim.tv_sec, 1'600'000'000);
}

// Its handle is open on a session that was left because it hung, and that goes on later.
TEST_F(WritesTest, ATimeThatWasSetStaysWhenWhatHasWrittenIsClosedOnAFormerSession) {
  for (const bool answers : {true, false}) {
    SCOPED_TRACE(answers ? "it answers" : "it does not");
    FilesystemLab lab;
    lab.share("t1").writable = true;
    lab.share("t1").AddText("file", "0123456789");
    lab.share("t1").AddText("other", "");
    lab.Mount("//t1/share");
    const state::NodeId file = lab.Walk("file");
    const absl::Time old = absl::FromUnixSeconds(1'600'000'000);
    const state::FileHandle fh = lab.Open(file, O_RDWR)->fh;
    EXPECT_EQ(lab.Write(fh, 0, "x"), absl::OkStatus());
    lab.server("t1").HangConnections(lab.now() + absl::Seconds(5));
    EXPECT_TRUE(lab.Lookup(state::kRootNode, "other").ok());
    ASSERT_EQ(lab.server("t1").sessions(), 2);
    lab.RunFor(absl::Seconds(10));
    lab.server("t1").set_script(
        [&](const testing::ScriptedRequest& request) -> std::optional<testing::Action> {
          if (request.connection != 1 || answers) return std::nullopt;
          return testing::Action{.ignore = true};
        });
    EXPECT_TRUE(lab.SetAttributes(file, {.modified = old}).ok());
    EXPECT_EQ(lab.server("t1").sessions(), answers ? 2 : 1);
    lab.lab().agent().RunNow([&] { lab.filesystem().Release(fh); });
    lab.RunFor(absl::Seconds(10));
    EXPECT_EQ(lab.share("t1").Find("file")->last_write, old);
    EXPECT_EQ(lab.server("t1").opens(), 0);
    lab.server("t1").set_script(nullptr);
  }
}

TEST_F(WritesTest, WhatIsWrittenAfterTheTimeWasSetSetsAnother) {
  lab.Mount("//t1/share");
  const absl::Time old = absl::FromUnixSeconds(1'600'000'000);
  const state::FileHandle fh = MustOpen("file", O_RDWR);
  EXPECT_EQ(lab.Write(fh, 0, "x"), absl::OkStatus());
  EXPECT_TRUE(lab.SetAttributes(lab.Walk("file"), {.modified = old}).ok());
  const absl::Time before = lab.now();
  EXPECT_EQ(lab.Write(fh, 0, "y"), absl::OkStatus());
  EXPECT_EQ(lab.share("t1").Find("file")->last_write, old);  // The server's: ours alone sets it.
  EXPECT_EQ(lab.Flush(fh), absl::OkStatus());
  lab.lab().agent().RunNow([&] { lab.filesystem().Release(fh); });
  lab.RunFor(absl::Minutes(2));
  EXPECT_GE(lab.share("t1").Find("file")->last_write, before - absl::Milliseconds(1));
  EXPECT_LE(lab.share("t1").Find("file")->last_write, before + absl::Seconds(10));
}

TEST_F(WritesTest, AnOldListingDoesNotUndoWhatWasWritten) {
  for (int i = 100; i < 120; ++i) lab.share("t1").AddText(absl::StrCat("dir/f", i), "old");
  lab.Mount("//t1/share");
  const auto listing = lab.OpenDirectory(lab.Walk("dir"));
  ASSERT_TRUE(listing.ok());
  const auto some = lab.ReadDirectory(*listing, 0, 5);
  ASSERT_TRUE(some.ok());
  const state::FileHandle fh = MustOpen("dir/f119", O_RDWR);
  EXPECT_EQ(lab.Write(fh, 0, "longer"), absl::OkStatus());
  const auto rest = lab.ReadDirectory(*listing, some->back().next_offset, 100);
  ASSERT_TRUE(rest.ok());
  ASSERT_EQ(rest->back().name, "f119");
  EXPECT_EQ(rest->back().node, 0u);  // To be looked up.
  EXPECT_NE(rest->front().node, 0u);
  EXPECT_EQ(lab.Lookup(lab.Walk("dir"), "f119")->attributes.st_size, 6);
}

TEST_F(WritesTest, WhatWasWrittenHereDoesNotTakeThePageCacheFromTheNextOpen) {
  lab.Mount("//t1/share");
  const state::NodeId node = lab.Walk("file");
  const state::FileHandle fh = lab.Open(node, O_RDWR)->fh;
  EXPECT_EQ(lab.Write(fh, 8, "abcd"), absl::OkStatus());
  const absl::StatusOr<OpenReply> again = lab.Open(node);
  ASSERT_TRUE(again.ok());
  EXPECT_FALSE(again->direct_io);
  EXPECT_FALSE(again->keep_cache);  // Others may have written, too.
  // Of what another wrote the kernel knows nothing.
  lab.RunFor(absl::Seconds(2));
  lab.share("t1").AddText("file", "of another size");
  EXPECT_TRUE(lab.Open(node)->direct_io);
}

TEST_F(WritesTest, SeekKnowsWhatWasWritten) {
  lab.Mount("//t1/share");
  const state::FileHandle fh = MustOpen("file", O_RDWR);
  EXPECT_EQ(ErrnoOf(lab.Seek(fh, 12, SEEK_DATA).status()), ENXIO);
  EXPECT_EQ(lab.Write(fh, 10, "more"), absl::OkStatus());
  EXPECT_EQ(lab.Seek(fh, 12, SEEK_DATA).value_or(0), 12u);
  EXPECT_EQ(lab.Seek(fh, 0, SEEK_HOLE).value_or(0), 14u);
  EXPECT_TRUE(lab.SetAttributes(lab.Walk("file"), {.size_bytes = 5, .fh = fh}).ok());
  EXPECT_EQ(ErrnoOf(lab.Seek(fh, 12, SEEK_DATA).status()), ENXIO);
}

TEST_F(WritesTest, SeekKnowsWhatAnotherHandleHasWritten) {
  lab.Mount("//t1/share");
  const state::FileHandle fh = MustOpen("file", O_RDONLY);
  const state::FileHandle writer = MustOpen("file", O_RDWR);
  EXPECT_EQ(lab.Write(writer, 10, "more"), absl::OkStatus());
  EXPECT_EQ(lab.Seek(fh, 12, SEEK_DATA).value_or(0), 12u);
  EXPECT_EQ(lab.Seek(fh, 0, SEEK_HOLE).value_or(0), 14u);
  EXPECT_TRUE(lab.SetAttributes(lab.Walk("file"), {.size_bytes = 5, .fh = writer}).ok());
  EXPECT_EQ(ErrnoOf(lab.Seek(fh, 12, SEEK_HOLE).status()), ENXIO);
}

TEST_F(WritesTest, OpenFlagsSayWhatFlushAndCacheMayDo) {
  lab.Mount("//t1/share", {.locks = false});
  const struct {
    int flags;
    bool direct;
    bool no_flush;
  } kCases[] = {{O_RDONLY, false, true},
                {O_WRONLY, false, false},
                {O_RDWR, false, false},
                {O_WRONLY | O_APPEND, true, false}};
  for (const auto& test : kCases) {
    const absl::StatusOr<OpenReply> open = lab.Open(lab.Walk("file"), test.flags);
    ASSERT_TRUE(open.ok()) << test.flags;
    EXPECT_EQ(open->direct_io, test.direct) << test.flags;
    EXPECT_EQ(open->no_flush, test.no_flush) << test.flags;
  }
}

TEST_F(WritesTest, AReadOnlyMountRefusesEveryChange) {
  lab.Mount("//t1/share", {.read_only = true});
  const state::NodeId file = lab.Walk("file");
  EXPECT_EQ(ErrnoOf(lab.Open(file, O_WRONLY).status()), EROFS);
  EXPECT_EQ(ErrnoOf(lab.Open(file, O_RDONLY | O_TRUNC).status()), EROFS);
  EXPECT_EQ(ErrnoOf(lab.Create(kRoot, "new").status()), EROFS);
  EXPECT_EQ(ErrnoOf(lab.SetAttributes(file, {.size_bytes = 0}).status()), EROFS);
  EXPECT_EQ(ErrnoOf(lab.MakeDirectory(kRoot, "new").status()), EROFS);
  EXPECT_EQ(ErrnoOf(lab.Unlink(kRoot, "file")), EROFS);
  EXPECT_EQ(ErrnoOf(lab.RemoveDirectory(kRoot, "dir")), EROFS);
  EXPECT_EQ(ErrnoOf(lab.Rename(kRoot, "file", kRoot, "new")), EROFS);
  EXPECT_EQ(ErrnoOf(lab.Write(MustOpen("file", O_RDONLY), 0, "x")), EROFS);
  EXPECT_EQ(ErrnoOf(lab.filesystem().RefuseChange()), EROFS);
  EXPECT_TRUE(lab.server("t1").mutations().empty());
}

TEST_F(WritesTest, AppendsGoWhereTheEndIsOnTheServer) {
  lab.Mount("//t1/share");
  const state::FileHandle fh = MustOpen("file", O_WRONLY | O_APPEND);
  lab.share("t1").Find("file")->Resize(0);
  EXPECT_EQ(lab.Write(fh, 10, "one\n"), absl::OkStatus());
  const std::string two = "two\n";  // Of another client.
  lab.share("t1").Find("file")->Write(4, {reinterpret_cast<const uint8_t*>(two.data()), 4});
  EXPECT_EQ(lab.Write(fh, 4, "three\n"), absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t1", "file"), "one\ntwo\nthree\n");
}

TEST_F(WritesTest, CreateMakesOpensAndTruncates) {
  lab.Mount("//t1/share");
  const absl::StatusOr<CreateReply> made = lab.Create(lab.Walk("dir"), "new", O_RDWR | O_EXCL);
  ASSERT_TRUE(made.ok()) << made.status();
  EXPECT_EQ(made->entry.attributes.st_size, 0);
  EXPECT_EQ(lab.Write(made->open.fh, 0, "text"), absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t1", "dir/new"), "text");
  EXPECT_EQ(lab.Lookup(lab.Walk("dir"), "new")->node, made->entry.node);
  EXPECT_EQ(ErrnoOf(lab.Create(lab.Walk("dir"), "new", O_RDWR | O_EXCL).status()), EEXIST);
  EXPECT_EQ(ErrnoOf(lab.Create(kRoot, "dir", O_RDWR).status()), EISDIR);
  EXPECT_EQ(lab.Create(lab.Walk("dir"), "new", O_RDWR)->entry.attributes.st_size, 4);
  EXPECT_EQ(lab.Create(lab.Walk("dir"), "new", O_RDWR | O_TRUNC)->entry.attributes.st_size, 0);
  EXPECT_EQ(lab.ContentOf("t1", "dir/new"), "");
  ASSERT_TRUE(lab.Open(lab.Walk("file"), O_RDONLY | O_TRUNC).ok());
  EXPECT_EQ(lab.ContentOf("t1", "file"), "");
}

TEST_F(WritesTest, SetAttributes) {
  lab.Mount("//t1/share");
  const state::NodeId file = lab.Walk("file");
  EXPECT_EQ(lab.SetAttributes(file, {.size_bytes = 3})->attributes.st_size, 3);
  EXPECT_EQ(lab.ContentOf("t1", "file"), "012");
  const state::FileHandle fh = MustOpen("file", O_RDWR);
  EXPECT_EQ(lab.SetAttributes(file, {.size_bytes = 5, .fh = fh})->attributes.st_size, 5);
  const state::FileHandle appending = MustOpen("file", O_WRONLY | O_APPEND);
  EXPECT_EQ(lab.SetAttributes(file, {.size_bytes = 4, .fh = appending})->attributes.st_size, 4);
  const absl::Time when = absl::FromUnixSeconds(1'600'000'000);
  EXPECT_EQ(lab.SetAttributes(file, {.modified = when})->attributes.st_mtim.tv_sec, 1'600'000'000);
  EXPECT_EQ(lab.SetAttributes(file, {.mode = 0444})->attributes.st_mode & 0222, 0u);
  EXPECT_NE(lab.share("t1").Find("file")->extra_attributes & smb::wire::kAttributeReadonly, 0u);
  EXPECT_EQ(ErrnoOf(lab.Open(file, O_WRONLY).status()), EACCES);
  EXPECT_NE(lab.SetAttributes(file, {.mode = 0644})->attributes.st_mode & 0222, 0u);
  // Neither of a directory, nor of what has no owner of its own, anything changes.
  EXPECT_EQ(lab.SetAttributes(lab.Walk("dir"), {.mode = 0444})->attributes.st_mode & 0777, 0755u);
  EXPECT_EQ(lab.SetAttributes(file, {})->attributes.st_size, 4);
}

TEST_F(WritesTest, WhatTheServerRefusesIsToldOnce) {
  const struct {
    NtStatus status;
    int error;
  } kCases[] = {{NtStatus::kDiskFull, ENOSPC},
                {NtStatus::kQuotaExceeded, EDQUOT},
                {NtStatus::kFileLockConflict, EACCES},
                {NtStatus::kAccessDenied, EACCES},
                {NtStatus::kMediaWriteProtected, EROFS}};
  lab.Mount("//t1/share");
  const state::FileHandle fh = MustOpen("file", O_RDWR);
  for (const auto& test : kCases) {
    lab.server("t1").ClearRules();
    lab.server("t1").AddRule(
        {.command = Command::kWrite, .times = 1, .action = {.status = test.status}});
    EXPECT_EQ(ErrnoOf(lab.Write(fh, 0, "x")), test.error);
    EXPECT_EQ(lab.Write(fh, 0, "y"), absl::OkStatus());
  }
}

// --- The answer is lost

TEST_F(WritesTest, AWriteWhoseAnswerWasLostIsRepeatedOnItsServer) {
  lab.Mount("//root1/dfs");
  const state::FileHandle fh = MustOpen("two/file", O_RDWR);
  for (const bool executed : {true, false}) {
    lab.server("t1").ClearRules();
    if (executed) {
      LoseAnswer("t1", Command::kWrite);
    } else {
      LoseRequest("t1", Command::kWrite);
    }
    EXPECT_EQ(lab.Write(fh, 0, executed ? "abc" : "def"), absl::OkStatus());
    EXPECT_EQ(lab.ContentOf("t1", "file"), executed ? "abc3456789" : "def3456789");
    EXPECT_EQ(*lab.Read(fh, 0, 3), executed ? "abc" : "def");
  }
  EXPECT_EQ(lab.counters().lost_answers, 2);
  EXPECT_EQ(lab.counters().unknown_changes, 0);
  EXPECT_TRUE(lab.server("t2").mutations().empty());
}

TEST_F(WritesTest, ManyLostAnswersAreOneNewSession) {
  lab.Mount("//root1/dfs");
  constexpr int kWriters = 20;
  std::vector<state::FileHandle> handles;
  for (int i = 0; i < kWriters; ++i) {
    lab.share("t1").AddText(absl::StrCat("f", i), "old");
    handles.push_back(MustOpen(absl::StrCat("two/f", i), O_RDWR));
  }
  const int64_t before = lab.server("t1").connections_ever();
  // All of them are out when the connection breaks, and for 10 s there is no new one.
  lab.server("t1").AddRule(
      {.command = Command::kWrite, .times = kWriters - 1, .action = {.delay = absl::Hours(1)}});
  LoseAnswer("t1", Command::kWrite);
  const absl::Time back = lab.now() + absl::Seconds(10);
  lab.server("t1").set_script(
      [&, back](const testing::ScriptedRequest& request) -> std::optional<testing::Action> {
        if (request.header.command != Command::kNegotiate || lab.now() >= back) return std::nullopt;
        return testing::Action{.ignore = true, .close = Closing::kReset};
      });
  const std::string text = "new";
  int done = 0;
  struct Writer {
    static runtime::Task<void> Run(FilesystemLab* lab, state::FileHandle fh,
                                   const std::string* text, int* done) {
      const absl::Status status = co_await lab->filesystem().Write(
          fh, 0, FilesystemLab::BytesOf(*text), nullptr, runtime::Deadline::Never());
      EXPECT_TRUE(status.ok()) << status;
      *done += 1;
    }
    static runtime::Task<absl::Status> All(FilesystemLab* lab, std::vector<state::FileHandle> all,
                                           const std::string* text, int* done) {
      runtime::TaskGroup tasks;
      for (const state::FileHandle fh : all) tasks.Spawn(Run(lab, fh, text, done));
      co_return co_await tasks.WaitUntilEmpty(runtime::Deadline::Never());
    }
  };
  EXPECT_TRUE(
      lab.TryChange([&](runtime::Deadline) { return Writer::All(&lab, handles, &text, &done); })
          .has_value());
  EXPECT_EQ(done, kWriters);
  // Back-off, and one that did.
  EXPECT_LE(lab.server("t1").connections_ever() - before, 20);
  for (int i = 0; i < kWriters; ++i) EXPECT_EQ(lab.ContentOf("t1", absl::StrCat("f", i)), "new");
  lab.server("t1").set_script(nullptr);
}

TEST_F(WritesTest, WhatIsStillOnItsWayIsNotExecutedAfterTheRepetition) {
  lab.Mount("//t1/share");
  const state::FileHandle fh = MustOpen("file", O_RDWR);
  const int before = static_cast<int>(lab.server("t1").connections_ever());
  LoseRequest("t1", Command::kWrite);
  std::vector<uint64_t> ended;
  lab.server("t1").set_script(
      [&](const testing::ScriptedRequest& request) -> std::optional<testing::Action> {
        if (request.header.command == Command::kSessionSetup && request.connection > before) {
          ended.push_back(smb::wire::DecodeSessionSetupRequest(request.body)->previous_session_id);
        }
        return std::nullopt;
      });
  EXPECT_EQ(lab.Write(fh, 0, "abc"), absl::OkStatus());
  ASSERT_FALSE(ended.empty());
  EXPECT_NE(ended.front(), 0u);
}

TEST_F(WritesTest, AWriteIsNotSentToAnotherCopy) {
  lab.Mount("//root1/dfs", {}, {.write_grace = absl::Seconds(10)});
  const state::FileHandle fh = MustOpen("two/file", O_RDWR);
  EXPECT_EQ(lab.Write(fh, 0, "A"), absl::OkStatus());
  lab.server("t1").AddRule({.command = Command::kWrite, .action = {.drop = true}});
  lab.server("t1").set_script(
      [&](const testing::ScriptedRequest& request) -> std::optional<testing::Action> {
        if (request.header.command != Command::kWrite) return std::nullopt;
        lab.server("t1").options().silent = true;
        return std::nullopt;
      });
  EXPECT_EQ(ErrnoOf(lab.Write(fh, 1, "B")), EIO);
  // Whoever opens it now is served by t2; this handle, which has written elsewhere, is not.
  EXPECT_EQ(ErrnoOf(lab.Write(fh, 2, "C")), ESTALE);
  EXPECT_EQ(ErrnoOf(lab.Read(fh, 0, 1).status()), ESTALE);
  EXPECT_TRUE(lab.server("t2").mutations().empty());
  EXPECT_EQ(lab.ContentOf("t2", "file"), "0123456789");
}

// open(O_TRUNC) is an OPEN and a SETATTR without a handle.
TEST_F(WritesTest, AFileThatWasEmptiedByItsNameIsNotTakenUpOnACopyThatWasNot) {
  for (const bool next_agent : {false, true}) {
    FilesystemLab own;
    own.OnBoth([](ScriptedShare& share) {
      share.writable = true;
      share.AddText("file", "0123456789");
    });
    own.Mount("//root1/dfs", {}, {.write_grace = absl::Seconds(10)});
    const state::NodeId file = own.Walk("two/file");
    const state::FileHandle first = own.Open(file, O_RDWR)->fh;
    const state::FileHandle second = own.Open(file, O_RDWR)->fh;
    const state::FileHandle appending = own.Open(file, O_WRONLY | O_APPEND)->fh;
    EXPECT_EQ(own.SetAttributes(file, {.size_bytes = 0})->attributes.st_size, 0);
    EXPECT_EQ(own.ContentOf("t1", "file"), "");
    own.lab().Kill("t1");
    if (next_agent) own.TakeOver();
    for (const state::FileHandle fh : {first, second, appending}) {
      EXPECT_FALSE(own.Write(fh, 0, "x").ok()) << fh;
    }
    EXPECT_TRUE(own.server("t2").mutations().empty());
  }
}

TEST_F(WritesTest, AFileThatIsOpenedToBeEmptiedIsEmptiedWhereItsHandleIs) {
  lab.Mount("//root1/dfs");
  const state::NodeId file = lab.Walk("two/file");
  const state::FileHandle fh = MustOpen("two/file", O_WRONLY);
  lab.lab().Kill("t1");
  MustOpen("two/file", O_RDONLY);  // By t2, and so is what follows.
  const absl::StatusOr<AttributesReply> cut = lab.SetAttributes(file, {.size_bytes = 0});
  ASSERT_TRUE(cut.ok()) << cut.status();
  EXPECT_EQ(cut->attributes.st_size, 0);
  EXPECT_EQ(lab.Write(fh, 0, "new"), absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t2", "file"), "new");
  EXPECT_EQ(lab.ContentOf("t1", "file"), "0123456789");
}

TEST_F(WritesTest, AServerThatWasSilentForAWhileLosesNothing) {
  lab.Mount("//t1/share");
  const state::FileHandle fh = MustOpen("file", O_RDWR);
  lab.server("t1").AddRule(
      {.command = Command::kWrite, .times = 1, .action = {.delay = absl::Seconds(20)}});
  EXPECT_EQ(lab.Write(fh, 0, "abc"), absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t1", "file"), "abc3456789");
  EXPECT_EQ(lab.CountMutations("t1", Command::kWrite), 1);
}

TEST_F(WritesTest, AServerThatStartsAnewWithinTheGraceLosesNothing) {
  lab.Mount("//t1/share");
  const state::FileHandle fh = MustOpen("file", O_RDWR);
  EXPECT_EQ(lab.Write(fh, 0, "a"), absl::OkStatus());
  lab.lab().Kill("t1");
  const std::string text = "b";
  const std::optional<absl::Status> early = lab.TryChange(
      [&](runtime::Deadline until) {
        return lab.filesystem().Write(fh, 1, FilesystemLab::BytesOf(text), nullptr,
                                      until.Within(absl::Seconds(5)));
      },
      absl::Seconds(8));
  EXPECT_FALSE(early.has_value() && early->ok());
  lab.lab().Start("t1");
  EXPECT_EQ(lab.Write(fh, 1, "c"), absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t1", "file"), "ac23456789");
}

TEST_F(WritesTest, AnotherFileInItsPlaceIsNotWrittenTo) {
  lab.Mount("//t1/share");
  const state::FileHandle fh = MustOpen("file", O_RDWR);
  EXPECT_EQ(lab.Write(fh, 0, "a"), absl::OkStatus());
  lab.server("t1").CloseConnections(Closing::kReset);
  lab.share("t1").Remove("file");
  lab.share("t1").AddText("file", "0123456789");
  EXPECT_EQ(ErrnoOf(lab.Write(fh, 0, "b")), ESTALE);
  EXPECT_EQ(lab.ContentOf("t1", "file"), "0123456789");
}

TEST_F(WritesTest, AnAppendWhoseAnswerWasLostIsNotRepeated) {
  lab.Mount("//t1/share");
  const state::FileHandle fh = MustOpen("file", O_WRONLY | O_APPEND);
  LoseAnswer("t1", Command::kWrite);
  EXPECT_EQ(ErrnoOf(lab.Write(fh, 0, "x")), EIO);
  EXPECT_EQ(lab.ContentOf("t1", "file"), "0123456789x");
  EXPECT_EQ(lab.Write(fh, 0, "y"), absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t1", "file"), "0123456789xy");
  EXPECT_EQ(lab.counters().unknown_changes, 1);
}

TEST_F(WritesTest, AnExclusiveCreateWhoseAnswerWasLostIsNoFalseEexist) {
  lab.Mount("//t1/share");
  for (const bool executed : {true, false}) {
    lab.server("t1").ClearRules();
    const std::string name = executed ? "made" : "not_made";
    const testing::Action lost{.drop = executed, .ignore = !executed, .close = Closing::kReset};
    lab.server("t1").AddRule(
        {.command = Command::kCreate, .path = name, .times = 1, .action = lost});
    lab.RunFor(absl::Seconds(30));
    const absl::StatusOr<CreateReply> made = lab.Create(kRoot, name, O_RDWR | O_EXCL);
    ASSERT_TRUE(made.ok()) << made.status();
    EXPECT_EQ(lab.Write(made->open.fh, 0, "x"), absl::OkStatus());
    EXPECT_EQ(lab.ContentOf("t1", name), "x");
  }
  EXPECT_EQ(lab.CountMutations("t1", Command::kCreate), 2);
  EXPECT_EQ(lab.counters().lost_answers, 2);
}

TEST_F(WritesTest, AnExclusiveCreateWhoseAnswerWasLostIsEexistIfItWasThereBefore) {
  lab.Mount("//t1/share");
  lab.RunFor(absl::Minutes(10));
  lab.share("t1").Find("file")->last_write = lab.now() - absl::Minutes(5);
  lab.server("t1").AddRule({.command = Command::kCreate,
                            .path = "file",
                            .times = 1,
                            .action = {.ignore = true, .close = Closing::kReset}});
  EXPECT_EQ(ErrnoOf(lab.Create(kRoot, "file", O_RDWR | O_EXCL).status()), EEXIST);
}

// --- The agent dies

TEST_F(WritesTest, TheNextAgentRepeatsAWriteOnItsServer) {
  lab.Mount("//root1/dfs");
  const state::FileHandle fh = MustOpen("two/file", O_RDWR);
  EXPECT_EQ(lab.Write(fh, 0, "a"), absl::OkStatus());
  TestJournal journal;
  const std::string text = "b";
  lab.server("t1").AddRule({.command = Command::kWrite, .times = 1, .action = {.drop = true}});
  (void)lab.TryChange(
      [&](runtime::Deadline until) {
        return lab.filesystem().Write(fh, 1, FilesystemLab::BytesOf(text), &journal,
                                      until.Within(absl::Seconds(1)));
      },
      absl::Seconds(2));
  EXPECT_EQ(journal.sends, 1);
  journal.Die();
  lab.TakeOver();
  EXPECT_EQ(lab.Write(fh, 1, "b", &journal), absl::OkStatus());

  EXPECT_EQ(lab.ContentOf("t1", "file"), "ab23456789");
  // Where another server serves the file by now, nobody knows what the first one did.
  lab.lab().Kill("t1");
  EXPECT_EQ(ErrnoOf(lab.Write(fh, 1, "b", &journal)), EIO);
  EXPECT_TRUE(lab.server("t2").mutations().empty());
}

TEST_F(WritesTest, AHandleThatHasWrittenIsNotTakenUpOnAnotherCopyByTheNextAgent) {
  lab.Mount("//root1/dfs");
  const state::FileHandle clean = MustOpen("two/file", O_RDWR);
  const state::FileHandle written = MustOpen("two/file", O_RDWR);
  // The copies are equal in size and time after it.
  EXPECT_EQ(lab.Write(written, 0, "x"), absl::OkStatus());
  lab.lab().Kill("t1");
  lab.TakeOver();
  EXPECT_EQ(ErrnoOf(lab.Write(written, 0, "y")), ESTALE);
  EXPECT_EQ(lab.Write(clean, 0, "z"), absl::OkStatus());
  EXPECT_EQ(lab.ContentOf("t2", "file"), "z123456789");
}

}  // namespace
}  // namespace dfscsi::vfs
