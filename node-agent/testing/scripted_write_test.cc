// The client's write side and the scripted server's, against each other: WRITE, changes by path and
// through a handle, share modes, locks.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "node-agent/smb/wire/filetime.h"
#include "node-agent/testing/scripted_clients.h"

namespace dfscsi::testing {
namespace {

using runtime::Deadline;
using runtime::Task;
using smb::FileType;
using smb::Tree;
using smb::wire::Command;
using smb::wire::Disposition;
using smb::wire::FileId;
using smb::wire::NtStatus;
using smb::wire::NtStatusOf;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class ScriptedWriteTest : public ScriptedClientsTest {};

// --- WRITE

TEST_F(ScriptedWriteTest, ALargeWriteGoesInPiecesThatAreInFlightTogether) {
  const std::vector<uint8_t> content = Content((1 << 20) + 3);
  server_.AddRule({.command = Command::kWrite, .action = {.delay = absl::Seconds(1)}});
  absl::Time begun;
  absl::Time ended;
  RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
    const FileId id = co_await MustOpen(tree, Open("new"));
    begun = lab_.world().now();
    EXPECT_EQ(co_await tree->Write(id, 5, content, Soon()), absl::OkStatus());
    ended = lab_.world().now();
    EXPECT_EQ(co_await tree->Flush(id, Soon()), absl::OkStatus());
    EXPECT_EQ(co_await tree->Close(id, Soon()), absl::OkStatus());
  });
  EXPECT_EQ(ContentOf("new"), std::string(5, '\0') + TextOf(content));
  EXPECT_EQ(server_.Count(Command::kWrite), 5);
  EXPECT_LT(ended - begun, absl::Seconds(2));  // Not one second for each.
  EXPECT_EQ(CountMutations(Command::kCreate), 1);
  EXPECT_EQ(CountMutations(Command::kWrite), 5);
  uint64_t total = 0;
  for (const ScriptedMutation& mutation : server_.mutations()) total += mutation.length_bytes;
  EXPECT_EQ(total, content.size());
}

TEST_F(ScriptedWriteTest, OneWriterHasFourRequestsOnTheWire) {
  const struct {
    size_t size;
    int writes;
  } kCases[] = {{1 << 20, 4}, {(1 << 20) - 1, 4}, {512 << 10, 4}, {256 << 10, 2}, {128 << 10, 1}};
  server_.AddRule({.command = Command::kWrite, .action = {.delay = absl::Seconds(1)}});
  for (const auto& test : kCases) {
    const std::vector<uint8_t> content = Content(test.size);
    server_.ClearLog();
    share_->Remove("new");
    absl::Time begun;
    absl::Time ended;
    size_t written = 0;
    RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
      const FileId id = co_await MustOpen(tree, Open("new"));
      begun = lab_.world().now();
      EXPECT_TRUE((co_await tree->Write(id, 0, content, Soon(), {.written_bytes = &written})).ok());
      ended = lab_.world().now();
    });
    EXPECT_EQ(server_.Count(Command::kWrite), test.writes) << test.size;
    EXPECT_LT(ended - begun, absl::Seconds(2)) << test.size;
    EXPECT_EQ(written, test.size);
    EXPECT_TRUE(ContentOf("new") == TextOf(content)) << test.size;
  }
}

// Of 1 MiB four pieces of 256 KiB go out, and then the rest of each that was answered short.
TEST_F(ScriptedWriteTest, WhatWasWrittenBeforeAnErrorIsCountedWithoutGaps) {
  constexpr size_t kPiece = 256 << 10;
  const struct {
    const char* what;
    uint32_t most_written;
    int64_t failing;  // The first WRITE that is refused, and no other.
    size_t written;
  } kCases[] = {{"the first", 0, 0, 0},
                {"the third", 0, 2, 2 * kPiece},
                {"the last", 0, 3, 3 * kPiece},
                {"the rest of the first", 200'000, 4, 200'000},
                {"the rest of the second", 200'000, 5, kPiece + 200'000}};
  for (const auto& test : kCases) {
    server_.options().most_written_bytes = test.most_written;
    server_.ClearRules();
    server_.AddRule({.command = Command::kWrite,
                     .skip = test.failing,
                     .times = 1,
                     .action = {.status = NtStatus::kDiskFull}});
    size_t written = 7;  // It is added to.
    RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
      const FileId id = co_await MustOpen(tree, Open("new"));
      EXPECT_EQ(NtStatusOf(co_await tree->Write(id, 0, Content(1 << 20), Soon(),
                                                {.written_bytes = &written})),
                NtStatus::kDiskFull);
    });
    EXPECT_EQ(written, test.written + 7) << test.what;
  }
}

