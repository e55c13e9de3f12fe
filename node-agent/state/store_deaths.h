// For tests: runs a piece of code once for every store into shared memory that it makes, and kills
// it there.

#ifndef NODE_AGENT_STATE_STORE_DEATHS_H_
#define NODE_AGENT_STATE_STORE_DEATHS_H_

#include "node-agent/state/shared_memory.h"

namespace dfscsi::state {

struct Death {};

// While it lives, the `survive` + 1st store is the process's last: Death is thrown after it.
class DieAfterStores {
 public:
  explicit DieAfterStores(long survive) {
    left_ = survive;
    store_hook = [] {
      if (left_-- == 0) throw Death();
    };
  }
  ~DieAfterStores() { store_hook = nullptr; }

 private:
  static inline long left_ = 0;
};

// True: `body` ended by itself; false: it died.
template <typename F>
bool RunUntilStore(long survive, F body) {
  DieAfterStores death(survive);
  try {
    body();
    return true;
  } catch (const Death&) {
    return false;
  }
}

}  // namespace dfscsi::state

#endif  // NODE_AGENT_STATE_STORE_DEATHS_H_
