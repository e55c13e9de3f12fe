// The client's write side and the scripted server's, against each other on the simulated network:
// writes, changes by path, locks, leases and durable handles of two clients, and what becomes of
// answers that nobody waits for.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "node-agent/smb/session_pool.h"
#include "node-agent/smb/wire/file_name.h"
#include "node-agent/smb/wire/filetime.h"
#include "node-agent/smb/wire/utf16.h"
#include "node-agent/testing/scripted_lab.h"

namespace dfscsi::testing {
namespace {

using runtime::Deadline;
using runtime::Task;
using smb::CreateOptions;
using smb::FileType;
using smb::OpenedFile;
using smb::Tree;
using smb::wire::Command;
using smb::wire::Disposition;
using smb::wire::FileId;
using smb::wire::kLeaseHandle;
using smb::wire::kLeaseRead;
using smb::wire::kLeaseWrite;
using smb::wire::NtStatus;
using smb::wire::NtStatusOf;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr uint32_t kRwh = kLeaseRead | kLeaseWrite | kLeaseHandle;
constexpr uint32_t kRh = kLeaseRead | kLeaseHandle;
constexpr uint32_t kAll = 0x001f01ff;

Deadline Soon() { return Deadline::After(absl::Seconds(60)); }

std::vector<uint8_t> Content(size_t size, uint64_t seed = 1) {
  std::vector<uint8_t> bytes(size);
  FillContent(seed, 0, absl::MakeSpan(bytes));
  return bytes;
}

std::string TextOf(const std::vector<uint8_t>& bytes) {
  return std::string(bytes.begin(), bytes.end());
}

smb::wire::Bytes BytesOf(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

smb::wire::CreateRequest Open(std::string_view path, Disposition disposition = Disposition::kOpenIf,
                              uint32_t access = kAll) {
  smb::wire::CreateRequest create;
  create.desired_access = access;
  create.disposition = disposition;
  create.name = *smb::wire::WirePath(path);
  return create;
}

smb::wire::CreateRequest OpenWithLease(std::string_view path, uint8_t key, uint32_t state = kRwh) {
  smb::wire::CreateRequest create = Open(path);
  create.lease = smb::wire::Lease{.key = {key}, .state = state};
  return create;
}

smb::wire::LockElement Exclusive(uint64_t offset, uint64_t length, bool wait = false) {
  return {offset, length,
          smb::wire::kLockExclusive | (wait ? 0u : uint32_t{smb::wire::kLockFailImmediately})};
}

// One mount's view of the server.
struct Client {
  Client(ScriptedLab& lab, smb::Options options, uint8_t number)
      : pool(WithGuid(std::move(options), number), lab.authenticators(), nullptr),
        credential(lab.credential()) {}
  static smb::Options WithGuid(smb::Options options, uint8_t number) {
    options.client_guid = {number};
    return options;
  }
  Task<std::shared_ptr<Tree>> Connect() {
    smb::ConnectPhase phase;
    auto tree = co_await pool.GetTree("t1", "data", credential, &phase, Soon());
    EXPECT_TRUE(tree.ok()) << tree.status();
    co_return tree.ok() ? *tree : nullptr;
  }
  smb::SessionPool pool;
  smb::Credential credential;
};

// Does with a break what a mount would, or notes it only.
struct Observer : smb::LeaseObserver {
  explicit Observer(std::shared_ptr<Tree> of) : tree(std::move(of)) {}
  void OnLeaseBreak(const smb::LeaseBreak& broken) override {
    breaks.push_back(broken);
    if (!acknowledges || !broken.must_acknowledge) return;
    struct Run {
      static Task<void> Acknowledge(Observer* observer, smb::LeaseBreak broken) {
        if (observer->before) co_await observer->before();
        observer->acknowledged =
            co_await observer->tree->session().AcknowledgeLease(broken.key, broken.to, Soon());
      }
    };
    tasks.Spawn(Run::Acknowledge(this, broken));
  }
  std::shared_ptr<Tree> tree;
  bool acknowledges = true;
  std::function<Task<void>()> before;
  std::vector<smb::LeaseBreak> breaks;
  absl::Status acknowledged = absl::UnknownError("not yet");
  runtime::TaskGroup tasks;
};

class ScriptedWriteTest : public ::testing::Test {
 protected:
  ScriptedWriteTest() { share_->writable = true; }
  ~ScriptedWriteTest() override { EXPECT_THAT(lab_.Violations(), IsEmpty()); }

  using Work = std::function<Task<void>(Client&, Client&)>;
  void Run(Work work) {
    struct Body {
      static Task<void> Do(ScriptedWriteTest* test, Work work) {
        Client one(test->lab_, test->options_, 1);
        Client two(test->lab_, test->options_, 2);
        co_await work(one, two);
      }
    };
    EXPECT_TRUE(lab_.Run(Body::Do(this, std::move(work))));
    lab_.world().RunFor(absl::Milliseconds(10));  // Until the server has seen the end, too.
  }
  // The same for tests of one client.
  void RunOne(std::function<Task<void>(std::shared_ptr<Tree>)> work) {
    Run([&](Client& one, Client&) -> Task<void> { co_await work(co_await one.Connect()); });
  }
  static Task<FileId> MustOpen(std::shared_ptr<Tree> tree, smb::wire::CreateRequest create) {
    auto opened = co_await tree->Create(std::move(create), Soon());
    EXPECT_TRUE(opened.ok()) << opened.status();
    co_return opened.ok() ? opened->file_id : FileId{};
  }
  std::string ContentOf(std::string_view path) {
    const ScriptedFile* const file = share_->Find(path);
    return file == nullptr ? "(none)" : file->Content();
  }
  int CountMutations(Command command) const {
    int count = 0;
    for (const ScriptedMutation& mutation : server_.mutations()) {
      count += mutation.command == command ? 1 : 0;
    }
    return count;
  }

  ScriptedLab lab_{1};
  ScriptedServer& server_ = lab_.AddServer("t1");
  ScriptedShare* share_ = &server_.AddShare("data");
  smb::Options options_;
};

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
    (void)co_await MustOpen(second, Open("file"));
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

// --- Answers that nobody waits for

TEST_F(ScriptedWriteTest, ACreateThatNobodyWaitsForIsClosedWhenItsAnswerComes) {
  share_->AddText("file", "text");
  for (const bool pending : {false, true}) {
    RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
      server_.AddRule({.command = Command::kCreate,
                       .times = 1,
                       .action = {.delay = absl::Seconds(2), .pending = false}});
      if (pending) {  // Its caller is destroyed, not out of time.
        struct Opener {
          static Task<void> Run(std::shared_ptr<Tree> tree) {
            (void)co_await tree->Create(Open("file"), Soon());
            ADD_FAILURE() << "it should be destroyed";
          }
        };
        {
          runtime::TaskGroup tasks;
          tasks.Spawn(Opener::Run(tree));
          EXPECT_TRUE((co_await runtime::Sleep(absl::Seconds(1), Soon())).ok());
        }
      } else {
        const auto opened = co_await tree->Create(Open("file"), Deadline::After(absl::Seconds(1)));
        EXPECT_TRUE(absl::IsDeadlineExceeded(opened.status())) << opened.status();
      }
      EXPECT_EQ(server_.opens(), 1);
      EXPECT_TRUE((co_await runtime::Sleep(absl::Seconds(2), Soon())).ok());
      EXPECT_EQ(server_.opens(), 0);
      EXPECT_TRUE(tree->usable());
      server_.ClearRules();
    });
  }
}

TEST_F(ScriptedWriteTest, ADirectoryThatNobodyWaitsForIsClosedWhenItsAnswerComes) {
  share_->AddText("dir/file", "text");
  for (const int most_credits : {512, 1}) {  // One frame, or one for each part.
    server_.options().most_credits = most_credits;
    RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
      server_.AddRule({.command = Command::kQueryDirectory, .action = {.delay = absl::Seconds(2)}});
      const auto opened = co_await tree->OpenDirectory(u"dir", Deadline::After(absl::Seconds(1)));
      EXPECT_TRUE(absl::IsDeadlineExceeded(opened.status())) << opened.status();
      EXPECT_EQ(server_.opens(), 1);
      EXPECT_TRUE((co_await runtime::Sleep(absl::Seconds(5), Soon())).ok());
      EXPECT_EQ(server_.opens(), 0);
      server_.ClearRules();
    });
  }
}