TEST_F(ScriptedWriteTest, NoPieceIsOnItsWayAfterAnotherHasFailed) {
  server_.AddRule(
      {.command = Command::kWrite, .times = 1, .action = {.status = NtStatus::kDiskFull}});
  server_.AddRule({.command = Command::kWrite, .action = {.delay = absl::Seconds(1)}});
  RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
    const FileId id = co_await MustOpen(tree, Open("new"));
    const absl::Time begun = lab_.world().now();
    EXPECT_FALSE((co_await tree->Write(id, 0, Content(1 << 20), Soon())).ok());
    EXPECT_GE(lab_.world().now() - begun, absl::Seconds(1));
  });
}

TEST_F(ScriptedWriteTest, AShortWriteIsGoneOnWith) {
  server_.options().most_written_bytes = 1000;
  const std::vector<uint8_t> content = Content(4500);
  RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
    const FileId id = co_await MustOpen(tree, Open("new"));
    EXPECT_EQ(co_await tree->Write(id, 0, content, Soon()), absl::OkStatus());
  });
  EXPECT_EQ(ContentOf("new"), TextOf(content));
  EXPECT_EQ(server_.Count(Command::kWrite), 5);
}

TEST_F(ScriptedWriteTest, AWriteThatIsCountedWronglyIsNoSuccess) {
  const struct {
    uint32_t count;
    absl::StatusCode code;
    bool closes;
  } kCases[] = {{101, absl::StatusCode::kDataLoss, true},
                {0, absl::StatusCode::kResourceExhausted, false}};
  for (const auto& test : kCases) {
    server_.ClearRules();
    server_.AddRule({.command = Command::kWrite, .action = {.edit = [&](std::vector<uint8_t>& m) {
                                                   memcpy(m.data() + 64 + 4, &test.count, 4);
                                                 }}});
    RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
      const FileId id = co_await MustOpen(tree, Open("new"));
      const absl::Status status = co_await tree->Write(id, 0, Content(100), Soon());
      EXPECT_EQ(status.code(), test.code) << status;
      EXPECT_EQ(tree->usable(), !test.closes);
    });
  }
}

TEST_F(ScriptedWriteTest, AppendsGoToTheEndInOrder) {
  share_->AddText("log", "old\n");
  options_.max_write_bytes = 4;
  RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
    const FileId id =
        co_await MustOpen(tree, Open("log", Disposition::kOpen, smb::wire::kAccessAppendData));
    EXPECT_EQ(co_await tree->Write(id, smb::kAppend, BytesOf("0123456789\n"), Soon()),
              absl::OkStatus());
  });
  EXPECT_EQ(ContentOf("log"), "old\n0123456789\n");
}

TEST_F(ScriptedWriteTest, WriteThroughIsAskedFor) {
  std::vector<uint32_t> flags;
  server_.set_script([&](const ScriptedRequest& request) -> std::optional<Action> {
    if (request.header.command == Command::kWrite) {
      flags.push_back(smb::wire::DecodeWriteRequest(request.body)->flags);
    }
    return std::nullopt;
  });
  RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
    const FileId id = co_await MustOpen(tree, Open("new"));
    EXPECT_TRUE((co_await tree->Write(id, 0, BytesOf("a"), Soon(), {.through = true})).ok());
    EXPECT_TRUE((co_await tree->Write(id, 0, BytesOf("a"), Soon())).ok());
  });
  EXPECT_THAT(flags, ElementsAre(1, 0));
}

TEST_F(ScriptedWriteTest, WhatTheServerHasNoRoomForIsRefused) {
  share_->AddText("full", "12345");
  const struct {
    std::optional<uint64_t> free;
    std::optional<uint64_t> quota;
    NtStatus status;
  } kCases[] = {{4, std::nullopt, NtStatus::kDiskFull},
                {std::nullopt, 4, NtStatus::kQuotaExceeded}};
  for (const auto& test : kCases) {
    share_->free_bytes = test.free;
    share_->quota_bytes = test.quota;
    RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
      const FileId id = co_await MustOpen(tree, Open("full"));
      EXPECT_EQ(NtStatusOf(co_await tree->Write(id, 5, BytesOf("67890"), Soon())), test.status);
      EXPECT_EQ(NtStatusOf(co_await tree->SetEndOfFile(id, 10, Soon())), test.status);
      EXPECT_EQ(co_await tree->Write(id, 0, BytesOf("1234"), Soon()), absl::OkStatus());
    });
    EXPECT_EQ(ContentOf("full"), "12345");
  }
}

