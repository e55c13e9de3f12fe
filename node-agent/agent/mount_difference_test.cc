#include "node-agent/agent/mount_difference.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace dfscsi::agent {
namespace {

MountPlan PlanOf(const std::string& source, const std::vector<std::string>& options) {
  v1::StoredMount stored;
  stored.set_source(source);
  *stored.mutable_options() = {options.begin(), options.end()};
  stored.set_inode_key("0123456789abcdef");
  absl::StatusOr<MountPlan> plan = MakePlan(std::move(stored), {});
  EXPECT_TRUE(plan.ok()) << plan.status();
  return *std::move(plan);
}

TEST(MountDifferenceTest, SaysWhatDiffers) {
  const struct {
    const char* there;
    std::vector<std::string> there_options;
    const char* asked;
    std::vector<std::string> asked_options;
    const char* want;
  } kRows[] = {
      {"//t1/share", {"ro"}, "//t1/share", {"ro"}, ""},
      {"//t1/share", {"ro"}, "//T1/SHARE/", {"ro"}, ""},
      {"//t1@1445/share", {}, "//t1/share", {"port=1445"}, ""},
      {"//t1@445/share", {}, "//t1/share", {}, ""},
      {"//t1/share", {}, "//t2/share", {}, "not //t2/share"},
      {"//t1/share", {}, "//t1@1445/share", {}, "with port 445, not 1445"},
      {"//t1/share", {"port=1445"}, "//t1/share", {"ro"}, "with port 1445, not 445; without ro"},
      {"//t1/share", {"ro", "uid=5"}, "//t1/share", {"uid=5", "rw"}, "with ro, not rw"},
      {"//t1/share", {"soft", "uid=5"}, "//t1/share", {}, "with soft,uid=5"},
      {"//t1/share", {}, "//t1/share", {"dir_mode=0700"}, "without dir_mode=0700"},
      {"//t1/share",
       {"ro", "rw"},
       "//t1/share",
       {"rw", "ro"},
       "with the same options in another order"},
      {"//t1/share", {}, "//t1/share", {"_netdev", "nofail"}, ""},
      {"//t1/share", {"noperm=Canary", "ro"}, "//t1/share", {"ro", "nofail=Canary"}, ""},
      {"//t1/share", {"rsize=1", "ro"}, "//t1/share", {"wsize=Canary", "rw"}, "with ro, not rw"},
      {"//t1/share", {"ro"}, "//t2/a@b", {"rw"}, "not //t2/a@b; with ro, not rw"},
  };
  for (const auto& row : kRows) {
    EXPECT_EQ(
        DifferenceOf(PlanOf(row.there, row.there_options), PlanOf(row.asked, row.asked_options)),
        row.want)
        << row.there << " " << row.asked;
  }
}

}  // namespace
}  // namespace dfscsi::agent