TEST_F(ScriptedWriteTest, ACompoundThatClosesItselfIsNotClosedAgain) {
  share_->AddText("file", "text");
  RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
    server_.AddRule(
        {.command = Command::kCreate, .times = 1, .action = {.delay = absl::Seconds(2)}});
    EXPECT_FALSE((co_await tree->Stat(u"file", Deadline::After(absl::Seconds(1)))).ok());
    EXPECT_TRUE((co_await runtime::Sleep(absl::Seconds(5), Soon())).ok());
    EXPECT_EQ(server_.Count(Command::kClose), 1);
    EXPECT_EQ(server_.opens(), 0);
  });
}

TEST_F(ScriptedWriteTest, CancelledRequestsGiveTheirCreditsBack) {
  share_->AddFile("file", 1 << 20);
  server_.options().most_credits = 40;
  RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
    const FileId id = co_await MustOpen(tree, Open("file"));
    const int before = tree->session().connection().largest_charge();
    for (const bool pending : {true, false}) {
      server_.AddRule(
          {.command = Command::kRead, .action = {.delay = absl::Seconds(2), .pending = pending}});
      for (int i = 0; i < 20; ++i) {
        std::vector<uint8_t> into(1 << 20);
        const auto n = co_await tree->Read(id, 0, absl::MakeSpan(into),
                                           Deadline::After(absl::Milliseconds(100)));
        EXPECT_FALSE(n.ok());
      }
      server_.ClearRules();
      EXPECT_TRUE((co_await runtime::Sleep(absl::Seconds(5), Soon())).ok());
      EXPECT_EQ(tree->session().connection().largest_charge(), before);
    }
    std::vector<uint8_t> into(1 << 20);
    const auto n = co_await tree->Read(id, 0, absl::MakeSpan(into), Soon());
    EXPECT_TRUE(n.ok()) << n.status();
  });
}

