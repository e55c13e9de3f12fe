// Names that are being changed on a server while nobody knows how far that is: from when UNLINK or
// RENAME is sent until the tables say what became of it. What is open by such a name must not be
// opened by it again meanwhile: it may be nobody's any more, or another file's.

#ifndef NODE_AGENT_VFS_NAME_DOUBTS_H_
#define NODE_AGENT_VFS_NAME_DOUBTS_H_

#include <cstdint>
#include <list>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "node-agent/dfs/path.h"
#include "node-agent/runtime/deadline.h"
#include "node-agent/runtime/task.h"
#include "node-agent/runtime/wait.h"

namespace dfscsi::vfs {

// Not thread-safe; one loop. Held by shared_ptr: a request may outlive its mount for a moment.
class NameDoubts {
  struct Record;

 public:
  // Of some names and of all that is below them, from Begin() until it dies.
  class [[nodiscard]] Doubt {
   public:
    Doubt(std::shared_ptr<NameDoubts> names, std::vector<dfs::DfsPath> paths)
        : names_(std::move(names)), paths_(std::move(paths)) {}
    Doubt(const Doubt&) = delete;
    ~Doubt();
    // Again: of no effect.
    void Begin();

   private:
    const std::shared_ptr<NameDoubts> names_;
    std::vector<dfs::DfsPath> paths_;
    std::list<Record>::iterator record_;
    bool begun_ = false;
  };

  // An OPEN by that name is on its way, from its making until it dies. Who makes one when the name
  // is not in doubt, and it is in doubt then, closes what was opened.
  class [[nodiscard]] Opening {
   public:
    Opening(std::shared_ptr<NameDoubts> names, dfs::DfsPath path)
        : names_(std::move(names)),
          path_(names_->opening_.insert(names_->opening_.end(), std::move(path))) {}
    Opening(const Opening&) = delete;
    ~Opening();

   private:
    const std::shared_ptr<NameDoubts> names_;
    const std::list<dfs::DfsPath>::iterator path_;
  };
  bool IsBeingOpened(const dfs::DfsPath& path) const;
  // Until it is not. As AwaitSettled().
  runtime::Task<absl::Status> AwaitOpened(dfs::DfsPath path, runtime::Deadline deadline);

  // An instant: it grows with each doubt that ends.
  uint64_t now() const { return now_; }
  // True if the name is in doubt, or was since that instant. (Or may have been: not all are kept.)
  bool Touched(const dfs::DfsPath& path, uint64_t since) const;
  bool IsInDoubt(const dfs::DfsPath& path) const;
  // Until it is not. kCancelled, kDeadlineExceeded.
  runtime::Task<absl::Status> AwaitSettled(dfs::DfsPath path, runtime::Deadline deadline);

 private:
  static constexpr uint64_t kNotEnded = ~uint64_t{0};
  static constexpr size_t kMostEnded = 128;

  struct Record {
    std::vector<dfs::DfsPath> paths;
    uint64_t ended = kNotEnded;
  };

  std::list<Record> doubts_;
  std::list<Record> ended_;  // The latest, in their order.
  uint64_t forgotten_ = 0;   // When the latest ended that is not kept any more.
  uint64_t now_ = 1;
  runtime::Condition settled_;
  std::list<dfs::DfsPath> opening_;
  runtime::Condition opened_;
};

}  // namespace dfscsi::vfs

#endif  // NODE_AGENT_VFS_NAME_DOUBTS_H_
