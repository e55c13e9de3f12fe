#include "node-agent/agent/metrics.h"

#include <linux/fuse.h>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <map>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "node-agent/base/log.h"

namespace dfscsi::agent {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<std::pair<std::string, std::string>>;

class Page {
 public:
  // Starts a metric; Add() gives it its values.
  Page& Counter(std::string_view name, std::string_view help) {
    return Start(name, help, MetricType::Counter);
  }
  Page& Gauge(std::string_view name, std::string_view help) {
    return Start(name, help, MetricType::Gauge);
  }
  template <typename Number>
  Page& Add(Number value, const Labels& labels = {}) {
    ClientMetric metric;
    for (const auto& [name, text] : labels) metric.label.push_back({name, text});
    const double number = static_cast<double>(value);
    if (families_.back().type == MetricType::Counter) {
      metric.counter.value = number;
    } else {
      metric.gauge.value = number;
    }
    families_.back().metric.push_back(std::move(metric));
    return *this;
  }
  std::string Text() const { return prometheus::TextSerializer().Serialize(families_); }

 private:
  Page& Start(std::string_view name, std::string_view help, MetricType type) {
    MetricFamily family;
    family.name = absl::StrCat("dfscsi_", std::string(name));
    family.help = std::string(help);
    family.type = type;
    families_.push_back(std::move(family));
    return *this;
  }
  std::vector<MetricFamily> families_;
};

constexpr std::pair<uint32_t, const char*> kOpcodes[] = {{FUSE_LOOKUP, "lookup"},
                                                         {FUSE_FORGET, "forget"},
                                                         {FUSE_GETATTR, "getattr"},
                                                         {FUSE_READLINK, "readlink"},
                                                         {FUSE_OPEN, "open"},
                                                         {FUSE_READ, "read"},
                                                         {FUSE_STATFS, "statfs"},
                                                         {FUSE_RELEASE, "release"},
                                                         {FUSE_FLUSH, "flush"},
                                                         {FUSE_OPENDIR, "opendir"},
                                                         {FUSE_READDIR, "readdir"},
                                                         {FUSE_READDIRPLUS, "readdirplus"},
                                                         {FUSE_RELEASEDIR, "releasedir"},
                                                         {FUSE_ACCESS, "access"},
                                                         {FUSE_GETXATTR, "getxattr"},
                                                         {FUSE_LISTXATTR, "listxattr"},
                                                         {FUSE_LSEEK, "lseek"},
                                                         {FUSE_INTERRUPT, "interrupt"},
                                                         {FUSE_BATCH_FORGET, "batch_forget"}};

// A counter of each mount: Each(page, source, name, help, [](const Mount& m) { return …; }).
template <typename Read>
void Each(Page& page, const MetricsSource& source, std::string_view name, std::string_view help,
          Read read, bool gauge = false) {
  gauge ? page.Gauge(name, help) : page.Counter(name, help);
  for (const MetricsSource::Mount& mount : source.mounts) {
    page.Add(read(mount), {{"mount", mount.mount_point}});
  }
}

void AddNode(Page& page, const MetricsSource& source) {
  page.Gauge("mounts", "Mounts that are served.").Add(source.mounts.size());
  page.Gauge("agent_generation", "How many agents have been active on this node.")
      .Add(source.generation);
  page.Counter("local_stalls_total", "Times this process was found to have stood still.")
      .Add(source.loop.local_stalls());
  page.Counter("local_stall_seconds_total", "How long it stood still in all.")
      .Add(absl::ToDoubleSeconds(source.loop.local_stall_time()));
  page.Counter("escaped_exceptions_total",
               "Exceptions that ended an operation: bugs, or no memory.")
      .Add(source.loop.escaped_exceptions());
  page.Counter("log_lines_dropped_total", "Log lines lost because nobody read them.")
      .Add(DroppedLogLines());

  const state::RequestArena::Usage usage = source.arena.GetUsage();
  page.Gauge("arena_steps", "Steps of 8 MiB of the request arena that are in use.")
      .Add(usage.steps);
  page.Gauge("arena_slots", "Slots of the request arena, by size and use.")
      .Add(usage.big_free, {{"size", "big"}, {"state", "free"}})
      .Add(usage.big_total - usage.big_free, {{"size", "big"}, {"state", "used"}})
      .Add(usage.small_free, {{"size", "small"}, {"state", "free"}})
      .Add(usage.small_total - usage.small_free, {{"size", "small"}, {"state", "used"}});
  page.Gauge("parked_requests", "Large requests that wait outside of the arena's steps.")
      .Add(usage.parked.slots);
  page.Gauge("parked_request_bytes", "Memory that they take.")
      .Add(static_cast<double>(usage.parked.bytes));
  page.Gauge("acknowledged_writes", "Writes that were answered and that no server has yet.")
      .Add(usage.acknowledged);
  page.Counter("lost_early_writes_total",
               "Of them, those whose mount was gone before a server had them.")
      .Add(source.lost_early_writes);
  page.Counter("parked_full_total",
               "Times a mount was not read because parked requests had reached their limit.")
      .Add(source.engine.room.stops());
  page.Counter("arena_shortages_total", "Times a mount could not be read for want of a slot.")
      .Add(source.engine.room.shortages());
  page.Gauge("reply_buffer_bytes", "Memory for replies, by where it is from.")
      .Add(source.engine.buffers.held_bytes(), {{"kind", "pool"}})
      .Add(source.engine.buffers.overflow_bytes(), {{"kind", "overflow"}});

  const fuse::NotifierChannel::Counters& notifier = source.engine.notifier.counters();
  page.Counter("notifications_total", "Invalidations for the kernel, by what became of them.")
      .Add(notifier.written, {{"result", "written"}})
      .Add(notifier.unknown_nodes, {{"result", "unknown_node"}})
      .Add(notifier.failed, {{"result", "failed"}})
      .Add(notifier.dropped, {{"result", "dropped"}});
  page.Counter("notifier_replacements_total",
               "dfs-notifier children that were replaced, by reason.")
      .Add(notifier.stuck, {{"reason", "stuck"}})
      .Add(notifier.ended, {{"reason", "ended"}});
}

void AddDfs(Page& page, const MetricsSource& source) {
  const dfs::ReferralCache::Counters cache = source.engine.cache.GetCounters();
  page.Gauge("referral_cache_entries", "Referrals in the cache; pinned: of links in use.")
      .Add(cache.entries - cache.pinned, {{"pinned", "no"}})
      .Add(cache.pinned, {{"pinned", "yes"}});
  page.Counter("referral_cache_lookups_total", "Look-ups in the referral cache.")
      .Add(cache.hits, {{"result", "hit"}})
      .Add(cache.negative_hits, {{"result", "negative_hit"}})
      .Add(cache.misses, {{"result", "miss"}});
  page.Counter("referral_cache_evictions_total", "Referrals that made room for others.")
      .Add(cache.evictions);

  // A target may be listed once for each credential, which has no name here.
  struct Target {
    bool up = false;
    bool known = false;
    dfs::TargetHealthTable::Counters counters;
  };
  std::map<std::string, Target> targets;
  for (const dfs::TargetHealthTable::Listed& listed : source.engine.health.List()) {
    Target& target = targets[listed.target];
    target.up |= listed.status.state == dfs::TargetState::kUp;
    target.known |= listed.status.state != dfs::TargetState::kUnknown;
    target.counters.connects += listed.counters.connects;
    target.counters.transport += listed.counters.transport;
    target.counters.unavailable += listed.counters.unavailable;
    target.counters.missing += listed.counters.missing;
    target.counters.denied += listed.counters.denied;
    target.counters.throttled += listed.counters.throttled;
    target.counters.other += listed.counters.other;
    target.counters.held_back += listed.counters.held_back;
  }
  page.Gauge("target_up", "1: the last attempt on this target succeeded.");
  for (const auto& [name, target] : targets) {
    if (target.known) page.Add(target.up ? 1 : 0, {{"target", name}});  // Else it was never tried.
  }
  page.Counter("target_connects_total", "Connections begun.");
  for (const auto& [name, target] : targets) {
    page.Add(target.counters.connects, {{"target", name}});
  }
  page.Counter("target_held_back_total", "Connections not begun, for back-off or rate.");
  for (const auto& [name, target] : targets) {
    page.Add(target.counters.held_back, {{"target", name}});
  }
  page.Counter("target_failures_total", "Failed attempts on a target, by class.");
  for (const auto& [name, target] : targets) {
    page.Add(target.counters.transport, {{"target", name}, {"class", "transport"}})
        .Add(target.counters.unavailable, {{"target", name}, {"class", "unavailable"}})
        .Add(target.counters.missing, {{"target", name}, {"class", "missing"}})
        .Add(target.counters.denied, {{"target", name}, {"class", "denied"}})
        .Add(target.counters.throttled, {{"target", name}, {"class", "throttled"}})
        .Add(target.counters.other, {{"target", name}, {"class", "other"}});
  }
  page.Counter("smb_frames_sent_total", "Frames sent on the connections that are open now.");
  // Each user has a connection to the same server.
  std::map<std::pair<std::string, std::string>, int64_t> frames_sent;
  source.engine.ForEachPool([&](const smb::SessionPool& pool) {
    for (const smb::SessionPool::Listed& session : pool.List()) {
      frames_sent[{session.host, session.peer}] += session.frames_sent;
    }
  });
  for (const auto& [server, frames] : frames_sent) {
    page.Add(frames, {{"host", server.first}, {"address", server.second}});
  }

  using Mount = MetricsSource::Mount;
  Each(page, source, "suspicions_total", "Times a target was silent for too long.",
       [](const Mount& m) { return m.client.counters().suspicions; });
  Each(page, source, "failovers_total", "Times a link went from one target to another.",
       [](const Mount& m) { return m.client.counters().failovers; });
  Each(page, source, "lost_targets_total", "Times a target's connection or session was lost.",
       [](const Mount& m) { return m.client.counters().lost_targets; });
  Each(page, source, "moved_operations_total", "Operations that were run again on another target.",
       [](const Mount& m) { return m.client.counters().moved_operations; });
  Each(page, source, "referral_requests_total", "Referral requests sent.",
       [](const Mount& m) { return m.client.counters().referral_requests; });
}

void AddFuse(Page& page, const MetricsSource& source) {
  using Mount = MetricsSource::Mount;
  page.Counter("fuse_requests_total", "Requests of the kernel, by operation.");
  for (const Mount& mount : source.mounts) {
    const fuse::SessionCounters& counters = mount.session.counters();
    int64_t others = 0;
    for (const int64_t count : counters.requests) others += count;
    for (const auto& [opcode, name] : kOpcodes) {
      others -= counters.requests[opcode];
      page.Add(counters.requests[opcode], {{"mount", mount.mount_point}, {"operation", name}});
    }
    page.Add(others, {{"mount", mount.mount_point}, {"operation", "other"}});
  }
  page.Gauge(
      "fuse_requests_in_flight",
      "Requests that wait for their answer, and writes that wait for their server behind it.");
  for (const Mount& mount : source.mounts) {
    page.Add(mount.session.in_flight(), {{"mount", mount.mount_point}, {"phase", "answer"}})
        .Add(mount.session.acknowledged(), {{"mount", mount.mount_point}, {"phase", "behind"}});
  }
  Each(
      page, source, "inodes", "Nodes that the kernel, or an open file, knows.",
      [](const Mount& m) { return m.tables.inodes().size(); }, /*gauge=*/true);
  Each(
      page, source, "open_handles", "Open files and directories.",
      [](const Mount& m) { return m.tables.handles().size(); }, /*gauge=*/true);
  Each(page, source, "fuse_error_answers_total", "Answers that were errors.",
       [](const Mount& m) { return m.session.counters().error_answers; });
  Each(page, source, "fuse_eio_answers_total", "Of them, EIO.",
       [](const Mount& m) { return m.session.counters().eio_answers; });
  page.Counter("fuse_faults_total", "What should not happen, by kind.");
  for (const Mount& mount : source.mounts) {
    const fuse::SessionCounters& counters = mount.session.counters();
    page.Add(counters.unanswered, {{"mount", mount.mount_point}, {"kind", "unanswered"}})
        .Add(counters.write_failures, {{"mount", mount.mount_point}, {"kind", "write_failed"}})
        .Add(counters.read_failures, {{"mount", mount.mount_point}, {"kind", "read_failed"}})
        .Add(counters.malformed, {{"mount", mount.mount_point}, {"kind", "malformed"}})
        .Add(counters.own_requests, {{"mount", mount.mount_point}, {"kind", "own_request"}});
  }
  Each(page, source, "fuse_undelivered_total", "Answers that the kernel did not want any more.",
       [](const Mount& m) { return m.session.counters().undelivered; });
  Each(page, source, "fuse_interrupts_total", "Requests whose caller got a signal.",
       [](const Mount& m) { return m.session.counters().interrupts; });
  Each(page, source, "adopted_requests_total", "Requests run again for a dead predecessor.",
       [](const Mount& m) { return m.session.counters().adopted_requests; });
  Each(page, source, "adopted_answers_total", "Answers sent again for a dead predecessor.",
       [](const Mount& m) { return m.session.counters().adopted_answers; });
}

void AddVfs(Page& page, const MetricsSource& source) {
  using Mount = MetricsSource::Mount;
  page.Counter("attribute_lookups_total", "Attributes asked for, by where they came from.");
  for (const Mount& mount : source.mounts) {
    const vfs::Filesystem::Counters& counters = mount.filesystem.counters();
    page.Add(counters.attribute_hits, {{"mount", mount.mount_point}, {"from", "cache"}})
        .Add(counters.attribute_misses, {{"mount", mount.mount_point}, {"from", "server"}});
  }
  Each(page, source, "data_changes_total", "Files found changed on the server.",
       [](const Mount& m) { return m.filesystem.counters().data_changes; });
  Each(page, source, "handle_rebinds_total", "Open files taken up on another target or session.",
       [](const Mount& m) { return m.filesystem.counters().rebinds; });
  Each(page, source, "stale_handles_total", "Open files lost to a different file: ESTALE.",
       [](const Mount& m) { return m.filesystem.counters().stale_handles; });
  Each(page, source, "relisted_directories_total", "Directory listings taken up anew.",
       [](const Mount& m) { return m.filesystem.counters().relisted_directories; });
  Each(page, source, "lost_answers_total", "Changes that were sent and not answered.",
       [](const Mount& m) { return m.filesystem.counters().lost_answers; });
  Each(page, source, "unknown_changes_total",
       "Changes of which it never became known whether they were made: EIO.",
       [](const Mount& m) { return m.filesystem.counters().unknown_changes; });
  Each(page, source, "early_writes_total",
       "Writes that were answered before their server had them, by a write lease.",
       [](const Mount& m) { return m.filesystem.counters().early_writes; });
  Each(page, source, "early_write_failures_total", "Of those, the ones that failed afterwards.",
       [](const Mount& m) { return m.filesystem.counters().early_failures; });
  Each(page, source, "unproven_early_writes_total",
       "Of them, those whose lease was lost and whose file another machine may have changed.",
       [](const Mount& m) { return m.filesystem.counters().unproven_writes; });
  Each(page, source, "durable_reconnects_total",
       "Open files whose server had kept them while the connection was lost.",
       [](const Mount& m) { return m.filesystem.counters().durable_reconnects; });
  Each(page, source, "replayed_writes_total",
       "Writes that were lost with their server and sent to another copy (failover_writes=replay).",
       [](const Mount& m) { return m.filesystem.counters().replayed_writes; });
  Each(page, source, "older_copies_opened_total",
       "Files opened on a target whose copy is older than what this mount has written on another.",
       [](const Mount& m) { return m.filesystem.counters().older_copies; });
  Each(page, source, "retaken_locks_total",
       "Locked ranges taken again: takeover, failover, a server's restart.",
       [](const Mount& m) { return m.filesystem.counters().retaken_locks; });
  Each(page, source, "lost_locks_total", "Locked ranges that another machine had by then: EIO.",
       [](const Mount& m) { return m.filesystem.counters().lost_locks; });
  Each(page, source, "lease_breaks_total",
       "Leases of open files that a server took down, in part or as a whole.",
       [](const Mount& m) { return m.filesystem.counters().lease_breaks; });
  Each(page, source, "slow_operations_total",
       "Operations that took longer than a second, told when late and when answered (writes that "
       "were answered early: when their server had them).",
       [](const Mount& m) { return m.slow_operations; });
  Each(page, source, "last_known_answers_total", "Answers from last known values.",
       [](const Mount& m) { return m.filesystem.counters().last_known_answers; });
  Each(page, source, "refused_names_total", "Names from a server that no file system may have.",
       [](const Mount& m) { return m.filesystem.counters().refused_names; });
}

}  // namespace

std::string MetricsText(const MetricsSource& source) {
  Page page;
  AddNode(page, source);
  AddDfs(page, source);
  AddFuse(page, source);
  AddVfs(page, source);
  return page.Text();
}

}  // namespace dfscsi::agent
