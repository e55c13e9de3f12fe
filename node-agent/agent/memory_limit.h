// How much memory the kernel lets this process's container have.

#ifndef NODE_AGENT_AGENT_MEMORY_LIMIT_H_
#define NODE_AGENT_AGENT_MEMORY_LIMIT_H_

#include <cstdint>
#include <string>
#include <string_view>

namespace dfscsi::agent {

// The least limit of the cgroup, version 2 or 1, and of those above it; the greatest number where
// there is none. `membership`: the text of /proc/self/cgroup; `root`: where cgroups are mounted.
uint64_t MemoryLimitBytes(std::string_view membership, const std::string& root);
// Of this process.
uint64_t OwnMemoryLimitBytes();

}  // namespace dfscsi::agent

#endif  // NODE_AGENT_AGENT_MEMORY_LIMIT_H_
