#include "node-agent/fuse/reply.h"

#define FUSE_USE_VERSION 35
#include <errno.h>
#include <fuse_lowlevel.h>

#include <string>

#include "node-agent/vfs/errno.h"

namespace dfscsi::fuse {

Reply::~Reply() {
  if (request_ == nullptr) return;
  if (session_->closing()) {
    session_->Abandon(std::move(request_));
    return;
  }
  session_->CountUnanswered();
  if (request_->acknowledged()) {
    session_->LoseEarly(std::move(request_));
    return;
  }
  session_->CountError(EIO);
  Answer([](fuse_req* request) { return fuse_reply_err(request, EIO); });
}

void Reply::Send(const absl::Status& status) {
  const int error = vfs::ErrnoOf(status);
  if (error != 0 && !request_->acknowledged()) session_->CountError(error);
  if (vfs::Filesystem::IsKeptError(status)) request_->kept_error = error;
  Answer([error](fuse_req* request) { return fuse_reply_err(request, error); });
}

namespace {

fuse_entry_param ParametersOf(const vfs::EntryReply& entry) {
  fuse_entry_param parameters = {};
  parameters.ino = entry.node;
  parameters.attr = entry.attributes;
  parameters.attr_timeout = absl::ToDoubleSeconds(entry.attributes_timeout);
  parameters.entry_timeout = absl::ToDoubleSeconds(entry.name_timeout);
  return parameters;
}

fuse_file_info FileOf(const vfs::OpenReply& opened) {
  fuse_file_info file = {};
  file.fh = opened.fh;
  file.keep_cache = opened.keep_cache ? 1 : 0;
  file.direct_io = opened.direct_io ? 1 : 0;
  file.noflush = opened.no_flush ? 1 : 0;
  return file;
}

}  // namespace

bool EntryReply::Send(const vfs::EntryReply& entry) {
  const fuse_entry_param parameters = ParametersOf(entry);
  return Answer([&](fuse_req* request) { return fuse_reply_entry(request, &parameters); });
}

bool AttributesReply::Send(const vfs::AttributesReply& attributes) {
  set_born(attributes.born);
  return Answer([&](fuse_req* request) {
    return fuse_reply_attr(request, &attributes.attributes,
                           absl::ToDoubleSeconds(attributes.timeout));
  });
}

bool LinkReply::Send(const std::string& target) {
  return Answer([&](fuse_req* request) { return fuse_reply_readlink(request, target.c_str()); });
}

bool OpenReply::Send(const vfs::OpenReply& opened) {
  const fuse_file_info file = FileOf(opened);
  request_->opened = opened.fh;
  return Answer([&](fuse_req* request) { return fuse_reply_open(request, &file); });
}

bool CreateReply::Send(const vfs::CreateReply& created) {
  const fuse_entry_param entry = ParametersOf(created.entry);
  const fuse_file_info file = FileOf(created.open);
  request_->opened = created.open.fh;
  return Answer([&](fuse_req* request) { return fuse_reply_create(request, &entry, &file); });
}

bool WriteReply::Send(size_t bytes) {
  return Answer([bytes](fuse_req* request) { return fuse_reply_write(request, bytes); });
}

bool DataReply::Send(absl::Span<const uint8_t> bytes) {
  const iovec part{const_cast<uint8_t*>(bytes.data()), bytes.size()};
  return Answer(
      [&](fuse_req* request) { return fuse_reply_iov(request, &part, bytes.empty() ? 0 : 1); });
}

bool OffsetReply::Send(uint64_t offset) {
  return Answer(
      [&](fuse_req* request) { return fuse_reply_lseek(request, static_cast<off_t>(offset)); });
}

bool StatisticsReply::Send(const struct statvfs& statistics) {
  return Answer([&](fuse_req* request) { return fuse_reply_statfs(request, &statistics); });
}

bool LockReply::Send(const vfs::FileLock& lock) {
  struct flock answer = {};
  answer.l_type = lock.type == vfs::LockType::kExclusive ? F_WRLCK
                  : lock.type == vfs::LockType::kShared  ? F_RDLCK
                                                         : F_UNLCK;
  answer.l_whence = SEEK_SET;
  answer.l_start = static_cast<off_t>(lock.first);
  // libfuse says INT64_MAX for a length of 0.
  answer.l_len = lock.last >= INT64_MAX ? 0 : static_cast<off_t>(lock.last - lock.first + 1);
  answer.l_pid = static_cast<pid_t>(lock.pid);
  return Answer([&](fuse_req* request) { return fuse_reply_lock(request, &answer); });
}

bool XattrReply::Send(std::string_view value, size_t size) {
  return Answer([&](fuse_req* request) {
    if (size == 0) return fuse_reply_xattr(request, value.size());
    if (value.size() > size) return fuse_reply_err(request, ERANGE);
    return fuse_reply_buf(request, value.data(), value.size());
  });
}

}  // namespace dfscsi::fuse
