#include "node-agent/vfs/written_record.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>

namespace dfscsi::vfs {
namespace {

using Verdict = WrittenRecord::Verdict;

constexpr uint64_t kOne = 1, kOther = 2;
const absl::Time kThen = absl::FromUnixSeconds(1'700'000'000);
const absl::Time kUntil = kThen + absl::Seconds(600);

struct Row {
  std::string name;
  // Written: 10 bytes at kThen, on server kOne; then this.
  std::function<void(WrittenRecord&)> then = {};
  uint64_t server_key = kOther;
  uint64_t size_bytes = 10;
  absl::Duration last_write = absl::ZeroDuration();  // After kThen.
  absl::Duration asked = absl::Seconds(1);           // After kThen.
  Verdict verdict = Verdict::kUnknown;
  std::u16string key = u"path";
};

class RowTest : public ::testing::TestWithParam<Row> {};

TEST_P(RowTest, IsJudged) {
  const Row& row = GetParam();
  WrittenRecord record;
  record.NoteWritten(u"path", {.server_key = kOne, .size_bytes = 10, .when = kThen}, kUntil);
  if (row.then != nullptr) row.then(record);
  EXPECT_EQ(record.Judge(row.key,
                         {.server_key = row.server_key,
                          .size_bytes = row.size_bytes,
                          .last_write = kThen + row.last_write},
                         kThen + row.asked),
            row.verdict);
}

void SetOldTime(WrittenRecord& record) {
  record.NoteTimeSet(u"path", kOne, kThen - absl::Hours(9));
}

INSTANTIATE_TEST_SUITE_P(
    Rows, RowTest,
    ::testing::Values(
        Row{.name = "AnOlderCopy", .last_write = -absl::Hours(1), .verdict = Verdict::kOlder},
        Row{.name = "OfWhateverSize",
            .size_bytes = 11,
            .last_write = -absl::Seconds(3),
            .verdict = Verdict::kOlder},
        Row{.name = "TheSame", .verdict = Verdict::kNotOlder},
        Row{.name = "ARoundedTime", .last_write = -absl::Seconds(2), .verdict = Verdict::kNotOlder},
        Row{.name = "ChangedSince",
            .size_bytes = 3,
            .last_write = absl::Seconds(5),
            .verdict = Verdict::kNotOlder},
        Row{.name = "WhereItWasWritten",
            .server_key = kOne,
            .last_write = -absl::Hours(1),
            .verdict = Verdict::kUnknown},
        Row{.name = "AnotherPath", .last_write = -absl::Hours(1), .key = u"other"},
        Row{.name = "AfterItsTime", .last_write = -absl::Hours(1), .asked = absl::Seconds(600)},
        Row{.name = "JustWithinItsTime",
            .last_write = -absl::Hours(1),
            .asked = absl::Seconds(599),
            .verdict = Verdict::kOlder},
        Row{.name = "ATimeThatWasSet",
            .then = SetOldTime,
            .last_write = -absl::Hours(9),
            .verdict = Verdict::kNotOlder},
        Row{.name = "ATimeThatWasSetAndAnotherSize",
            .then = SetOldTime,
            .size_bytes = 9,
            .last_write = -absl::Hours(9),
            .verdict = Verdict::kOlder},
        Row{.name = "ATimeThatWasSetAndAnotherCopy",
            .then = SetOldTime,
            .last_write = -absl::Hours(1),
            .verdict = Verdict::kOlder},
        Row{.name = "ATimeThatWasSetElsewhere",
            .then =
                [](WrittenRecord& record) {
                  record.NoteTimeSet(u"path", kOther, kThen - absl::Hours(9));
                },
            .last_write = -absl::Hours(9),
            .verdict = Verdict::kOlder},
        Row{.name = "ToldBefore",
            .then =
                [](WrittenRecord& record) {
                  (void)record.Judge(u"path", {.server_key = kOther}, kThen);
                },
            .last_write = -absl::Hours(1),
            .verdict = Verdict::kOlderAgain},
        Row{.name = "ToldBeforeAndWrittenSince",
            .then =
                [](WrittenRecord& record) {
                  (void)record.Judge(u"path", {.server_key = kOther}, kThen);
                  record.NoteWritten(u"path", {.server_key = kOne, .when = kThen}, kUntil);
                },
            .last_write = -absl::Hours(1),
            .verdict = Verdict::kOlder},
        Row{.name = "WrittenThereMeanwhile",
            .then =
                [](WrittenRecord& record) {
                  record.NoteWritten(u"path", {.server_key = kOther, .when = kThen}, kUntil);
                },
            .last_write = -absl::Hours(1)},
        Row{.name = "Removed",
            .then = [](WrittenRecord& record) { record.NoteRemoved(u"path"); },
            .last_write = -absl::Hours(1)},
        Row{.name = "RenamedAway",
            .then = [](WrittenRecord& record) { record.NoteRenamed(u"path", u"new"); },
            .last_write = -absl::Hours(1)},
        Row{.name = "ByItsNewName",
            .then = [](WrittenRecord& record) { record.NoteRenamed(u"path", u"new"); },
            .last_write = -absl::Hours(1),
            .verdict = Verdict::kOlder,
            .key = u"new"},
        Row{.name = "ReplacedByAnother",
            .then = [](WrittenRecord& record) { record.NoteRenamed(u"temporary", u"path"); },
            .last_write = -absl::Hours(1)}),
    [](const auto& row) { return row.param.name; });

TEST(WrittenRecordTest, ItIsBoundedAndTheOldestGoFirst) {
  WrittenRecord record;
  const auto key = [](size_t number) {
    const std::string text = std::to_string(number);
    return std::u16string(text.begin(), text.end());
  };
  const auto note = [&](size_t number) {
    record.NoteWritten(key(number), {.server_key = kOne, .when = kThen}, kUntil);
  };
  for (size_t number = 0; number < WrittenRecord::kMost; ++number) note(number);
  note(0);  // It is the youngest now.
  note(WrittenRecord::kMost);
  EXPECT_EQ(record.size(), WrittenRecord::kMost);
  const WrittenRecord::Seen old = {.server_key = kOther, .last_write = kThen - absl::Hours(1)};
  EXPECT_EQ(record.Judge(key(0), old, kThen), Verdict::kOlder);
  EXPECT_EQ(record.Judge(key(1), old, kThen), Verdict::kUnknown);
  EXPECT_EQ(record.Judge(key(2), old, kThen), Verdict::kOlder);
}

}  // namespace
}  // namespace dfscsi::vfs
