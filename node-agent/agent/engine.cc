#include "node-agent/agent/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "node-agent/base/log.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/base/unique_fd.h"
#include "node-agent/runtime/blocking.h"

namespace dfscsi::agent {
namespace {

// Reply buffers that are kept ready: what the read-ahead of 16 sequential readers has in flight.
// Beyond it a buffer is mapped when it is needed, which costs as much as the rest of its read.
constexpr size_t kBufferBytes = 128 << 20;
constexpr size_t kLargestCacheFile = 256 << 20;

// Equal keys: the same pool will do.
std::string KeyOf(const smb::Options& options) {
  std::string key = absl::StrCat(
      static_cast<int>(options.lowest_dialect), "/", static_cast<int>(options.highest_dialect), "/",
      static_cast<int>(options.signing), "/", static_cast<int>(options.encryption), "/",
      options.port, "/", options.port_host, "/", absl::ToInt64Microseconds(options.connect_timeout),
      "/", absl::ToInt64Microseconds(options.address_stagger), "/",
      absl::ToInt64Microseconds(options.suspect_after), "/",
      absl::ToInt64Microseconds(options.idle_timeout), "/", options.max_read_bytes);
  for (const auto id : options.signing_algorithms)
    absl::StrAppend(&key, "/s", static_cast<int>(id));
  for (const auto id : options.ciphers) absl::StrAppend(&key, "/c", static_cast<int>(id));
  return key;
}

absl::StatusOr<std::string> ReadWhole(const std::string& path) {
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd) return absl::ErrnoToStatus(errno, path);
  std::string content;
  char part[65536];
  ssize_t n;
  while ((n = read(fd.get(), part, sizeof(part))) > 0) {
    content.append(part, static_cast<size_t>(n));
    if (content.size() > kLargestCacheFile) return absl::DataLossError("too large");
  }
  if (n < 0) return absl::ErrnoToStatus(errno, path);
  return content;
}

// Atomic: a reader finds the old file or the new one, also after a power failure.
absl::Status ReplaceFile(const std::string& path, const std::string& content) {
  const std::string temporary = absl::StrCat(path, ".new");
  const UniqueFd fd(
      open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd) return absl::ErrnoToStatus(errno, temporary);
  size_t written = 0;
  while (written < content.size()) {
    const ssize_t n = write(fd.get(), content.data() + written, content.size() - written);
    if (n < 0) return absl::ErrnoToStatus(errno, temporary);
    written += static_cast<size_t>(n);
  }
  if (fdatasync(fd.get()) != 0) return absl::ErrnoToStatus(errno, temporary);
  if (rename(temporary.c_str(), path.c_str()) != 0) return absl::ErrnoToStatus(errno, path);
  return absl::OkStatus();
}

dfs::ReferralCache::Options CacheOptions(runtime::RealLoop& loop) {
  dfs::ReferralCache::Options options;
  options.hash_seed = loop.Random();
  return options;
}

}  // namespace

Engine::Engine(Outside outside)
    : sessions(outside.guard),
      cache(CacheOptions(outside.loop)),
      room(outside.arena, outside.grow_arena),
      buffers(kBufferBytes),
      notifier(outside.loop, outside.notifier_program),
      outside_(std::move(outside)) {}

Engine::~Engine() = default;

std::shared_ptr<smb::SessionPool> Engine::GetPool(smb::Options options) {
  const state::Guid& guid = outside_.guard.client_guid();
  static_assert(sizeof(options.client_guid) == sizeof(guid));
  memcpy(&options.client_guid, guid.data(), guid.size());
  std::weak_ptr<smb::SessionPool>& slot = pools_[KeyOf(options)];
  std::shared_ptr<smb::SessionPool> pool = slot.lock();
  if (pool == nullptr) {
    pool =
        std::make_shared<smb::SessionPool>(std::move(options), outside_.authenticators, &sessions);
    slot = pool;
  }
  std::erase_if(pools_, [](const auto& entry) { return entry.second.expired(); });
  return pool;
}

void Engine::ForEachPool(const std::function<void(const smb::SessionPool&)>& visit) const {
  for (const auto& [key, slot] : pools_) {
    if (const std::shared_ptr<smb::SessionPool> pool = slot.lock()) visit(*pool);
  }
}

void Engine::LoadCache() {
  if (outside_.cache_file.empty()) return;
  const absl::StatusOr<std::string> file = ReadWhole(outside_.cache_file);
  if (absl::IsNotFound(file.status())) return;
  absl::Status status = file.status();
  if (status.ok()) status = cache.Load(*file, loop().Now(), absl::Now());
  if (!status.ok()) LogWarning("referral cache ", outside_.cache_file, ": ", status.message());
  saved_state_ = CacheState();
}

std::pair<int64_t, int64_t> Engine::CacheState() const {
  const dfs::ReferralCache::Counters counters = cache.GetCounters();
  return {counters.entries, counters.misses};
}

bool Engine::CacheChanged() const { return CacheState() != saved_state_; }

runtime::Task<void> Engine::SaveCache(runtime::Deadline deadline) {
  if (outside_.cache_file.empty()) co_return;
  saved_state_ = CacheState();
  std::function<absl::StatusOr<bool>()> write =
      [path = outside_.cache_file,
       content = cache.Save(loop().Now(), absl::Now())]() -> absl::StatusOr<bool> {
    RETURN_IF_ERROR(ReplaceFile(path, content));
    return true;
  };
  const absl::StatusOr<bool> written =
      co_await runtime::Blocking<bool>(std::move(write), std::move(deadline));
  if (!written.ok()) LogWarning("referral cache: ", written.status().message());
}

}  // namespace dfscsi::agent
