// What the agent and its child dfs-notifier say to each other over a SOCK_SEQPACKET socket pair:
// one packet is one of these structs. Same machine, same build: no byte order, no versions.

#ifndef NODE_AGENT_STATE_NOTIFIER_PROTOCOL_H_
#define NODE_AGENT_STATE_NOTIFIER_PROTOCOL_H_

#include <cstdint>

namespace dfscsi::state {

// The descriptor on which the child finds its socket.
inline constexpr int kNotifierSocketFd = 3;

enum class NotifierCommand : uint32_t {
  kAddMount = 1,  // With the mount's /dev/fuse fd.
  kRemoveMount = 2,
  // The kernel drops its attributes of a node, and its pages in a range.
  kInvalidateInode = 3,
  // The kernel trusts none of the mount's names any more (kernel 6.16).
  kIncrementEpoch = 4,
};

struct NotifierRequest {
  NotifierCommand command;
  uint32_t mount_id;
  uint64_t id;  // Comes back in the reply.
  uint64_t node;
  int64_t offset;  // Of kInvalidateInode: negative: attributes only.
  int64_t length;  // 0: to the end.
};
static_assert(sizeof(NotifierRequest) == 40);

// One for each request but kAddMount and kRemoveMount. The order is that of the mount.
struct NotifierReply {
  uint64_t id;
  int32_t error;  // 0, or the positive errno of the write.
  uint32_t reserved;
};
static_assert(sizeof(NotifierReply) == 16);

}  // namespace dfscsi::state

#endif  // NODE_AGENT_STATE_NOTIFIER_PROTOCOL_H_
