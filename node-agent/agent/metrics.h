// Every metric of the agent, in one place: names, what they mean, and where their numbers come
// from. Counters are plain integers of their owners, read when somebody asks; nothing is counted
// here.

#ifndef NODE_AGENT_AGENT_METRICS_H_
#define NODE_AGENT_AGENT_METRICS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "node-agent/agent/engine.h"
#include "node-agent/dfs/client.h"
#include "node-agent/fuse/session.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/state/mount_tables.h"
#include "node-agent/vfs/filesystem.h"

namespace dfscsi::agent {

struct MetricsSource {
  struct Mount {
    std::string mount_point;
    std::string source;
    const fuse::Session& session;
    const vfs::Filesystem& filesystem;
    const dfs::Client& client;
    state::MountTables& tables;
    int64_t slow_operations = 0;
  };
  Engine& engine;
  const state::RequestArena& arena;
  const runtime::Loop& loop;
  uint32_t generation = 0;
  int64_t lost_early_writes = 0;
  std::vector<Mount> mounts = {};
};

// Prometheus' text format.
std::string MetricsText(const MetricsSource& source);

}  // namespace dfscsi::agent

#endif  // NODE_AGENT_AGENT_METRICS_H_
