// Answers to FUSE requests: typed, move-only, given exactly once. A reply that dies unanswered (an
// exception ended its operation: a bug, or no memory) answers EIO and is counted.

#ifndef NODE_AGENT_FUSE_REPLY_H_
#define NODE_AGENT_FUSE_REPLY_H_

#include <sys/statvfs.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "node-agent/fuse/buffer_pool.h"
#include "node-agent/fuse/session.h"
#include "node-agent/vfs/filesystem.h"

namespace dfscsi::fuse {

class Reply {
 public:
  Reply(Session& session, fuse_req* libfuse)
      : session_(&session), request_(session.Begin(libfuse)) {}
  Reply(Reply&& other) noexcept : session_(other.session_), request_(std::move(other.request_)) {}
  Reply& operator=(Reply&&) = delete;
  ~Reply();

  // Ends when the caller's process has been interrupted. Never by time: a hard mount waits.
  runtime::Deadline deadline() const { return request_->cancel.deadline(); }

  // What is remembered of a change across our death; lives as long as this.
  vfs::ChangeJournal* journal() { return request_.get(); }

  // An error; OK is "done", for requests that are answered with nothing else.
  void Send(const absl::Status& status);

 protected:
  void set_born(std::optional<absl::Time> born) { request_->born = born; }
  bool Answer(absl::FunctionRef<int(fuse_req*)> reply) {
    return session_->Answer(std::move(request_), reply);
  }

  Session* session_;
  std::unique_ptr<Request> request_;
};

// Each Send returns false if the kernel did not take the answer: what was counted or opened for it
// must be taken back.

struct StatusReply : Reply {
  using Reply::Reply;
};

struct EntryReply : Reply {
  using Reply::Reply;
  using Reply::Send;
  bool Send(const vfs::EntryReply& entry);
};

struct AttributesReply : Reply {
  using Reply::Reply;
  using Reply::Send;
  bool Send(const vfs::AttributesReply& attributes);
};

struct LinkReply : Reply {
  using Reply::Reply;
  using Reply::Send;
  bool Send(const std::string& target);
};

struct OpenReply : Reply {
  using Reply::Reply;
  using Reply::Send;
  bool Send(const vfs::OpenReply& opened);
};

struct CreateReply : Reply {
  using Reply::Reply;
  using Reply::Send;
  bool Send(const vfs::CreateReply& created);
};

struct WriteReply : Reply {
  using Reply::Reply;
  using Reply::Send;
  // It may be acknowledged before its server has it (vfs::ChangeJournal::Acknowledge).
  void AllowEarly() { request_->may_answer_early = true; }
  void SetOfPages() { request_->of_pages = true; }
  bool Send(size_t bytes);
};

struct DataReply : Reply {
  using Reply::Reply;
  using Reply::Send;
  bool Send(absl::Span<const uint8_t> bytes);
};

struct OffsetReply : Reply {
  using Reply::Reply;
  using Reply::Send;
  bool Send(uint64_t offset);
};

struct StatisticsReply : Reply {
  using Reply::Reply;
  using Reply::Send;
  bool Send(const struct statvfs& statistics);
};

struct LockReply : Reply {
  using Reply::Reply;
  using Reply::Send;
  bool Send(const vfs::FileLock& lock);
};

// GETXATTR and LISTXATTR: how long the value is if `size` is 0, else the value, else ERANGE.
struct XattrReply : Reply {
  using Reply::Reply;
  using Reply::Send;
  bool Send(std::string_view value, size_t size);
};

}  // namespace dfscsi::fuse

#endif  // NODE_AGENT_FUSE_REPLY_H_
