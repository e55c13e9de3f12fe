// A mutex that clang's thread-safety analysis and ThreadSanitizer both understand. (Debian's
// absl::Mutex is invisible to TSan.)

#ifndef NODE_AGENT_BASE_MUTEX_H_
#define NODE_AGENT_BASE_MUTEX_H_

#include <mutex>

#include "absl/base/thread_annotations.h"

namespace dfscsi {

// For state that loops share. Held for a few lines, never across I/O or co_await; coroutines that
// must wait for each other use runtime::Mutex.
class ABSL_LOCKABLE Mutex {
 public:
  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() { mutex_.lock(); }
  void Unlock() ABSL_UNLOCK_FUNCTION() { mutex_.unlock(); }

 private:
  std::mutex mutex_;
};

class ABSL_SCOPED_LOCKABLE MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) ABSL_EXCLUSIVE_LOCK_FUNCTION(mutex) : mutex_(mutex) {
    mutex_.Lock();
  }
  ~MutexLock() ABSL_UNLOCK_FUNCTION() { mutex_.Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

}  // namespace dfscsi

#endif  // NODE_AGENT_BASE_MUTEX_H_