TEST_F(ScriptedWriteTest, AShareThatIsNotWritableStaysAsItIs) {
  share_->writable = false;
  share_->AddText("file", "text");
  RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
    const FileId id = co_await MustOpen(tree, Open("file", Disposition::kOpen));
    EXPECT_EQ(NtStatusOf(co_await tree->Write(id, 0, BytesOf("x"), Soon())),
              NtStatus::kMediaWriteProtected);
    EXPECT_EQ(NtStatusOf((co_await tree->MakeDirectory(u"new", Soon())).status()),
              NtStatus::kMediaWriteProtected);
    EXPECT_EQ(NtStatusOf(co_await tree->Remove(u"file", FileType::kFile, Soon())),
              NtStatus::kMediaWriteProtected);
  });
  EXPECT_EQ(ContentOf("file"), "text");
  EXPECT_THAT(server_.mutations(), IsEmpty());
}

// --- Changes by path

TEST_F(ScriptedWriteTest, ChangesByPathCostOneFrameEach) {
  share_->AddText("a", "12345");
  share_->AddText("b", "other");
  const absl::Time written = absl::FromUnixSeconds(1'600'000'000);
  std::vector<int64_t> frames;
  RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
    const auto count = [&] {
      frames.push_back(server_.frames());
      server_.ClearLog();
    };
    server_.ClearLog();
    EXPECT_TRUE((co_await tree->MakeDirectory(u"dir", Soon())).ok());
    count();
    EXPECT_TRUE((co_await tree->Truncate(u"a", 3, Soon())).ok());
    count();
    EXPECT_TRUE((co_await tree->SetBasicOfPath(u"a",
                                               {.last_write_time = smb::wire::FileTimeOf(written),
                                                .attributes = smb::wire::kAttributeReadonly},
                                               Soon()))
                    .ok());
    count();
    EXPECT_EQ(NtStatusOf(co_await tree->RenamePath(u"a", {.target = u"b"}, Soon())),
              NtStatus::kObjectNameCollision);
    count();
    EXPECT_TRUE((co_await tree->RenamePath(u"a", {.target = u"dir\\c"}, Soon())).ok());
    count();
    EXPECT_EQ(NtStatusOf(co_await tree->Remove(u"dir", FileType::kDirectory, Soon())),
              NtStatus::kDirectoryNotEmpty);
    count();
    EXPECT_TRUE((co_await tree->Remove(u"b", FileType::kFile, Soon())).ok());
    count();
  });
  // The first removal also learns that this server has no POSIX classes.
  EXPECT_THAT(frames, ElementsAre(1, 1, 1, 1, 1, 2, 1));
  EXPECT_EQ(ContentOf("dir/c"), "123");
  EXPECT_EQ(share_->Find("dir/c")->last_write, written);
  EXPECT_EQ(share_->Find("dir/c")->extra_attributes, smb::wire::kAttributeReadonly);
  EXPECT_EQ(share_->Find("a"), nullptr);
  EXPECT_EQ(share_->Find("b"), nullptr);
  EXPECT_EQ(server_.opens(), 0);
}

