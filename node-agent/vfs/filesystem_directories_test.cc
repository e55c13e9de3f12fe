// OPENDIR, READDIR, READDIRPLUS, RELEASEDIR.

#include <errno.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "node-agent/vfs/directory_stream.h"
#include "node-agent/vfs/filesystem_test_lab.h"

namespace dfscsi::vfs {
namespace {

using smb::wire::Command;

// What `ls -lR` asks of a directory: its entries with attributes, then each subdirectory's, by
// names and attributes that the kernel believes for as long as it was told.
void ListLikeLs(FilesystemLab& lab, state::NodeId directory, int* entries) {
  const absl::StatusOr<state::FileHandle> fh = lab.OpenDirectory(directory);
  ASSERT_TRUE(fh.ok()) << fh.status();
  struct Known {
    std::string name;
    state::NodeId node;
    absl::Time name_until;
    absl::Time attributes_until;
  };
  std::vector<Known> subdirectories;
  uint64_t offset = 0;
  while (true) {
    // A READDIRPLUS of 32 KiB has room for about 150 entries.
    const auto some = lab.ReadDirectory(*fh, offset, 150);
    ASSERT_TRUE(some.ok()) << some.status();
    if (some->empty()) break;
    for (const EntryList::Entry& entry : *some) {
      if (entry.name == "." || entry.name == "..") continue;
      ++*entries;
      if (!S_ISDIR(entry.attributes.st_mode)) continue;
      subdirectories.push_back({entry.name, entry.node, lab.now() + entry.name_timeout,
                                lab.now() + entry.attributes_timeout});
    }
    offset = some->back().next_offset;
  }
  lab.filesystem().ReleaseDirectory(*fh);
  for (Known& known : subdirectories) {
    if (known.name_until <= lab.now()) {
      const absl::StatusOr<EntryReply> entry = lab.Lookup(directory, known.name);
      ASSERT_TRUE(entry.ok()) << entry.status();
      known.attributes_until = lab.now() + entry->attributes_timeout;
    }
    if (known.attributes_until <= lab.now()) ASSERT_TRUE(lab.GetAttributes(known.node).ok());
    ListLikeLs(lab, known.node, entries);
  }
}

// E-case: `ls -lR` of 5,000 entries in 50 directories, cold: at once, and over a slow line, where
// what the root's listing said has lapsed by the time a directory's turn comes.
TEST(FilesystemDirectoriesTest, ListingATreeTakesAtMostThreeFramesADirectory) {
  const struct {
    absl::Duration latency;
    int64_t frames;
  } kCases[] = {{absl::Microseconds(100), 102}, {absl::Milliseconds(50), 150}};
  for (const auto& test : kCases) {
    FilesystemLab lab;
    for (int d = 0; d < 50; ++d) {
      for (int f = 0; f < 99; ++f) lab.share("t1").AddFile(absl::StrCat("dir", d, "/file", f), 10);
    }
    lab.lab().network().set_default_path({.latency = test.latency});
    lab.Mount("//t1/share");
    ASSERT_TRUE(lab.GetAttributes(state::kRootNode).ok());  // Log-on and the like.
    lab.RunFor(absl::Seconds(2));
    const int64_t before = lab.frames();
    int entries = 0;
    ListLikeLs(lab, state::kRootNode, &entries);
    lab.RunFor(absl::Seconds(2));
    EXPECT_EQ(entries, 50 * 100);
    EXPECT_LE(lab.frames() - before, test.frames) << test.latency;
  }
}

std::vector<std::string> Names(int count) {
  std::vector<std::string> names;
  for (int i = 0; i < count; ++i) names.push_back(absl::StrCat("entry", i));
  return names;
}

// Copies list in different orders, and the next agent has nothing but the tables.
TEST(FilesystemDirectoriesTest, AListingGoesOnAfterWhateverHappened) {
  enum Event { kNothing, kTakeOver, kFailover, kBreak, kHandleDropped, kReplyLost };
  constexpr int kEntries = 3000;  // More than comes with OPENDIR.
  for (const Event event : {kNothing, kTakeOver, kFailover, kBreak, kHandleDropped, kReplyLost}) {
    for (const int at : {0, 1, 2, 700, 2500, kEntries + 2}) {
      SCOPED_TRACE(absl::StrCat("event ", event, " at ", at));
      FilesystemLab lab;
      lab.OnBoth([](testing::ScriptedShare& share) {
        for (const std::string& name : Names(kEntries)) share.AddFile("many/" + name, 1);
      });
      lab.share("t1").listing_order = 5;
      lab.share("t2").listing_order = 6;
      lab.Mount("//root1/dfs");
      const absl::StatusOr<state::FileHandle> fh = lab.OpenDirectory(lab.Walk("two/many"));
      ASSERT_TRUE(fh.ok()) << fh.status();
      std::vector<std::string> names;
      uint64_t offset = 0;
      while (static_cast<int>(names.size()) < at) {
        const auto some = lab.ReadDirectory(*fh, offset, std::min<size_t>(100, at - names.size()));
        ASSERT_TRUE(some.ok()) << some.status();
        ASSERT_FALSE(some->empty());
        for (const EntryList::Entry& entry : *some) names.push_back(entry.name);
        offset = some->back().next_offset;
      }
      switch (event) {
        case kNothing:
          break;
        case kTakeOver:
          lab.TakeOver();
          break;
        case kFailover:
          lab.lab().Kill("t1");
          break;
        case kBreak:
          lab.server("t1").CloseConnections(testing::Closing::kReset);
          lab.RunFor(absl::Milliseconds(10));
          break;
        case kHandleDropped:
          lab.server("t1").AddRule({.command = Command::kQueryDirectory,
                                    .times = 1,
                                    .action = {.status = smb::wire::NtStatus::kFileClosed}});
          break;
        case kReplyLost:
          // The agent died with the reply: the same READDIR is run again.
          ASSERT_TRUE(lab.ReadDirectory(*fh, offset, 100).ok());
          lab.TakeOver();
          break;
      }
      const absl::StatusOr<std::vector<std::string>> rest = lab.ListFrom(*fh, offset, 100);
      ASSERT_TRUE(rest.ok()) << rest.status();
      names.insert(names.end(), rest->begin(), rest->end());
      std::erase(names, ".");
      std::erase(names, "..");
      EXPECT_EQ(names.size(), static_cast<size_t>(kEntries));
      EXPECT_EQ(std::set<std::string>(names.begin(), names.end()).size(),
                static_cast<size_t>(kEntries));
      // rewinddir(3)
      EXPECT_EQ(lab.ListFrom(*fh, 0, 1000)->size(), static_cast<size_t>(kEntries));
      lab.filesystem().ReleaseDirectory(*fh);
      lab.RunFor(absl::Seconds(1));
      EXPECT_EQ(lab.server("t1").opens() + lab.server("t2").opens(), 0);
    }
  }
}

// The server goes on behind a page that was asked for and not taken.
TEST(FilesystemDirectoriesTest, AnInterruptedReadLosesNoNames) {
  FilesystemLab lab;
  for (const std::string& name : Names(3000)) lab.share("t1").AddFile("many/" + name, 1);
  lab.Mount("//t1/share");
  const absl::StatusOr<state::FileHandle> fh = lab.OpenDirectory(lab.Walk("many"));
  ASSERT_TRUE(fh.ok()) << fh.status();
  lab.server("t1").AddRule({.command = Command::kQueryDirectory,
                            .times = 1,
                            .action = {.delay = absl::Milliseconds(500)}});
  runtime::CancelSource interrupt;
  std::vector<std::string> names;
  uint64_t offset = 0;
  bool interrupted = false;
  while (true) {
    EntryList list(100);
    const int64_t asked = lab.server("t1").Count(Command::kQueryDirectory);
    if (!interrupted) {
      lab.lab().world().After(absl::Milliseconds(100), [&] {
        if (lab.server("t1").Count(Command::kQueryDirectory) == asked) return;
        lab.lab().agent().RunNow([&] { interrupt.Cancel(); });
      });
    }
    const auto status = lab.Await<absl::Status>([&] {
      return lab.filesystem().ReadDirectory(
          *fh, offset, /*plus=*/true, &list,
          interrupted ? runtime::Deadline::Never() : interrupt.deadline());
    });
    lab.RunFor(absl::Milliseconds(200));
    ASSERT_TRUE(status.has_value());
    if (!interrupted && interrupt.cancelled()) {
      EXPECT_EQ(ErrnoOf(*status), EINTR);
      interrupted = true;
      continue;
    }
    ASSERT_TRUE(status->ok()) << *status;
    if (list.entries.empty()) break;
    for (const EntryList::Entry& entry : list.entries) names.push_back(entry.name);
    offset = list.entries.back().next_offset;
  }
  EXPECT_TRUE(interrupted);
  EXPECT_EQ(names.size(), 3002u);
  EXPECT_EQ(std::set<std::string>(names.begin(), names.end()).size(), 3002u);
}

TEST(FilesystemDirectoriesTest, NamesThatMustNotReachTheKernel) {
  FilesystemLab lab;
  testing::ScriptedShare& share = lab.share("t1");
  share.AddFile("good", 1);
  for (const std::u16string name : {u"a/b", u"/", u"../../etc"}) {
    auto evil = std::make_shared<testing::ScriptedFile>();
    evil->name = name;
    evil->kind = testing::FileKind::kFile;
    share.root()->children[name] = evil;
  }
  lab.Mount("//t1/share");
  const absl::StatusOr<state::FileHandle> fh = lab.OpenDirectory(state::kRootNode);
  ASSERT_TRUE(fh.ok()) << fh.status();
  EXPECT_EQ(lab.ListFrom(*fh, 0, 100)->size(), 1u);
  lab.filesystem().ReleaseDirectory(*fh);
  EXPECT_EQ(lab.counters().refused_names, 3);
}

TEST(FilesystemDirectoriesTest, EntriesOfReadDirectoryPlusAreLookups) {
  FilesystemLab lab;
  lab.share("t1").AddFile("file", 7);
  lab.share("t1").AddDirectory("dir");
  lab.Mount("//t1/share");
  const absl::StatusOr<state::FileHandle> fh = lab.OpenDirectory(state::kRootNode);
  const auto plain = lab.ReadDirectory(*fh, 0, 100, /*plus=*/false);
  ASSERT_EQ(plain->size(), 4u);
  for (const EntryList::Entry& entry : *plain) EXPECT_EQ(entry.node, 0u) << entry.name;
  EXPECT_EQ(lab.tables().inodes().size(), 1u);
  const auto plus = lab.ReadDirectory(*fh, 0, 100);
  ASSERT_EQ(plus->size(), 4u);
  for (const EntryList::Entry& entry : *plus) {
    if (entry.name == "." || entry.name == "..") {
      EXPECT_EQ(entry.node, 0u);
      continue;
    }
    EXPECT_EQ(lab.tables().inodes().Get(entry.node).nlookup(), 1u) << entry.name;
    EXPECT_LE(entry.name_timeout, absl::Seconds(1));  // From when the page came.
    EXPECT_GT(entry.name_timeout, absl::Milliseconds(900));
    EXPECT_EQ(S_ISDIR(entry.attributes.st_mode), entry.name == "dir");
    EXPECT_EQ(entry.attributes.st_ino, lab.tables().inodes().Get(entry.node).ino());
  }
  // What was listed answers the questions that `ls -l` asks next.
  const int64_t before = lab.frames();
  EXPECT_EQ(lab.Lookup(state::kRootNode, "file")->attributes.st_size, 7);
  EXPECT_EQ(lab.frames(), before);
}

TEST(FilesystemDirectoriesTest, Errors) {
  FilesystemLab lab;
  lab.share("t1").AddFile("file", 7);
  lab.share("t1").AddDirectory("denied");
  lab.Mount("//t1/share");
  const state::NodeId denied = lab.Walk("denied");
  lab.share("t1").Find("denied")->denied = true;
  EXPECT_EQ(ErrnoOf(lab.OpenDirectory(lab.Walk("file")).status()), ENOTDIR);
  EXPECT_EQ(ErrnoOf(lab.OpenDirectory(denied).status()), EACCES);
  const absl::StatusOr<state::FileHandle> fh = lab.OpenDirectory(state::kRootNode);
  EXPECT_EQ(ErrnoOf(lab.ReadDirectory(*fh, 2, 0).status()), EINVAL);  // No room for one.
  lab.filesystem().ReleaseDirectory(*fh);
  EXPECT_EQ(ErrnoOf(lab.ReadDirectory(*fh, 0, 10).status()), EBADF);
  lab.filesystem().ReleaseDirectory(*fh);  // Run again after a takeover.
  EXPECT_EQ(lab.tables().handles().size(), 0u);
}

// However long the directory is, and however it is read: some pages are in memory.
TEST(FilesystemDirectoriesTest, MemoryOfALongListingIsBounded) {
  constexpr uint64_t kEntries = 100'000;
  FilesystemLab lab;
  for (const std::string& name : Names(kEntries)) lab.share("t1").AddFile(name, 1);
  lab.Mount("//t1/share");
  const state::FileHandle fh = *lab.tables().handles().Open(
      {.node = state::kRootNode, .kind = state::HandleTable::Kind::kDirectory});
  DirectoryStream stream(*dfs::DfsPath::Parse("//t1/share"), lab.tables().handles(), fh, {});
  const auto seek = [&](uint64_t position) {
    const auto status = lab.Await<absl::Status>([&] {
      return lab.client().Run(
          stream.path(),
          [&, position](dfs::Binding binding) {
            return stream.Seek(position, std::move(binding), runtime::Deadline::Never());
          },
          {}, runtime::Deadline::Never());
    });
    ASSERT_TRUE(status.has_value() && status->ok());
  };
  uint64_t position = 0;
  while (!stream.at_end(position)) {
    seek(position);
    for (int i = 0; i < 50 && stream.At(position) != nullptr; ++i, ++position) {
      ASSERT_TRUE(stream.NoteGiven(position).ok());
    }
  }
  EXPECT_EQ(lab.tables().handles().StreamLength(fh), kEntries);
  seek(10);  // rewinddir, then the end at once: seekdir.
  seek(kEntries);
  EXPECT_EQ(stream.At(kEntries), nullptr);
  EXPECT_TRUE(stream.at_end(kEntries));
  EXPECT_LE(stream.most_entries_held(), 16'384u);
  lab.lab().agent().RunNow([&] { stream.CloseLater(); });
  lab.RunFor(absl::Seconds(1));
}

TEST(FilesystemDirectoriesTest, AnOldPageIsNoNews) {
  FilesystemLab lab;
  const auto make = [&lab](uint64_t size) {
    for (int i = 100; i < 120; ++i) lab.share("t1").AddFile(absl::StrCat("f", i), size);
  };
  make(10);
  lab.Mount("//t1/share");
  const auto fh = lab.OpenDirectory(state::kRootNode);
  ASSERT_TRUE(fh.ok());
  const auto some = lab.ReadDirectory(*fh, 0, 5);
  ASSERT_TRUE(some.ok());
  EXPECT_NE(some->back().node, 0u);
  EXPECT_GT(some->back().attributes_timeout, absl::ZeroDuration());
  lab.RunFor(absl::Minutes(1));
  make(5000);
  ASSERT_TRUE(lab.Lookup(state::kRootNode, "f119").ok());
  const auto rest = lab.ReadDirectory(*fh, some->back().next_offset, 100);
  ASSERT_TRUE(rest.ok());
  EXPECT_EQ(rest->size(), 17u);
  for (const EntryList::Entry& entry : *rest) EXPECT_EQ(entry.node, 0u) << entry.name;
  const auto again = lab.Lookup(state::kRootNode, "f119");
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->attributes.st_size, 5000);
  EXPECT_TRUE(lab.invalidation().changed.empty());
}

}  // namespace
}  // namespace dfscsi::vfs
