#include "node-agent/fuse/init_flags.h"

#include <gtest/gtest.h>

#include <string>

namespace dfscsi::fuse {
namespace {

std::string Answer(uint64_t flags) {
  fuse_init_out answer = {};
  answer.flags = static_cast<uint32_t>(flags);
  answer.flags2 = static_cast<uint32_t>(flags >> 32);
  return std::string(reinterpret_cast<const char*>(&answer), sizeof(answer));
}

TEST(InitFlagsTest, WhereWhatIsOpenedPastItsPagesCanBeMapped) {
  EXPECT_TRUE(MapsPastPages(Answer(FUSE_INIT_EXT | kInitDirectIoAllowMmap)));
  EXPECT_FALSE(MapsPastPages(Answer(FUSE_INIT_EXT | kInitHasResend)));
  EXPECT_FALSE(MapsPastPages(Answer(kInitDirectIoAllowMmap))) << "flags2 is not told of";
  EXPECT_FALSE(MapsPastPages(""));
  EXPECT_FALSE(MapsPastPages(Answer(FUSE_INIT_EXT | kInitDirectIoAllowMmap).substr(0, 20)));
}

}  // namespace
}  // namespace dfscsi::fuse
