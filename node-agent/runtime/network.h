// Sockets as the layers above see them: non-blocking calls, and waits for their next chance.

#ifndef NODE_AGENT_RUNTIME_NETWORK_H_
#define NODE_AGENT_RUNTIME_NETWORK_H_

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "node-agent/runtime/deadline.h"
#include "node-agent/runtime/task.h"

namespace dfscsi::runtime {

// An IP address, without a port. IPv4 is kept as IPv4.
class IpAddress {
 public:
  // "10.0.0.1" or "fd00::1"; nullopt for anything else (a name, say).
  static std::optional<IpAddress> Parse(absl::string_view text);
  static IpAddress V4(std::array<uint8_t, 4> bytes);
  static IpAddress V6(std::array<uint8_t, 16> bytes);

  bool is_v4() const { return v4_; }
  const std::array<uint8_t, 16>& bytes() const { return bytes_; }  // IPv4: the first four.
  bool IsLoopback() const;
  bool IsLinkLocal() const;
  bool IsUnspecified() const;
  std::string ToString() const;

  friend bool operator==(const IpAddress&, const IpAddress&) = default;
  friend auto operator<=>(const IpAddress&, const IpAddress&) = default;

 private:
  bool v4_ = true;
  std::array<uint8_t, 16> bytes_{};
};

struct SocketAddress {
  IpAddress address;
  uint16_t port = 0;
  std::string ToString() const;
  friend bool operator==(const SocketAddress&, const SocketAddress&) = default;
  friend auto operator<=>(const SocketAddress&, const SocketAddress&) = default;
};

// What TCP knows of the other side: the difference between a path that lost our packets and a
// server that has them and is silent.
struct TcpProgress {
  uint64_t unacked_bytes = 0;         // Sent or queued, and not acknowledged.
  uint32_t retransmits = 0;           // Of the oldest unacknowledged segment.
  uint64_t data_segments_in = 0;      // Grows by segments that wait for a lost one, too.
  absl::Duration since_last_receive;  // Since anything, even a bare acknowledgement, arrived.
};

// One connected byte stream. Destroying it closes it. Not thread-safe.
class Stream {
 public:
  virtual ~Stream() = default;

  // TryRead and TryWrite never wait. They return the bytes moved; 0 from TryRead is the end of the
  // stream; nullopt means "not now: wait first". An error (kUnavailable) is final for the stream.
  using Progress = absl::StatusOr<std::optional<size_t>>;
  virtual Progress TryRead(absl::Span<const iovec> into) = 0;
  virtual Progress TryWrite(absl::Span<const iovec> from) = 0;

  // Return OK when the next Try is worth while (it may still say "not now"). At most one wait of
  // each kind at a time.
  virtual Task<absl::Status> WaitReadable(Deadline deadline) = 0;
  virtual Task<absl::Status> WaitWritable(Deadline deadline) = 0;

  virtual TcpProgress progress() = 0;
  virtual SocketAddress peer() const = 0;
  // When it is destroyed, the other side sees a reset instead of an end. For test servers.
  virtual void ResetOnClose() = 0;

  // Convenience. Read: some bytes, 0 at the end. ReadFull: exactly `size`, kUnavailable if the
  // stream ends before. WriteAll: everything.
  Task<absl::StatusOr<size_t>> Read(void* into, size_t size, Deadline deadline);
  Task<absl::Status> ReadFull(void* into, size_t size, Deadline deadline);
  Task<absl::Status> WriteAll(const void* from, size_t size, Deadline deadline);
};

class Listener {
 public:
  virtual ~Listener() = default;
  virtual Task<absl::StatusOr<std::unique_ptr<Stream>>> Accept(Deadline deadline) = 0;
  virtual SocketAddress local() const = 0;
};

class Network {
 public:
  virtual ~Network() = default;

  // Connects to one address. Errors, all kUnavailable but the first: nothing was sent.
  //   kDeadlineExceeded, kCancelled
  //   "refused", "unreachable", "reset", … by message
  virtual Task<absl::StatusOr<std::unique_ptr<Stream>>> Connect(SocketAddress to,
                                                                Deadline deadline) = 0;

  // A server's socket (the scripted server; nothing that holds credentials listens).
  virtual absl::StatusOr<std::unique_ptr<Listener>> Listen(SocketAddress on) = 0;

  // Addresses of a host name, in the resolver's order; an address in text form is itself. Names
  // with a dot are asked as absolute first. Errors:
  //   kNotFound      the name does not exist (final for this name)
  //   kUnavailable   no name server answered (last known addresses may be used)
  virtual Task<absl::StatusOr<std::vector<IpAddress>>> Resolve(std::string name,
                                                               Deadline deadline) = 0;

  // Host and port of an SRV record set, in order of priority. Errors as of Resolve.
  struct Service {
    std::string host;
    uint16_t port;
  };
  virtual Task<absl::StatusOr<std::vector<Service>>> ResolveService(std::string name,
                                                                    Deadline deadline) = 0;

  // This node's own addresses, as they are now. Does not wait.
  virtual std::vector<IpAddress> OwnAddresses() = 0;
};

}  // namespace dfscsi::runtime

#endif  // NODE_AGENT_RUNTIME_NETWORK_H_
