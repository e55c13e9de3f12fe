#include "node-agent/runtime/network.h"

#include <arpa/inet.h>

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"

namespace dfscsi::runtime {

std::optional<IpAddress> IpAddress::Parse(absl::string_view text) {
  const std::string terminated(text);
  IpAddress address;
  if (inet_pton(AF_INET, terminated.c_str(), address.bytes_.data()) == 1) return address;
  address.v4_ = false;
  address.bytes_ = {};
  if (inet_pton(AF_INET6, terminated.c_str(), address.bytes_.data()) == 1) return address;
  return std::nullopt;
}

IpAddress IpAddress::V4(std::array<uint8_t, 4> bytes) {
  IpAddress address;
  std::copy(bytes.begin(), bytes.end(), address.bytes_.begin());
  return address;
}

IpAddress IpAddress::V6(std::array<uint8_t, 16> bytes) {
  IpAddress address;
  address.v4_ = false;
  address.bytes_ = bytes;
  return address;
}

bool IpAddress::IsLoopback() const {
  if (v4_) return bytes_[0] == 127;
  std::array<uint8_t, 16> one{};
  one[15] = 1;
  return bytes_ == one;
}

bool IpAddress::IsLinkLocal() const {
  if (v4_) return bytes_[0] == 169 && bytes_[1] == 254;
  return bytes_[0] == 0xfe && (bytes_[1] & 0xc0) == 0x80;
}

bool IpAddress::IsUnspecified() const { return bytes_ == std::array<uint8_t, 16>{}; }

std::string IpAddress::ToString() const {
  char text[INET6_ADDRSTRLEN];
  inet_ntop(v4_ ? AF_INET : AF_INET6, bytes_.data(), text, sizeof text);
  return text;
}

std::string SocketAddress::ToString() const {
  return address.is_v4() ? absl::StrCat(address.ToString(), ":", port)
                         : absl::StrCat("[", address.ToString(), "]:", port);
}

Task<absl::StatusOr<size_t>> Stream::Read(void* into, size_t size, Deadline deadline) {
  const iovec where{into, size};
  while (true) {
    CO_ASSIGN_OR_RETURN(const std::optional<size_t> n, TryRead({&where, 1}));
    if (n.has_value()) co_return *n;
    CO_RETURN_IF_ERROR(co_await WaitReadable(deadline));
  }
}

Task<absl::Status> Stream::ReadFull(void* into, size_t size, Deadline deadline) {
  char* at = static_cast<char*>(into);
  while (size > 0) {
    CO_ASSIGN_OR_RETURN(const size_t n, co_await Read(at, size, deadline));
    if (n == 0) co_return absl::UnavailableError("the connection was closed by the other side");
    at += n;
    size -= n;
  }
  co_return absl::OkStatus();
}

Task<absl::Status> Stream::WriteAll(const void* from, size_t size, Deadline deadline) {
  const char* at = static_cast<const char*>(from);
  while (size > 0) {
    const iovec what{const_cast<char*>(at), size};
    CO_ASSIGN_OR_RETURN(const std::optional<size_t> n, TryWrite({&what, 1}));
    if (n.has_value()) {
      at += *n;
      size -= *n;
    } else {
      CO_RETURN_IF_ERROR(co_await WaitWritable(deadline));
    }
  }
  co_return absl::OkStatus();
}

}  // namespace dfscsi::runtime