TEST_F(ScriptedWriteTest, ASessionThatExpiresWithinAChangeDoesNotRepeatTheChange) {
  for (const int most_credits : {512, 1}) {  // One frame, or one for each part.
    server_.options().most_credits = most_credits;
    share_->AddText("a", "a");
    share_->AddText("c", "c");
    const auto expire_at_close = [this] {
      server_.ExpireSessions();
      server_.AddRule({.command = Command::kClose,
                       .times = 1,
                       .action = {.status = NtStatus::kNetworkSessionExpired}});
    };
    RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
      // Each of them changes something before its last part is refused.
      server_.set_script([&](const ScriptedRequest& request) -> std::optional<Action> {
        const Command command = request.header.command;
        if (command == Command::kSetInfo ||
            (command == Command::kCreate && request.path == "dir")) {
          expire_at_close();
        }
        return std::nullopt;
      });
      const auto made = co_await tree->MakeDirectory(u"dir", Soon());
      EXPECT_TRUE(made.ok()) << made.status();
      const absl::Status renamed = co_await tree->RenamePath(u"a", {.target = u"b"}, Soon());
      EXPECT_TRUE(renamed.ok()) << renamed;
      const absl::Status removed = co_await tree->Remove(u"c", FileType::kFile, Soon());
      EXPECT_TRUE(removed.ok()) << removed;
      EXPECT_TRUE((co_await runtime::Sleep(absl::Seconds(1), Soon())).ok());
      EXPECT_EQ(server_.opens(), 0) << most_credits;
      server_.set_script(nullptr);
    });
    EXPECT_EQ(ContentOf("b"), "a");
    EXPECT_EQ(ContentOf("c"), "(none)");
    server_.ClearRules();
    share_->Remove("b");
    share_->Remove("dir");
  }
  EXPECT_EQ(CountMutations(Command::kCreate), 2);
}

TEST_F(ScriptedWriteTest, AChangeOfWhichThereIsNoAnswerToEachPartMayHaveBeenMade) {
  // Between its frames, where the server grants one credit; while the session is renewed.
  for (const bool expires : {false, true}) {
    server_.options().most_credits = expires ? 512 : 1;
    RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
      if (expires) {
        server_.AddRule(
            {.command = Command::kClose, .action = {.status = NtStatus::kNetworkSessionExpired}});
        server_.AddRule({.command = Command::kSessionSetup,
                         .action = {.ignore = true, .close = Closing::kReset}});
      } else {
        server_.AddRule({.command = Command::kCreate, .action = {.close = Closing::kReset}});
      }
      const auto made = co_await tree->MakeDirectory(expires ? u"d2" : u"d1", Soon());
      EXPECT_TRUE(absl::IsAborted(made.status())) << made.status();
      server_.ClearRules();
    });
  }
  EXPECT_NE(share_->Find("d1"), nullptr);
  EXPECT_NE(share_->Find("d2"), nullptr);
}

TEST_F(ScriptedWriteTest, OverAnOpenFile) {
  for (const bool posix : {true, false}) {
    share_->posix_unlink = posix;
    share_->AddText("old", "old");
    share_->AddText("new", "new");
    share_->AddText("gone", "gone");
    RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
      const FileId old = co_await MustOpen(tree, Open("old"));
      const FileId gone = co_await MustOpen(tree, Open("gone"));
      const absl::Status renamed =
          co_await tree->RenamePath(u"new", {.replace = true, .target = u"old"}, Soon());
      EXPECT_EQ(renamed.ok(), posix) << renamed;
      EXPECT_TRUE((co_await tree->Remove(u"gone", FileType::kFile, Soon())).ok());
      EXPECT_EQ(share_->Find("gone") == nullptr, posix);
      EXPECT_EQ(NtStatusOf((co_await tree->Stat(u"gone", Soon())).status()),
                posix ? NtStatus::kObjectNameNotFound : NtStatus::kDeletePending);
      EXPECT_TRUE((co_await tree->Write(gone, 0, BytesOf("still"), Soon())).ok());
      EXPECT_TRUE((co_await tree->Close(gone, Soon())).ok());
      EXPECT_TRUE((co_await tree->Close(old, Soon())).ok());
    });
    EXPECT_EQ(share_->Find("gone"), nullptr);
    EXPECT_EQ(ContentOf("old"), posix ? "new" : "old");
  }
}

