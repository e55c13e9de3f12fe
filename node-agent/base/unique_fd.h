// Owns one file descriptor and closes it once.

#ifndef NODE_AGENT_BASE_UNIQUE_FD_H_
#define NODE_AGENT_BASE_UNIQUE_FD_H_

#include <unistd.h>

#include <utility>

namespace dfscsi {

// Not thread-safe. A moved-from object is empty (get() == -1).
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) reset(std::exchange(other.fd_, -1));
    return *this;
  }
  UniqueFd(const UniqueFd&) = delete;
  UniqueFd& operator=(const UniqueFd&) = delete;
  ~UniqueFd() { reset(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

  // Gives the descriptor away; the caller closes it.
  [[nodiscard]] int release() { return std::exchange(fd_, -1); }

  // Closes the held descriptor, then holds `fd`. The error of close(2) is of no use to anybody
  // here: on Linux the descriptor is gone either way.
  void reset(int fd = -1) {
    const int old = std::exchange(fd_, fd);
    if (old >= 0) ::close(old);
  }

 private:
  int fd_ = -1;
};

}  // namespace dfscsi

#endif  // NODE_AGENT_BASE_UNIQUE_FD_H_
