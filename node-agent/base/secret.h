// A string that cannot be printed, logged or compared by accident, lies in memory of its own
// (secret_memory.h), and is wiped when it dies.

#ifndef NODE_AGENT_BASE_SECRET_H_
#define NODE_AGENT_BASE_SECRET_H_

#include <string.h>

#include <string>
#include <string_view>
#include <utility>

#include "node-agent/base/secret_memory.h"

namespace dfscsi {

// Passwords, keys, tickets. There is no operator<<, no AbslStringify, no conversion: what needs the
// bytes says Expose(), which is easy to find in a review.
class Secret {
 public:
  Secret() = default;
  explicit Secret(std::string_view bytes) : Secret(WithRoom(bytes.size())) {
    if (!bytes.empty()) memcpy(bytes_, bytes.data(), bytes.size());
  }
  explicit Secret(const char* text) : Secret(std::string_view(text)) {}
  // Wipes the string that the secret came in, which moving it would not (short strings).
  explicit Secret(std::string&& value) : Secret(std::string_view(value)) {
    explicit_bzero(value.data(), value.capacity());
    value.clear();
  }
  Secret(const Secret& other) : Secret(other.Expose()) {}
  Secret(Secret&& other) noexcept { Swap(other); }
  Secret& operator=(Secret other) noexcept {
    Swap(other);
    return *this;
  }
  ~Secret() {
    if (bytes_ != nullptr) SecretMemory::Free(bytes_, room_ + 1);
  }

  // `size` zeroes, for who reads or receives a secret: it fills data(), then says how much it was.
  static Secret WithRoom(size_t size) {
    Secret secret;
    if (size == 0) return secret;
    secret.bytes_ = SecretMemory::Allocate(size + 1);
    secret.room_ = secret.size_ = size;
    return secret;
  }
  char* data() { return bytes_; }
  // REQUIRES: size <= the present one.
  void Truncate(size_t size) {
    if (bytes_ != nullptr) explicit_bzero(bytes_ + size, size_ - size);
    size_ = size;
  }

  // A NUL follows the bytes.
  std::string_view Expose() const {
    return bytes_ == nullptr ? std::string_view("") : std::string_view(bytes_, size_);
  }
  bool empty() const { return size_ == 0; }

  // Equality reveals nothing but equality; it is how a rotated credential is noticed.
  friend bool operator==(const Secret& a, const Secret& b) { return a.Expose() == b.Expose(); }

 private:
  void Swap(Secret& other) noexcept {
    std::swap(bytes_, other.bytes_);
    std::swap(room_, other.room_);
    std::swap(size_, other.size_);
  }

  char* bytes_ = nullptr;
  size_t room_ = 0;  // Bytes of `bytes_`, without the NUL.
  size_t size_ = 0;
};

}  // namespace dfscsi

#endif  // NODE_AGENT_BASE_SECRET_H_