TEST_F(ScriptedWriteTest, ChangesThroughAHandle) {
  RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
    const FileId id = co_await MustOpen(tree, Open("file"));
    EXPECT_TRUE((co_await tree->SetEndOfFile(id, 4, Soon())).ok());
    EXPECT_TRUE((co_await tree->SetAllocation(id, 100, Soon())).ok());
    EXPECT_TRUE((co_await tree->Write(id, 0, BytesOf("abcd"), Soon())).ok());
    EXPECT_TRUE((co_await tree->SetZero(id, {1, 3}, Soon())).ok());
    EXPECT_TRUE((co_await tree->SetSparse(id, true, Soon())).ok());
    EXPECT_TRUE(
        (co_await tree->SetExtendedAttributes(
             id, {{.name = "user.a", .value = "1"}, {.name = "user.b", .value = "2"}}, Soon()))
            .ok());
    EXPECT_TRUE(
        (co_await tree->SetExtendedAttributes(id, {{.name = "user.b", .value = ""}}, Soon())).ok());
    const auto attributes = co_await tree->GetExtendedAttributes(id, {}, Soon());
    EXPECT_TRUE(attributes.ok()) << attributes.status();
    if (attributes.ok()) {
      EXPECT_THAT(*attributes, SizeIs(1));
      EXPECT_EQ(attributes->front().value, "1");
    }
    EXPECT_TRUE((co_await tree->SetBasic(id, {.creation_time = 5}, Soon())).ok());
    EXPECT_EQ(NtStatusOf(co_await tree->Link(id, {.target = u"second"}, Soon())),
              NtStatus::kNotSupported);
    EXPECT_TRUE((co_await tree->Rename(id, {.target = u"FILE"}, Soon())).ok());  // Case alone.
    EXPECT_EQ(share_->Find("file")->name, u"FILE");
    EXPECT_TRUE((co_await tree->SetDisposition(id, true, Soon())).ok());
    EXPECT_TRUE((co_await tree->SetDisposition(id, false, Soon())).ok());
    EXPECT_TRUE((co_await tree->Close(id, Soon())).ok());
    const FileId link = co_await MustOpen(tree, Open("link"));
    EXPECT_TRUE(
        (co_await tree->SetReparsePoint(
             link, smb::wire::SymlinkReparse{.relative = true, .substitute_name = u"FILE"}, Soon()))
            .ok());
  });
  EXPECT_EQ(ContentOf("file"), std::string("a\0\0d", 4));
  EXPECT_EQ(share_->Find("link")->kind, FileKind::kSymlink);
}

TEST_F(ScriptedWriteTest, CopiesWithinTheServersLimits) {
  server_.options().most_copy_chunks = 2;
  server_.options().most_copy_chunk_bytes = 1000;
  share_->AddFile("source", 4500);
  RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
    const FileId source = co_await MustOpen(tree, Open("source"));
    const FileId target = co_await MustOpen(tree, Open("target"));
    const auto copied = co_await tree->CopyRange(source, 100, target, 0, 4400, Soon());
    EXPECT_TRUE(copied.ok()) << copied.status();
    if (copied.ok()) EXPECT_EQ(*copied, 4400u);
    EXPECT_EQ(NtStatusOf((co_await tree->CopyRange(source, 4400, target, 0, 200, Soon())).status()),
              NtStatus::kInvalidViewSize);
  });
  EXPECT_EQ(ContentOf("target"), ContentOf("source").substr(100));
}

// --- Share modes, locks

TEST_F(ScriptedWriteTest, ShareModesKeepOthersOut) {
  share_->AddText("file", "text");
  Run([&](Client& one, Client& two) -> Task<void> {
    const auto first = co_await one.Connect();
    const auto second = co_await two.Connect();
    smb::wire::CreateRequest alone = Open("file");
    alone.share_access = smb::wire::kShareRead;
    const FileId id = co_await MustOpen(first, alone);
    EXPECT_EQ(NtStatusOf((co_await second->Create(Open("file"), Soon())).status()),
              NtStatus::kSharingViolation);
    EXPECT_TRUE((co_await second->Stat(u"file", Soon())).ok());
    EXPECT_TRUE((co_await first->Close(id, Soon())).ok());
    // Who only looks keeps nobody out, and breaks no lease.
    smb::wire::CreateRequest looks =
        Open("file", Disposition::kOpen, smb::wire::kAccessReadAttributes);
    looks.share_access = 0;
    (void)co_await MustOpen(first, looks);
    smb::wire::CreateRequest leased = OpenWithLease("file", 1);
    const auto with_lease = co_await second->Create(leased, Soon());
    EXPECT_TRUE(with_lease.ok()) << with_lease.status();
    if (with_lease.ok()) EXPECT_EQ(with_lease->response.lease->state, kRwh);
    (void)co_await MustOpen(first, looks);
    EXPECT_THAT(server_.leases("data", "file"), ElementsAre(kRwh));
  });
}

