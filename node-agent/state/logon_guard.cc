#include "node-agent/state/logon_guard.h"

#include <string.h>
#include <sys/random.h>
#include <time.h>

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"

namespace dfscsi::state {
namespace {

constexpr uint64_t kMagic = 0x6472617567736664;  // "dfsguard"
constexpr uint32_t kGuardLayout = 1;

uint64_t Rotate(uint64_t value, int bits) { return value << bits | value >> (64 - bits); }

// SipHash-2-4 (Aumasson, Bernstein): the keys say nothing about users to whoever sees the memory,
// and nobody can make two of them collide.
class SipHash {
 public:
  explicit SipHash(const uint64_t key[2])
      : v0_(key[0] ^ 0x736f6d6570736575),
        v1_(key[1] ^ 0x646f72616e646f6d),
        v2_(key[0] ^ 0x6c7967656e657261),
        v3_(key[1] ^ 0x7465646279746573) {}

  uint64_t Hash(std::string_view text) {
    uint64_t word = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      word |= static_cast<uint64_t>(static_cast<unsigned char>(text[i])) << (i % 8 * 8);
      if (i % 8 == 7) {
        Compress(word);
        word = 0;
      }
    }
    Compress(word | static_cast<uint64_t>(text.size()) << 56);
    v2_ ^= 0xff;
    for (int i = 0; i < 4; ++i) Round();
    return v0_ ^ v1_ ^ v2_ ^ v3_;
  }

 private:
  void Compress(uint64_t word) {
    v3_ ^= word;
    Round();
    Round();
    v0_ ^= word;
  }
  void Round() {
    v0_ += v1_;
    v1_ = Rotate(v1_, 13) ^ v0_;
    v0_ = Rotate(v0_, 32);
    v2_ += v3_;
    v3_ = Rotate(v3_, 16) ^ v2_;
    v0_ += v3_;
    v3_ = Rotate(v3_, 21) ^ v0_;
    v2_ += v1_;
    v1_ = Rotate(v1_, 17) ^ v2_;
    v2_ = Rotate(v2_, 32);
  }

  uint64_t v0_, v1_, v2_, v3_;
};

}  // namespace

struct LogonGuard::Header {
  uint64_t magic;
  uint32_t layout_version;
  uint32_t reserved;
  uint64_t hash_key[2];
  Guid client_guid;
};

struct LogonGuard::Record {
  std::atomic<uint64_t> key;  // 0: free.
  std::atomic<int64_t> not_before_ns;
  std::atomic<uint64_t> session_id;
  std::atomic<int64_t> used_ns;
};

absl::StatusOr<UniqueFd> LogonGuard::Create() {
  static_assert(sizeof(Header) + kRecords * sizeof(Record) <= kBytes);
  ASSIGN_OR_RETURN(UniqueFd fd, CreateSharedMemory("dfs-logon-guard", kBytes));
  ASSIGN_OR_RETURN(SharedMemory memory, SharedMemory::Map(fd.get(), kBytes));
  Header header = {};
  header.magic = kMagic;
  header.layout_version = kGuardLayout;
  if (getrandom(header.hash_key, sizeof(header.hash_key), 0) != sizeof(header.hash_key) ||
      getrandom(header.client_guid.data(), sizeof(Guid), 0) != sizeof(Guid)) {
    return absl::UnavailableError("getrandom");
  }
  memcpy(memory.data(), &header, sizeof(header));
  return fd;
}

absl::StatusOr<LogonGuard> LogonGuard::Map(int fd) {
  ASSIGN_OR_RETURN(SharedMemory memory, SharedMemory::Map(fd, kBytes));
  const Header* header = reinterpret_cast<const Header*>(memory.data());
  if (header->magic != kMagic || header->layout_version != kGuardLayout) {
    return absl::FailedPreconditionError(absl::StrCat(
        "log-on guard of layout ", header->layout_version, ", this program reads ", kGuardLayout));
  }
  return LogonGuard(std::move(memory));
}

LogonGuard::Header* LogonGuard::header() const { return reinterpret_cast<Header*>(memory_.data()); }

LogonGuard::Record* LogonGuard::records() const {
  return reinterpret_cast<Record*>(memory_.data() + sizeof(Header));
}

const Guid& LogonGuard::client_guid() const { return header()->client_guid; }

uint64_t LogonGuard::Key(std::string_view target, std::string_view credential) const {
  // The length keeps ("ab", "c") and ("a", "bc") apart.
  std::string text = absl::StrCat(target.size(), ":");
  text.append(target).append(credential);
  const uint64_t key = SipHash(header()->hash_key).Hash(text);
  explicit_bzero(text.data(), text.size());  // `credential` may hold what is to be kept secret.
  return std::max<uint64_t>(key, 1);
}

LogonGuard::Record* LogonGuard::Find(uint64_t key) const {
  for (int i = 0; i < kRecords; ++i) {
    if (Load(records()[i].key) == key) return &records()[i];
  }
  return nullptr;
}

LogonGuard::Record* LogonGuard::FindOrTake(uint64_t key) {
  if (Record* found = Find(key)) return found;
  Record* oldest = &records()[0];
  for (int i = 0; i < kRecords; ++i) {
    Record* const record = &records()[i];
    if (Load(record->key) == 0) {
      oldest = record;
      break;
    }
    if (Load(record->used_ns) < Load(oldest->used_ns)) oldest = record;
  }
  Store(oldest->key, 0);
  Store(oldest->not_before_ns, 0);
  Store(oldest->session_id, 0);
  return oldest;
}

absl::Duration LogonGuard::NotBefore(uint64_t key) const {
  absl::MutexLock lock(&mutex_);
  const Record* const record = Find(key);
  return absl::Nanoseconds(record == nullptr ? 0 : Load(record->not_before_ns));
}

void LogonGuard::Refuse(uint64_t key, absl::Duration not_before) {
  absl::MutexLock lock(&mutex_);
  Record* const record = FindOrTake(key);
  Store(record->not_before_ns, absl::ToInt64Nanoseconds(not_before));
  Store(record->used_ns, absl::ToInt64Nanoseconds(BoottimeNow()));
  Store(record->key, key);
}

void LogonGuard::ForgiveAll() {
  absl::MutexLock lock(&mutex_);
  for (int i = 0; i < kRecords; ++i) Store(records()[i].not_before_ns, 0);
}

void LogonGuard::Accept(uint64_t key, uint64_t session_id) {
  absl::MutexLock lock(&mutex_);
  Record* const record = FindOrTake(key);
  Store(record->not_before_ns, 0);
  Store(record->session_id, session_id);
  Store(record->used_ns, absl::ToInt64Nanoseconds(BoottimeNow()));
  Store(record->key, key);
}

uint64_t LogonGuard::PreviousSessionId(uint64_t key) const {
  absl::MutexLock lock(&mutex_);
  const Record* const record = Find(key);
  return record == nullptr ? 0 : Load(record->session_id);
}

absl::Duration BoottimeNow() {
  timespec now;
  clock_gettime(CLOCK_BOOTTIME, &now);
  return absl::DurationFromTimespec(now);
}

}  // namespace dfscsi::state