// --- Leases

TEST_F(ScriptedWriteTest, AnotherClientsOpenTakesTheWriteLease) {
  share_->AddText("file", "old");
  Run([&](Client& one, Client& two) -> Task<void> {
    const auto first = co_await one.Connect();
    const auto second = co_await two.Connect();
    const auto observer = std::make_shared<Observer>(first);
    const auto mine =
        co_await first->Create(OpenWithLease("file", 1), Soon(), {.observer = observer});
    EXPECT_TRUE(mine.ok()) << mine.status();
    if (!mine.ok()) co_return;
    EXPECT_EQ(mine->response.lease->state, kRwh);
    // What lies unwritten is written before the other's open is answered.
    observer->before = [&]() -> Task<void> {
      EXPECT_TRUE((co_await first->Write(mine->file_id, 0, BytesOf("new"), Soon())).ok());
    };
    const FileId theirs = co_await MustOpen(second, Open("file"));
    std::vector<uint8_t> into(3);
    const auto n = co_await second->Read(theirs, 0, absl::MakeSpan(into), Soon());
    EXPECT_TRUE(n.ok()) << n.status();
    EXPECT_EQ(TextOf(into), "new");
    EXPECT_EQ(observer->acknowledged, absl::OkStatus());
    EXPECT_THAT(observer->breaks, ElementsAre(smb::LeaseBreak{{1}, kRwh, kRh, true}));
    EXPECT_EQ(first->session().leases().StateOf({1}), kRh);
    // Their write takes the rest.
    EXPECT_TRUE((co_await second->Write(theirs, 0, BytesOf("x"), Soon())).ok());
    EXPECT_TRUE((co_await runtime::Sleep(absl::Seconds(1), Soon())).ok());
    EXPECT_THAT(observer->breaks, SizeIs(2));
    EXPECT_EQ(first->session().leases().StateOf({1}), 0u);
    EXPECT_THAT(server_.leases("data", "file"), ElementsAre(0));
  });
}

TEST_F(ScriptedWriteTest, OneLeaseForAllHandlesOfItsKey) {
  share_->AddText("file", "old");
  RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
    const auto observer = std::make_shared<Observer>(tree);
    for (int i = 0; i < 3; ++i) {
      const auto opened =
          co_await tree->Create(OpenWithLease("file", 1), Soon(), {.observer = observer});
      EXPECT_TRUE(opened.ok());
      if (opened.ok()) EXPECT_EQ(opened->response.lease->state, kRwh);
    }
    EXPECT_THAT(observer->breaks, IsEmpty());
    EXPECT_THAT(server_.leases("data", "file"), ElementsAre(kRwh));
  });
}