TEST_F(ScriptedWriteTest, LocksKeepOthersOut) {
  share_->AddText("file", "0123456789");
  Run([&](Client& one, Client& two) -> Task<void> {
    const auto first = co_await one.Connect();
    const auto second = co_await two.Connect();
    const FileId a = co_await MustOpen(first, Open("file"));
    const FileId b = co_await MustOpen(second, Open("file"));
    EXPECT_TRUE((co_await first->Lock(a, {Exclusive(2, 4)}, 0, Soon())).ok());
    EXPECT_EQ(NtStatusOf(co_await second->Lock(b, {Exclusive(5, 1)}, 0, Soon())),
              NtStatus::kLockNotGranted);
    EXPECT_EQ(NtStatusOf(co_await second->Write(b, 0, BytesOf("xxx"), Soon())),
              NtStatus::kFileLockConflict);
    std::vector<uint8_t> into(3);
    EXPECT_EQ(NtStatusOf((co_await second->Read(b, 0, absl::MakeSpan(into), Soon())).status()),
              NtStatus::kFileLockConflict);
    EXPECT_TRUE((co_await second->Write(b, 0, BytesOf("xx"), Soon())).ok());
    // It waits for the unlock that comes meanwhile.
    absl::Status granted = absl::UnknownError("waits");
    runtime::TaskGroup tasks;
    struct Waiter {
      static Task<void> Run(std::shared_ptr<Tree> tree, FileId id, absl::Status* result) {
        *result = co_await tree->Lock(id, {Exclusive(0, 10, /*wait=*/true)}, 0, Soon());
      }
    };
    tasks.Spawn(Waiter::Run(second, b, &granted));
    EXPECT_TRUE((co_await runtime::Sleep(absl::Seconds(2), Soon())).ok());
    EXPECT_TRUE(absl::IsUnknown(granted));
    EXPECT_TRUE((co_await first->Unlock(a, {{2, 4}}, 0, Soon())).ok());
    EXPECT_TRUE((co_await tasks.WaitUntilEmpty(Soon())).ok());
    EXPECT_EQ(granted, absl::OkStatus());
    EXPECT_EQ(NtStatusOf(co_await second->Unlock(b, {{1, 1}}, 0, Soon())),
              NtStatus::kRangeNotLocked);
    EXPECT_EQ(server_.locks("data", "file"), 1);
    EXPECT_TRUE((co_await second->Close(b, Soon())).ok());
    EXPECT_EQ(server_.locks("data", "file"), 0);
  });
}

TEST_F(ScriptedWriteTest, ALockThatNobodyWaitsForAnyMoreIsCancelled) {
  share_->AddText("file", "0123456789");
  Run([&](Client& one, Client& two) -> Task<void> {
    const auto first = co_await one.Connect();
    const auto second = co_await two.Connect();
    const FileId a = co_await MustOpen(first, Open("file"));
    const FileId b = co_await MustOpen(second, Open("file"));
    EXPECT_TRUE((co_await first->Lock(a, {Exclusive(0, 1)}, 0, Soon())).ok());
    const absl::Status status =
        co_await second->Lock(b, {Exclusive(0, 1, true)}, 0, Deadline::After(absl::Seconds(1)));
    EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
    EXPECT_TRUE((co_await runtime::Sleep(absl::Seconds(1), Soon())).ok());
    EXPECT_EQ(server_.Count(Command::kCancel), 1);
    EXPECT_TRUE((co_await first->Unlock(a, {{0, 1}}, 0, Soon())).ok());
    EXPECT_EQ(server_.locks("data", "file"), 0);
  });
}

TEST_F(ScriptedWriteTest, ALockGrantedBeforeTheCancelArrivedIsGivenBack) {
  share_->AddText("file", "0123456789");
  RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
    const FileId id = co_await MustOpen(tree, Open("file"));
    // Taken at once, told later than anybody waits.
    server_.AddRule({.command = Command::kLock, .times = 1, .action = {.delay = absl::Seconds(2)}});
    const absl::Status status =
        co_await tree->Lock(id, {Exclusive(0, 1, true)}, 0, Deadline::After(absl::Seconds(1)));
    EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
    EXPECT_EQ(server_.locks("data", "file"), 1);
    EXPECT_TRUE((co_await runtime::Sleep(absl::Seconds(3), Soon())).ok());
    EXPECT_EQ(server_.locks("data", "file"), 0);
    EXPECT_TRUE((co_await tree->Lock(id, {Exclusive(0, 1)}, 0, Soon())).ok());
  });
}

}  // namespace
}  // namespace dfscsi::testing
