#include "node-agent/fuse/init_flags.h"

#include <string.h>

#include <algorithm>

namespace dfscsi::fuse {

bool MapsPastPages(absl::string_view init_out) {
  fuse_init_out answer = {};
  memcpy(&answer, init_out.data(), std::min(init_out.size(), sizeof(answer)));
  if ((answer.flags & FUSE_INIT_EXT) == 0) return false;
  return ((uint64_t{answer.flags2} << 32) & kInitDirectIoAllowMmap) != 0;
}

}  // namespace dfscsi::fuse
