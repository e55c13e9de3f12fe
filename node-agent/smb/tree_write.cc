// Changes through a handle: WRITE, FLUSH, SET_INFO, LOCK.

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/smb/session.h"
#include "node-agent/smb/tree.h"
#include "node-agent/smb/tree_internal.h"
#include "node-agent/smb/wire/io.h"
#include "node-agent/smb/wire/query.h"

namespace dfscsi::smb {

using runtime::Deadline;
using runtime::Task;

namespace {

// So many pieces of what one writer has given are on the wire at once, unless they get small: a
// WRITE of its own costs more than it gains then.
constexpr size_t kPieces = 4;
constexpr size_t kLeastPieceBytes = 131072;
constexpr size_t kBytesPerCredit = 65536;

size_t PieceBytes(size_t size, size_t most) {
  const size_t fourth = (size + kPieces - 1) / kPieces;
  const size_t even = (fourth + kBytesPerCredit - 1) / kBytesPerCredit * kBytesPerCredit;
  return std::clamp(even, std::min(kLeastPieceBytes, most), most);
}

}  // namespace

absl::Status Tree::Broken(std::string_view what) {
  const absl::Status status = absl::DataLossError(absl::StrCat(
      session_->connection().host(), ": ", absl::string_view(what.data(), what.size())));
  session_->connection().Close(status);
  return status;
}

Task<absl::Status> Tree::WriteOnce(wire::FileId file_id, uint64_t offset, wire::Bytes from,
                                   Deadline deadline, WriteOptions options) {
  while (!from.empty()) {
    const wire::WriteRequest write{.file_id = file_id,
                                   .offset = offset,
                                   .length_bytes = static_cast<uint32_t>(from.size()),
                                   .flags = options.through ? wire::kWriteThrough : 0u,
                                   .payload = {}};
    Request request = MakeRequest(wire::Command::kWrite, wire::EncodeWriteRequest, write);
    request.largest_payload_bytes = write.length_bytes;
    request.payload = from;
    request.replay = options.replay;
    const absl::StatusOr<Response> response = co_await CallSized(std::move(request), deadline);
    if (absl::IsResourceExhausted(response.status())) {
      co_return co_await Write(file_id, offset, from, deadline, options);  // As with READ.
    }
    CO_RETURN_IF_ERROR(response.status());
    if (!wire::IsSuccess(response->header.status)) {
      co_return wire::ToStatus(response->header.status, "WRITE");
    }
    CO_ASSIGN_OR_RETURN(const wire::WriteResponse answer,
                        wire::DecodeWriteResponse(response->body()));
    if (answer.written_bytes > from.size()) {
      co_return Broken("a WRITE was answered with more than was written");
    }
    // Success and nothing written would go on for ever; a disk that is full is what it means.
    if (answer.written_bytes == 0) co_return wire::ToStatus(wire::NtStatus::kDiskFull, "WRITE");
    if (options.written_bytes != nullptr) *options.written_bytes += answer.written_bytes;
    from.remove_prefix(answer.written_bytes);
    if (offset != kAppend) offset += answer.written_bytes;
  }
  co_return absl::OkStatus();
}

Task<absl::Status> Tree::Write(wire::FileId file_id, uint64_t offset, wire::Bytes from,
                               Deadline deadline, WriteOptions options) {
  Connection& connection = session_->connection();
  const size_t most = std::max<size_t>(
      1, std::min<size_t>(connection.max_write_bytes(),
                          size_t{65536} * std::min(connection.largest_charge(), 16)));
  const size_t piece = offset == kAppend ? most : PieceBytes(from.size(), most);
  if (from.size() <= piece) {
    co_return co_await WriteOnce(file_id, offset, from, deadline, options);
  }
  if (offset == kAppend) {  // In order: each goes to the end that the one before it made.
    for (; !from.empty(); from.remove_prefix(std::min(most, from.size()))) {
      CO_RETURN_IF_ERROR(
          co_await WriteOnce(file_id, offset, from.subspan(0, most), deadline, options));
    }
    co_return absl::OkStatus();
  }
  // Several in flight; their tasks die with this frame.
  struct Piece {
    static Task<void> Run(Tree* tree, wire::FileId id, uint64_t at, wire::Bytes piece,
                          Deadline until, WriteOptions how, absl::Status* result) {
      *result = co_await tree->WriteOnce(id, at, piece, std::move(until), how);
    }
  };
  const size_t count = (from.size() + piece - 1) / piece;
  std::vector<absl::Status> results(count, absl::UnknownError("not written"));
  std::vector<size_t> written(count);
  runtime::TaskGroup tasks;
  for (size_t i = 0; i < count; ++i) {
    WriteOptions own = options;
    own.written_bytes = &written[i];
    tasks.Spawn(Piece::Run(this, file_id, offset + i * piece, from.subspan(i * piece, piece),
                           deadline, own, &results[i]));
  }
  // Also where one has failed: who asked may write the same place anew when this returns.
  CO_RETURN_IF_ERROR(co_await tasks.WaitUntilEmpty(deadline));
  for (size_t i = 0; i < count; ++i) {
    if (options.written_bytes != nullptr) *options.written_bytes += written[i];
    CO_RETURN_IF_ERROR(results[i]);
  }
  co_return absl::OkStatus();
}

Task<absl::Status> Tree::Flush(wire::FileId file_id, Deadline deadline) {
  const wire::FlushRequest flush{.file_id = file_id};
  CO_ASSIGN_OR_RETURN(
      const Response response,
      co_await CallOne(MakeRequest(wire::Command::kFlush, wire::EncodeFlushRequest, flush),
                       deadline));
  if (!wire::IsSuccess(response.header.status)) {
    co_return wire::ToStatus(response.header.status, "FLUSH");
  }
  co_return absl::OkStatus();
}

// --- SET_INFO

Task<absl::Status> Tree::SetInformation(wire::FileId file_id, wire::FileInfoClass info_class,
                                        std::vector<uint8_t> input, Deadline deadline) {
  const wire::SetInfoRequest set{.type = wire::InfoType::kFile,
                                 .info_class = static_cast<uint8_t>(info_class),
                                 .file_id = file_id,
                                 .input = input};
  Request request = MakeRequest(wire::Command::kSetInfo, wire::EncodeSetInfoRequest, set);
  request.largest_payload_bytes = static_cast<uint32_t>(input.size());
  CO_ASSIGN_OR_RETURN(const Response response, co_await CallOne(std::move(request), deadline));
  if (!wire::IsSuccess(response.header.status)) {
    co_return wire::ToStatus(response.header.status, "SET_INFO");
  }
  co_return absl::OkStatus();
}

Task<absl::Status> Tree::SetEndOfFile(wire::FileId file_id, uint64_t size_bytes,
                                      Deadline deadline) {
  return SetInformation(file_id, wire::FileInfoClass::kEndOfFile,
                        Encoded(wire::EncodeSizeInformation, size_bytes), std::move(deadline));
}

Task<absl::Status> Tree::SetAllocation(wire::FileId file_id, uint64_t size_bytes,
                                       Deadline deadline) {
  return SetInformation(file_id, wire::FileInfoClass::kAllocation,
                        Encoded(wire::EncodeSizeInformation, size_bytes), std::move(deadline));
}

Task<absl::Status> Tree::SetBasic(wire::FileId file_id, wire::BasicInformation basic,
                                  Deadline deadline) {
  return SetInformation(file_id, wire::FileInfoClass::kBasic,
                        Encoded(wire::EncodeBasicInformation, basic), std::move(deadline));
}

Task<absl::Status> Tree::SetDisposition(wire::FileId file_id, bool remove, Deadline deadline) {
  return SetInformation(file_id, wire::FileInfoClass::kDisposition,
                        Encoded(wire::EncodeDispositionInformation, remove), std::move(deadline));
}

Task<absl::Status> Tree::Rename(wire::FileId file_id, wire::RenameInformation rename,
                                Deadline deadline) {
  co_return co_await SetInformation(file_id, wire::FileInfoClass::kRename,
                                    Encoded(wire::EncodeRenameInformation, rename),
                                    std::move(deadline));
}

Task<absl::Status> Tree::Link(wire::FileId file_id, wire::RenameInformation link,
                              Deadline deadline) {
  co_return co_await SetInformation(file_id, wire::FileInfoClass::kLink,
                                    Encoded(wire::EncodeRenameInformation, link),
                                    std::move(deadline));
}

// --- LOCK

Request Tree::MakeLock(wire::FileId file_id, std::vector<wire::LockElement> locks,
                       uint32_t sequence) {
  std::vector<wire::FileRange> ranges;
  ranges.reserve(locks.size());
  for (const wire::LockElement& lock : locks) ranges.push_back({lock.offset, lock.length_bytes});
  const wire::LockRequest lock{
      .lock_sequence = sequence, .file_id = file_id, .locks = std::move(locks)};
  Request request = MakeRequest(wire::Command::kLock, wire::EncodeLockRequest, lock);
  request.on_late = [weak = weak_from_this(), file_id, ranges](const Response& response) {
    const std::shared_ptr<Tree> tree = weak.lock();
    // Granted before the server heard of our CANCEL.
    if (tree != nullptr && wire::IsSuccess(response.header.status)) {
      tree->UnlockLater(file_id, ranges);
    }
  };
  return request;
}

Task<absl::Status> Tree::Lock(wire::FileId file_id, std::vector<wire::LockElement> locks,
                              uint32_t sequence, Deadline deadline) {
  CO_ASSIGN_OR_RETURN(const Response response,
                      co_await CallOne(MakeLock(file_id, std::move(locks), sequence), deadline));
  if (!wire::IsSuccess(response.header.status)) {
    co_return wire::ToStatus(response.header.status, "LOCK");
  }
  co_return absl::OkStatus();
}

Task<absl::Status> Tree::Unlock(wire::FileId file_id, std::vector<wire::FileRange> ranges,
                                uint32_t sequence, Deadline deadline) {
  wire::LockRequest unlock{.lock_sequence = sequence, .file_id = file_id, .locks = {}};
  for (const wire::FileRange& range : ranges) {
    unlock.locks.push_back(
        {.offset = range.offset, .length_bytes = range.length_bytes, .flags = wire::kLockUnlock});
  }
  CO_ASSIGN_OR_RETURN(
      const Response response,
      co_await CallOne(MakeRequest(wire::Command::kLock, wire::EncodeLockRequest, unlock),
                       deadline));
  if (!wire::IsSuccess(response.header.status)) {
    co_return wire::ToStatus(response.header.status, "LOCK");
  }
  co_return absl::OkStatus();
}

void Tree::UnlockLater(wire::FileId file_id, std::vector<wire::FileRange> ranges) {
  if (!usable()) return;
  struct Unlocker {
    static Task<void> Run(std::shared_ptr<Tree> tree, wire::FileId id,
                          std::vector<wire::FileRange> ranges) {
      (void)co_await tree->Unlock(id, std::move(ranges), 0, Deadline::After(kUnwaited));
    }
  };
  runtime::Loop::Current().Spawn(Unlocker::Run(shared_from_this(), file_id, std::move(ranges)));
}

}  // namespace dfscsi::smb
