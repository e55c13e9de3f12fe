// The kernel's side of /dev/fuse, for tests: a SOCK_SEQPACKET pair keeps one message one read, as
// the device does. What it cannot do is refuse an answer (ENOENT): tests of that need a real mount.

#ifndef NODE_AGENT_TESTING_FAKE_FUSE_KERNEL_H_
#define NODE_AGENT_TESTING_FAKE_FUSE_KERNEL_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "node-agent/base/unique_fd.h"

namespace dfscsi::testing {

class FakeFuseKernel {
 public:
  FakeFuseKernel();

  // The daemon's fd, non-blocking. Every call gives another reference to the same connection, as
  // the mounter does to one agent after another.
  UniqueFd OpenDevice() const;
  // Where answers can be waited for.
  int fd() const { return kernel_end_.get(); }

  // FUSE_INIT as this kernel "sent" it when the mount was made.
  static std::string InitIn();

  // The pid of the processes that ask.
  void set_pid(uint32_t pid) { pid_ = pid; }

  // Sends a request; returns its unique.
  uint64_t Send(uint32_t opcode, uint64_t node, std::string_view body = {});
  // A request that gets its unique now and is sent later.
  uint64_t Reserve() { return next_unique_ += 2; }
  void SendReserved(uint64_t unique, uint32_t opcode, uint64_t node, std::string_view body);

  uint64_t SendLookup(uint64_t parent, std::string_view name);
  uint64_t SendOpen(uint64_t node, uint32_t flags = 0);
  uint64_t SendRead(uint64_t node, uint64_t fh, uint64_t offset, uint32_t size);
  uint64_t SendReadDirectory(bool plus, uint64_t fh, uint64_t offset, uint32_t size);
  void SendInterrupt(uint64_t unique);
  void SendForget(uint64_t node, uint64_t lookups);

  struct Answer {
    uint64_t unique = 0;
    int error = 0;  // Positive.
    std::string body;
  };
  // The next answer, if there is one now.
  std::optional<Answer> TryReceive();

  // INTERRUPT's own unique is its request's with this bit.
  static constexpr uint64_t kInterruptBit = 1;

 private:
  UniqueFd kernel_end_;
  UniqueFd daemon_end_;
  uint64_t next_unique_ = 0;
  std::vector<char> buffer_;  // Of TryReceive().
  uint32_t pid_ = 0;
};

// The bytes of a struct, as a request's body.
template <typename T>
std::string_view BytesOf(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof(value)};
}

}  // namespace dfscsi::testing

#endif  // NODE_AGENT_TESTING_FAKE_FUSE_KERNEL_H_
