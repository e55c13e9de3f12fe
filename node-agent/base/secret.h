// A string that cannot be printed, logged or compared by accident, and is wiped when it dies.

#ifndef NODE_AGENT_BASE_SECRET_H_
#define NODE_AGENT_BASE_SECRET_H_

#include <string.h>

#include <string>
#include <string_view>
#include <utility>

namespace dfscsi {

// Passwords, keys, tickets. There is no operator<<, no AbslStringify, no conversion: what needs the
// bytes says Expose(), which is easy to find in a review.
class Secret {
 public:
  Secret() = default;
  explicit Secret(std::string value) : value_(std::move(value)) {}
  Secret(const Secret&) = default;
  // Swapping leaves short strings' bytes in an object that wipes them in its own destructor.
  Secret(Secret&& other) noexcept { value_.swap(other.value_); }
  Secret& operator=(Secret other) noexcept {
    value_.swap(other.value_);
    return *this;
  }
  ~Secret() { explicit_bzero(value_.data(), value_.capacity()); }

  std::string_view Expose() const { return value_; }
  bool empty() const { return value_.empty(); }

  // Equality reveals nothing but equality; it is how a rotated credential is noticed.
  friend bool operator==(const Secret& a, const Secret& b) { return a.value_ == b.value_; }

 private:
  std::string value_;
};

}  // namespace dfscsi

#endif  // NODE_AGENT_BASE_SECRET_H_
