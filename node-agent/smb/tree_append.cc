// Appending where the server does not append by itself: LOCK, QUERY_INFO; WRITE, LOCK (unlock).
// Two frames, if nobody else holds the lock. Why so: docs/adr/0006-appending-under-a-lock.md.

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/runtime/loop.h"
#include "node-agent/runtime/wait.h"
#include "node-agent/smb/session.h"
#include "node-agent/smb/tree.h"
#include "node-agent/smb/tree_internal.h"
#include "node-agent/smb/wire/file_information.h"
#include "node-agent/smb/wire/io.h"
#include "node-agent/smb/wire/query.h"

namespace dfscsi::smb {
namespace {

using runtime::Deadline;
using runtime::Task;
using wire::NtStatus;

// One byte that no file has, and that no lock of POSIX reaches.
constexpr wire::FileRange kEndLock{.offset = uint64_t{1} << 63, .length_bytes = 1};
// What is copied into a frame with the unlock: one credit's worth.
constexpr size_t kMostInOneFrame = 65536;
// Where the server does not let a lock wait.
constexpr absl::Duration kAskAgain = absl::Milliseconds(20);
constexpr uint32_t kStandardAnswerBytes = 64;

std::vector<wire::LockElement> EndLock(uint32_t flags) {
  return {{.offset = kEndLock.offset, .length_bytes = kEndLock.length_bytes, .flags = flags}};
}

bool IsHeldByOthers(NtStatus status) {
  return status == NtStatus::kLockNotGranted || status == NtStatus::kFileLockConflict;
}

bool HasNoLocks(NtStatus status) {
  switch (status) {
    case NtStatus::kNotSupported:
    case NtStatus::kNotImplemented:
    case NtStatus::kInvalidDeviceRequest:
    case NtStatus::kInvalidParameter:
    case NtStatus::kInvalidLockRange:
    case NtStatus::kAccessDenied:
      return true;
    default:
      return false;
  }
}

absl::Status LockError(NtStatus status) {
  if (HasNoLocks(status)) return absl::UnimplementedError("the server gives no lock to append by");
  return wire::ToStatus(status, "LOCK");
}

// What a server refuses of the rest has not been refused of the whole.
absl::Status PartError(const absl::Status& status, size_t written) {
  if (!wire::NtStatusOf(status).has_value() && !absl::IsUnknown(status) &&
      !absl::IsUnimplemented(status)) {
    return status;
  }
  return absl::UnknownError(
      absl::StrCat("of an append, ", written, " bytes were written: ", status.message()));
}

Request MakeEndQuery(const wire::FileId& file_id) {
  const wire::QueryInfoRequest query{
      .info_class = static_cast<uint8_t>(wire::FileInfoClass::kStandard),
      .max_output_bytes = kStandardAnswerBytes,
      .file_id = file_id,
      .input = {}};
  Request request = MakeRequest(wire::Command::kQueryInfo, wire::EncodeQueryInfoRequest, query);
  request.largest_payload_bytes = kStandardAnswerBytes;
  return request;
}

absl::StatusOr<uint64_t> EndOf(const Response& response) {
  if (!wire::IsSuccess(response.header.status)) {
    return wire::ToStatus(response.header.status, "QUERY_INFO");
  }
  ASSIGN_OR_RETURN(const wire::Bytes output, wire::DecodeOutputBuffer(response.body()));
  ASSIGN_OR_RETURN(const wire::StandardInformation standard,
                   wire::DecodeStandardInformation(output));
  return standard.end_of_file;
}

}  // namespace

Task<absl::StatusOr<uint64_t>> Tree::LockEnd(wire::FileId file_id, Deadline deadline) {
  std::vector<Request> requests;
  // A lock that waits must not stand before something else in a frame ([MS-SMB2] 3.3.5.2.7.2).
  requests.push_back(
      MakeLock(file_id, EndLock(wire::kLockExclusive | wire::kLockFailImmediately), 0));
  requests.push_back(MakeEndQuery(wire::kNoFileId));
  requests.back().related = true;
  CO_ASSIGN_OR_RETURN(const std::vector<Response> responses,
                      co_await Call(std::move(requests), deadline));
  const NtStatus locked = responses[0].header.status;
  absl::StatusOr<uint64_t> end = absl::UnknownError("not asked");
  if (wire::IsSuccess(locked)) {
    end = EndOf(responses[1]);
  } else if (!IsHeldByOthers(locked)) {
    co_return LockError(locked);
  } else {
    absl::Status status;
    do {
      status = co_await Lock(file_id, EndLock(wire::kLockExclusive), 0, deadline);
      const std::optional<NtStatus> answer = wire::NtStatusOf(status);
      if (!answer.has_value() || !IsHeldByOthers(*answer)) break;
      CO_RETURN_IF_ERROR(co_await runtime::Sleep(kAskAgain, deadline));
    } while (true);
    CO_RETURN_IF_ERROR(status);
    const absl::StatusOr<Response> answer = co_await CallOne(MakeEndQuery(file_id), deadline);
    end = answer.ok() ? EndOf(*answer) : answer.status();
  }
  if (!end.ok()) UnlockLater(file_id, {kEndLock});
  co_return end;
}

Task<void> Tree::UnlockEnd(wire::FileId file_id, Deadline deadline) {
  // Once, whoever gives up waiting for it: a second one could be of another append's lock.
  struct Unlocking {
    static Task<void> Run(std::shared_ptr<Tree> tree, wire::FileId file_id,
                          std::shared_ptr<runtime::Event> done) {
      const absl::Status status =
          co_await tree->Unlock(file_id, {kEndLock}, 0, Deadline::After(kUnwaited));
      // With the handle goes the lock, whatever else is the matter. Who holds the handle opens it
      // anew.
      if (!status.ok() && wire::NtStatusOf(status) != NtStatus::kRangeNotLocked) {
        tree->CloseLater(file_id);
      }
      done->Set();
    }
  };
  const auto done = std::make_shared<runtime::Event>();
  runtime::Loop::Current().Spawn(Unlocking::Run(shared_from_this(), file_id, done));
  (void)co_await done->WaitUntilSet(std::move(deadline));
}

Task<absl::StatusOr<size_t>> Tree::WriteAndUnlock(wire::FileId file_id, uint64_t offset,
                                                  wire::Bytes from, Deadline deadline) {
  const wire::WriteRequest write{.file_id = file_id,
                                 .offset = offset,
                                 .length_bytes = static_cast<uint32_t>(from.size()),
                                 .payload = {}};
  std::vector<Request> requests;
  requests.push_back(MakeRequest(wire::Command::kWrite, wire::EncodeWriteRequest, write));
  requests.back().largest_payload_bytes = write.length_bytes;
  // Only the last part of a frame is sent from where its bytes lie.
  requests.back().message.insert(requests.back().message.end(), from.begin(), from.end());
  const wire::LockRequest unlock{
      .lock_sequence = 0, .file_id = wire::kNoFileId, .locks = EndLock(wire::kLockUnlock)};
  // Related, or the server may execute it first.
  requests.push_back(MakeRequest(wire::Command::kLock, wire::EncodeLockRequest, unlock));
  requests.back().related = true;
  CO_ASSIGN_OR_RETURN(const std::vector<Response> responses,
                      co_await Call(std::move(requests), deadline));
  if (!wire::IsSuccess(responses[1].header.status)) co_await UnlockEnd(file_id, deadline);
  if (!wire::IsSuccess(responses[0].header.status)) {
    co_return wire::ToStatus(responses[0].header.status, "WRITE");
  }
  CO_ASSIGN_OR_RETURN(const wire::WriteResponse answer,
                      wire::DecodeWriteResponse(responses[0].body()));
  if (answer.written_bytes > from.size()) {
    co_return Broken("a WRITE was answered with more than was written");
  }
  if (answer.written_bytes == 0) co_return wire::ToStatus(NtStatus::kDiskFull, "WRITE");
  co_return answer.written_bytes;
}

Task<absl::StatusOr<uint64_t>> Tree::AppendLocked(wire::FileId file_id, wire::Bytes from,
                                                  std::function<void(uint64_t)> sending,
                                                  Deadline deadline, size_t* written_bytes) {
  if (written_bytes != nullptr) *written_bytes = 0;
  CO_ASSIGN_OR_RETURN(const uint64_t begin, co_await LockEnd(file_id, deadline));
  sending(begin);
  if (from.size() > std::min<size_t>(kMostInOneFrame, session_->connection().max_write_bytes())) {
    // Given up in the middle, what is on its way is still executed, and the lock may go after it
    // only: it goes on by itself. Closing the handle would do, but others' locks may be on it.
    struct Piecewise {
      static Task<void> Run(std::shared_ptr<Tree> tree, wire::FileId file_id, uint64_t begin,
                            std::shared_ptr<Piecewise> piecewise) {
        const wire::Bytes from(piecewise->text);
        const size_t most = tree->session_->connection().max_write_bytes();
        absl::Status& status = piecewise->status;
        // A server that is silent loses its connection. In order: what is missing of it, if the
        // answer is lost, is its end.
        for (size_t done = 0; done < from.size() && status.ok(); done += most) {
          status =
              co_await tree->WriteOnce(file_id, begin + done, from.subspan(done, most),
                                       Deadline::Never(), {.written_bytes = &piecewise->written});
        }
        co_await tree->UnlockEnd(file_id, Deadline::Never());
        piecewise->done.Set();
      }
      std::vector<uint8_t> text;
      absl::Status status;
      size_t written = 0;
      runtime::Event done;
    };
    const auto piecewise = std::make_shared<Piecewise>();
    piecewise->text.assign(from.begin(), from.end());
    runtime::Loop::Current().Spawn(Piecewise::Run(shared_from_this(), file_id, begin, piecewise));
    CO_RETURN_IF_ERROR(co_await piecewise->done.WaitUntilSet(deadline));
    if (wire::NtStatusOf(piecewise->status).has_value() && written_bytes != nullptr) {
      *written_bytes = piecewise->written;
    }
    CO_RETURN_IF_ERROR(piecewise->status);
    co_return begin;
  }
  const auto part_error = [written_bytes](const absl::Status& status, size_t done) {
    const absl::Status told = PartError(status, done);
    if (absl::IsUnknown(told) && written_bytes != nullptr) *written_bytes = done;
    return told;
  };
  for (size_t done = 0;;) {
    const absl::StatusOr<size_t> written =
        co_await WriteAndUnlock(file_id, begin + done, from.subspan(done), deadline);
    if (!written.ok()) co_return done == 0 ? written.status() : part_error(written.status(), done);
    done += *written;
    if (done == from.size()) co_return begin;
    const absl::StatusOr<uint64_t> end = co_await LockEnd(file_id, deadline);
    if (!end.ok()) co_return part_error(end.status(), done);
    if (*end == begin + done) continue;
    co_await UnlockEnd(file_id, deadline);
    co_return part_error(absl::UnknownError("others wrote behind it"), done);
  }
}

}  // namespace dfscsi::smb