// With as few credits as there are, and every one of them used by CREATEs that wait for this very
// acknowledgment.
TEST_F(ScriptedWriteTest, AnAcknowledgmentWaitsNotBehindOurOwnCreates) {
  for (const int credits : {1, 3, 16, 512}) {
    share_->AddText("file", "old");
    server_.options().most_credits = credits;
    Run([&](Client& one, Client&) -> Task<void> {
      const auto tree = co_await one.Connect();
      const auto observer = std::make_shared<Observer>(tree);
      const auto mine =
          co_await tree->Create(OpenWithLease("file", 1), Soon(), {.observer = observer});
      EXPECT_TRUE(mine.ok()) << mine.status();
      const absl::Time begun = lab_.world().now();
      runtime::TaskGroup tasks;
      struct Opener {
        static Task<void> Run(std::shared_ptr<Tree> tree) {
          (void)co_await MustOpen(tree, Open("file"));
        }
      };
      for (int i = 0; i < 20; ++i) tasks.Spawn(Opener::Run(tree));
      EXPECT_TRUE((co_await tasks.WaitUntilEmpty(Soon())).ok());
      EXPECT_LT(lab_.world().now() - begun, absl::Seconds(5)) << credits;
      EXPECT_EQ(observer->acknowledged, absl::OkStatus());
    });
  }
}

TEST_F(ScriptedWriteTest, ALeaseThatNobodyObservesIsGivenBackAtOnce) {
  share_->AddText("file", "old");
  Run([&](Client& one, Client& two) -> Task<void> {
    const auto first = co_await one.Connect();
    const auto second = co_await two.Connect();
    EXPECT_TRUE((co_await first->Create(OpenWithLease("file", 1), Soon())).ok());
    const absl::Time begun = lab_.world().now();
    (void)co_await MustOpen(second, Open("file"));
    EXPECT_LT(lab_.world().now() - begun, absl::Seconds(1));
  });
}

TEST_F(ScriptedWriteTest, AClientThatAcknowledgesNothingLosesItsLease) {
  share_->AddText("file", "old");
  Run([&](Client& one, Client& two) -> Task<void> {
    const auto first = co_await one.Connect();
    const auto second = co_await two.Connect();
    const auto observer = std::make_shared<Observer>(first);
    observer->acknowledges = false;
    EXPECT_TRUE(
        (co_await first->Create(OpenWithLease("file", 1), Soon(), {.observer = observer})).ok());
    const absl::Time begun = lab_.world().now();
    (void)co_await MustOpen(second, Open("file"));
    EXPECT_GE(lab_.world().now() - begun, absl::Seconds(35));
    EXPECT_LT(lab_.world().now() - begun, absl::Seconds(40));
    EXPECT_EQ(NtStatusOf(co_await first->session().AcknowledgeLease({1}, kRh, Soon())),
              NtStatus::kUnsuccessful);
  });
}

TEST_F(ScriptedWriteTest, AStormOfBreaks) {
  for (int i = 0; i < 50; ++i) share_->AddText(absl::StrCat("f", i), "x");
  RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
    const auto observer = std::make_shared<Observer>(tree);
    for (int i = 0; i < 50; ++i) {
      EXPECT_TRUE(
          (co_await tree->Create(OpenWithLease(absl::StrCat("f", i), static_cast<uint8_t>(i + 1)),
                                 Soon(), {.observer = observer}))
              .ok());
    }
    for (const uint32_t to : {kRh, uint32_t{kLeaseRead}, 0u}) {
      for (int i = 0; i < 50; ++i) server_.BreakLeases("data", absl::StrCat("f", i), to);
      EXPECT_TRUE((co_await runtime::Sleep(absl::Seconds(1), Soon())).ok());
    }
    EXPECT_THAT(observer->breaks, SizeIs(150));
    for (int i = 0; i < 50; ++i) {
      EXPECT_THAT(server_.leases("data", absl::StrCat("f", i)), ElementsAre(0u));
      EXPECT_EQ(tree->session().leases().StateOf({static_cast<uint8_t>(i + 1)}), 0u);
    }
  });
}

