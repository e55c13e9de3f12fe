// What operations.cc and its parts share. Private to them; after <fuse_lowlevel.h>.

#ifndef NODE_AGENT_FUSE_OPERATIONS_INTERNAL_H_
#define NODE_AGENT_FUSE_OPERATIONS_INTERNAL_H_

#include "node-agent/fuse/session.h"

namespace dfscsi::fuse {

inline Session& SessionOf(fuse_req_t request) {
  return *static_cast<Session*>(fuse_req_userdata(request));
}

void AddChangeOperations(fuse_lowlevel_ops& ops);
void AddExtendedOperations(fuse_lowlevel_ops& ops);
void AddLockOperations(fuse_lowlevel_ops& ops);

}  // namespace dfscsi::fuse

#endif  // NODE_AGENT_FUSE_OPERATIONS_INTERNAL_H_