TEST_F(ScriptedWriteTest, WithoutLeasesNothingIsGranted) {
  server_.options().leases = false;
  RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
    const auto opened = co_await tree->Create(OpenWithLease("file", 1), Soon());
    EXPECT_TRUE(opened.ok()) << opened.status();
    if (opened.ok()) EXPECT_FALSE(opened->response.lease.has_value());
    EXPECT_EQ(tree->session().leases().size(), 0u);
  });
}

// --- Durable handles

smb::wire::CreateRequest Durable(std::string_view path, uint8_t key) {
  smb::wire::CreateRequest create = OpenWithLease(path, key);
  create.durable = smb::wire::DurableRequest{.create_guid = {key, 0xD}};
  return create;
}

TEST_F(ScriptedWriteTest, ADurableHandleOutlivesItsConnection) {
  Run([&](Client& one, Client& two) -> Task<void> {
    auto tree = co_await one.Connect();
    const smb::wire::CreateRequest create = Durable("file", 1);
    const auto opened = co_await tree->Create(create, Soon());
    EXPECT_TRUE(opened.ok()) << opened.status();
    if (!opened.ok()) co_return;
    EXPECT_TRUE(opened->response.durable.has_value());
    EXPECT_TRUE((co_await tree->Write(opened->file_id, 0, BytesOf("one"), Soon())).ok());
    EXPECT_TRUE((co_await tree->Lock(opened->file_id, {Exclusive(0, 3)},
                                     smb::wire::LockSequence(1, 1), Soon()))
                    .ok());
    server_.CloseConnections(Closing::kReset);
    EXPECT_TRUE((co_await runtime::Sleep(absl::Seconds(10), Soon())).ok());
    EXPECT_EQ(server_.durable_opens(), 1);
    tree = co_await one.Connect();
    const auto again = co_await tree->Reconnect(create, opened->file_id, Soon());
    EXPECT_TRUE(again.ok()) << again.status();
    if (!again.ok() || !again->has_value()) {
      ADD_FAILURE() << "gone";
      co_return;
    }
    EXPECT_EQ((*again)->file_id.persistent_id, opened->file_id.persistent_id);
    EXPECT_NE((*again)->file_id.volatile_id, opened->file_id.volatile_id);
    EXPECT_EQ((*again)->response.lease->state, kRwh);
    EXPECT_EQ(server_.locks("data", "file"), 1);
    // Whether the lock was taken is unknown: asked again, it is not taken twice.
    EXPECT_TRUE((co_await tree->Lock((*again)->file_id, {Exclusive(0, 3)},
                                     smb::wire::LockSequence(1, 1), Soon()))
                    .ok());
    EXPECT_EQ(server_.locks("data", "file"), 1);
    EXPECT_TRUE((co_await tree->Write((*again)->file_id, 3, BytesOf("two"), Soon())).ok());
    EXPECT_EQ(ContentOf("file"), "onetwo");
    EXPECT_EQ(server_.mutations().back().client, smb::wire::Guid{1});
    // Of the session's second life.
    EXPECT_EQ(server_.log().back().header.channel_sequence, 1);
    EXPECT_TRUE((co_await tree->Close((*again)->file_id, Soon())).ok());
    EXPECT_EQ(server_.opens(), 0);
  });
}

TEST_F(ScriptedWriteTest, ADurableHandleThatIsGone) {
  enum class Why { kTime, kRestart, kAnotherWriter, kWrongGuid, kWrongClient };
  for (const Why why :
       {Why::kTime, Why::kRestart, Why::kAnotherWriter, Why::kWrongGuid, Why::kWrongClient}) {
    Run([&](Client& one, Client& two) -> Task<void> {
      auto tree = co_await one.Connect();
      smb::wire::CreateRequest create = Durable("file", 1);
      const auto opened = co_await tree->Create(create, Soon());
      EXPECT_TRUE(opened.ok()) << opened.status();
      server_.CloseConnections(Closing::kReset);
      EXPECT_TRUE((co_await runtime::Sleep(absl::Seconds(1), Soon())).ok());
      if (why == Why::kTime) {
        EXPECT_TRUE((co_await runtime::Sleep(absl::Seconds(60), Deadline::Never())).ok());
      } else if (why == Why::kRestart) {
        lab_.Start("t1");
      } else if (why == Why::kAnotherWriter) {
        const FileId id = co_await MustOpen(co_await two.Connect(), Open("file"));
        EXPECT_NE(id, FileId{});
      } else if (why == Why::kWrongGuid) {
        create.durable->create_guid[5] ^= 1;
      }
      tree = co_await (why == Why::kWrongClient ? two : one).Connect();
      const auto again = co_await tree->Reconnect(create, opened->file_id, Soon());
      EXPECT_TRUE(again.ok()) << again.status();
      if (again.ok()) EXPECT_FALSE(again->has_value()) << static_cast<int>(why);
    });
    lab_.world().RunFor(absl::Minutes(2));
  }
}

TEST_F(ScriptedWriteTest, APersistentHandleOutlivesTheServersProcess) {
  share_->persistent_handles = true;
  Run([&](Client& one, Client&) -> Task<void> {
    auto tree = co_await one.Connect();
    EXPECT_TRUE(tree->continuously_available());
    const smb::wire::CreateRequest create = Durable("file", 1);
    const auto opened = co_await tree->Create(create, Soon());
    EXPECT_TRUE(opened.ok()) << opened.status();
    if (!opened.ok()) co_return;
    EXPECT_EQ(opened->response.durable->flags, smb::wire::kDurablePersistent);
    lab_.Start("t1");
    EXPECT_TRUE((co_await runtime::Sleep(absl::Seconds(1), Soon())).ok());
    tree = co_await one.Connect();
    const auto again = co_await tree->Reconnect(create, opened->file_id, Soon());
    EXPECT_TRUE(again.ok() && again->has_value()) << again.status();
  });
}

TEST_F(ScriptedWriteTest, ACreateThatIsReplayedIsExecutedOnce) {
  RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
    smb::wire::CreateRequest create = Durable("file", 1);
    create.disposition = Disposition::kCreate;
    const auto first = co_await tree->Create(create, Soon());
    const auto replayed = co_await tree->Create(create, Soon(), {.replay = true});
    EXPECT_TRUE(first.ok() && replayed.ok()) << replayed.status();
    if (!first.ok() || !replayed.ok()) co_return;
    EXPECT_EQ(replayed->file_id, first->file_id);
    EXPECT_EQ(NtStatusOf((co_await tree->Create(create, Soon())).status()),
              NtStatus::kDuplicateObjectId);
  });
  EXPECT_EQ(CountMutations(Command::kCreate), 1);
}

TEST_F(ScriptedWriteTest, AWriteWhoseAnswerWasLostIsKnownToTheOracle) {
  Run([&](Client& one, Client&) -> Task<void> {
    auto tree = co_await one.Connect();
    const FileId id = co_await MustOpen(tree, Open("file"));
    server_.AddRule({.command = Command::kWrite,
                     .times = 1,
                     .action = {.drop = true, .close = Closing::kReset}});
    const absl::Status lost = co_await tree->Write(id, 0, BytesOf("text"), Soon());
    EXPECT_TRUE(absl::IsAborted(lost)) << lost;
    tree = co_await one.Connect();
    const FileId again = co_await MustOpen(tree, Open("file"));
    EXPECT_TRUE((co_await tree->Write(again, 0, BytesOf("text"), Soon(), {.replay = true})).ok());
  });
  std::vector<const ScriptedMutation*> writes;
  for (const ScriptedMutation& mutation : server_.mutations()) {
    if (mutation.command == Command::kWrite) writes.push_back(&mutation);
  }
  ASSERT_THAT(writes, SizeIs(2));  // Executed twice, which the oracle can tell.
  EXPECT_EQ(writes[0]->content_hash, writes[1]->content_hash);
  EXPECT_NE(writes[0]->session_id, writes[1]->session_id);
  EXPECT_FALSE(writes[0]->replay);
  EXPECT_TRUE(writes[1]->replay);
}

TEST_F(ScriptedWriteTest, WhatIsToBeDeletedOnCloseIsGoneWithItsSession) {
  share_->AddText("file", "text");
  RunOne([&](std::shared_ptr<Tree> tree) -> Task<void> {
    smb::wire::CreateRequest create = Open("file");
    create.options |= smb::wire::kOptionDeleteOnClose;
    (void)co_await MustOpen(tree, create);
    EXPECT_NE(share_->Find("file"), nullptr);
  });
  EXPECT_EQ(share_->Find("file"), nullptr);
}

}  // namespace
}  // namespace dfscsi::testing
