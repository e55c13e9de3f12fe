// LOCK, break acknowledgments and FSCTLs that change files, on a scripted server
// ([MS-SMB2] 3.3.5.14, 3.3.5.15, 3.3.5.22).

#include <algorithm>
#include <utility>

#include "node-agent/smb/wire/io.h"
#include "node-agent/smb/wire/reparse.h"
#include "node-agent/testing/scripted_connection.h"

namespace dfscsi::testing {
namespace {

using smb::wire::NtStatus;

// Which lease of others a change of the file's data leaves them.
constexpr uint32_t kKeepNothing = 0;

absl::Time Now() { return runtime::Loop::Current().Now(); }

bool Overlaps(const ScriptedLock& lock, const smb::wire::LockElement& other) {
  return other.length_bytes > 0 && lock.length_bytes > 0 &&
         other.offset < lock.offset + lock.length_bytes &&
         lock.offset < other.offset + other.length_bytes;
}

}  // namespace

// --- LOCK

NtStatus ScriptedConnection::TakeLocks(ScriptedOpen& open,
                                       const std::vector<smb::wire::LockElement>& locks,
                                       bool* waits) {
  ScriptedFile& file = *open.file;
  const std::vector<ScriptedLock> before = file.locks;
  for (const smb::wire::LockElement& lock : locks) {
    if ((lock.flags & smb::wire::kLockUnlock) != 0) {
      const auto held =
          std::find_if(file.locks.begin(), file.locks.end(), [&](const ScriptedLock& one) {
            return one.owner == open.id.persistent_id && one.offset == lock.offset &&
                   one.length_bytes == lock.length_bytes;
          });
      if (held == file.locks.end()) return NtStatus::kRangeNotLocked;
      file.locks.erase(held);
      continue;
    }
    const bool exclusive = (lock.flags & smb::wire::kLockExclusive) != 0;
    const bool conflict =
        std::any_of(file.locks.begin(), file.locks.end(), [&](const ScriptedLock& one) {
          // A shared lock may be stacked upon an exclusive one of the same open
          // ([MS-FSA] 2.1.4.10).
          const bool own = one.owner == open.id.persistent_id;
          return Overlaps(one, lock) && (exclusive || (one.exclusive && !own));
        });
    if (conflict) {
      file.locks = before;
      *waits = (lock.flags & smb::wire::kLockFailImmediately) == 0 && locks.size() == 1;
      return NtStatus::kLockNotGranted;
    }
    file.locks.push_back({.owner = open.id.persistent_id,
                          .offset = lock.offset,
                          .length_bytes = lock.length_bytes,
                          .exclusive = exclusive});
  }
  return NtStatus::kSuccess;
}

void ScriptedConnection::Lock(Call& call) {
  const absl::StatusOr<smb::wire::LockRequest> request = smb::wire::DecodeLockRequest(call.body);
  if (!request.ok()) return ReplyError(call, NtStatus::kInvalidParameter);
  ScriptedOpen* const open = FindOpen(call, request->file_id);
  if (open == nullptr) return;
  if (open->file->kind != FileKind::kFile) return ReplyError(call, NtStatus::kInvalidParameter);
  const uint32_t index = request->lock_sequence >> 4;
  const uint32_t number = request->lock_sequence & 0xF;
  const bool sequenced = open->durable_for > absl::ZeroDuration() && index >= 1 && index <= 64;
  if (sequenced) {
    const auto last = open->lock_sequences.find(index);
    // Done before, and its answer was lost ([MS-SMB2] 3.3.5.14).
    if (last != open->lock_sequences.end() && last->second == number) return ReplyEmpty(call);
    open->lock_sequences.erase(index);
  }
  bool waits = false;
  const NtStatus status = TakeLocks(*open, request->locks, &waits);
  if (waits) {
    call.waits = true;
    return;
  }
  if (status != NtStatus::kSuccess) return ReplyError(call, status);
  if (sequenced) open->lock_sequences[index] = number;
  RecordMutation(call, *open).offset = request->locks.front().offset;
  server_.mutations_.back().length_bytes = request->locks.front().length_bytes;
  server_.opens_->changed().NotifyAll();
  ReplyEmpty(call);
}

void ScriptedConnection::AcknowledgeBreak(Call& call) {
  const absl::StatusOr<smb::wire::Break> broken = smb::wire::DecodeBreak(call.body);
  const auto* const acknowledgment =
      broken.ok() ? std::get_if<smb::wire::LeaseBreakAck>(&*broken) : nullptr;
  if (acknowledgment == nullptr) return ReplyError(call, NtStatus::kInvalidParameter);
  const NtStatus status =
      server_.opens_->Acknowledge(client(), acknowledgment->key, acknowledgment->state);
  if (status != NtStatus::kSuccess) return ReplyError(call, status);
  Reply(call, smb::wire::EncodeLeaseBreakAck, *acknowledgment);
}

// --- FSCTLs

NtStatus ScriptedConnection::CopyChunks(Call& call, ScriptedOpen& target,
                                        const smb::wire::IoctlRequest& request,
                                        std::vector<uint8_t>& output) {
  const auto copy = smb::wire::DecodeCopyChunkRequest(request.input);
  if (!copy.ok()) return NtStatus::kInvalidParameter;
  smb::wire::Writer writer(&output);
  const ServerOptions& options = server_.options_;
  bool too_large = copy->chunks.size() > options.most_copy_chunks;
  for (const smb::wire::CopyChunk& chunk : copy->chunks) {
    too_large |= chunk.length_bytes > options.most_copy_chunk_bytes;
  }
  if (too_large) {
    smb::wire::EncodeCopyChunkResponse(
        {.chunks = options.most_copy_chunks,
         .chunk_bytes = options.most_copy_chunk_bytes,
         .total_bytes = options.most_copy_chunks * options.most_copy_chunk_bytes},
        writer);
    return NtStatus::kInvalidParameter;
  }
  smb::wire::Reader key(copy->source);
  const uint64_t persistent = key.U64();
  const ScriptedOpen* source = nullptr;
  for (const auto& [id, open] : call.session->opens) {
    if (open.id.persistent_id == persistent) source = &open;
  }
  if (source == nullptr) return NtStatus::kObjectNameNotFound;
  smb::wire::CopyChunkResponse done;
  for (const smb::wire::CopyChunk& chunk : copy->chunks) {
    if (chunk.source_offset + chunk.length_bytes > source->file->size) {
      return NtStatus::kInvalidViewSize;
    }
    std::vector<uint8_t> bytes(chunk.length_bytes);
    source->file->Read(chunk.source_offset, absl::MakeSpan(bytes));
    const NtStatus status =
        ReserveGrowth(*target.share, target.file->size, chunk.target_offset + bytes.size());
    if (status != NtStatus::kSuccess) return status;
    target.file->Write(chunk.target_offset, bytes);
    target.file->last_write = Now();
    ScriptedMutation& mutation = RecordMutation(call, target);
    mutation.fsctl = request.code;
    mutation.offset = chunk.target_offset;
    mutation.length_bytes = bytes.size();
    mutation.content_hash = ContentHash(bytes);
    ++done.chunks;
    done.total_bytes += chunk.length_bytes;
  }
  smb::wire::EncodeCopyChunkResponse(done, writer);
  return NtStatus::kSuccess;
}

bool ScriptedConnection::ChangingIoctl(Call& call, const smb::wire::IoctlRequest& request) {
  using smb::wire::Fsctl;
  std::vector<uint8_t> output;
  smb::wire::Writer writer(&output);
  NtStatus status = NtStatus::kSuccess;
  if (request.code == Fsctl::kRequestResumeKey) {
    const ScriptedOpen* const open = FindOpen(call, request.file_id);
    if (open == nullptr) return true;
    smb::wire::ResumeKey key = {};
    std::copy_n(reinterpret_cast<const uint8_t*>(&open->id.persistent_id), 8, key.begin());
    smb::wire::EncodeResumeKeyResponse(key, writer);
  } else if (request.code == Fsctl::kCopyChunk || request.code == Fsctl::kCopyChunkWrite ||
             request.code == Fsctl::kSetZeroData || request.code == Fsctl::kSetSparse ||
             request.code == Fsctl::kSetReparsePoint) {
    const bool reparse = request.code == Fsctl::kSetReparsePoint;
    ScriptedOpen* const open =
        FindToChange(call, request.file_id,
                     reparse ? smb::wire::kAccessWriteAttributes | smb::wire::kAccessWriteData
                             : uint32_t{smb::wire::kAccessWriteData});
    if (open == nullptr) return true;
    ScriptedFile& file = *open->file;
    if (request.code == Fsctl::kCopyChunk || request.code == Fsctl::kCopyChunkWrite) {
      server_.opens_->BreakOthers(file, client(), open->lease_key, kKeepNothing);
      status = CopyChunks(call, *open, request, output);
    } else if (request.code == Fsctl::kSetZeroData) {
      const auto zero = smb::wire::DecodeZeroRange(request.input);
      if (!zero.ok()) {
        status = NtStatus::kInvalidParameter;
      } else if (zero->offset < file.size) {
        file.Write(zero->offset,
                   std::vector<uint8_t>(std::min(zero->beyond, file.size) - zero->offset));
      }
    } else if (reparse) {
      const auto data = smb::wire::DecodeReparseData(request.input);
      const auto* const link = data.ok() ? std::get_if<smb::wire::SymlinkReparse>(&*data) : nullptr;
      if (link == nullptr) {
        status = NtStatus::kIoReparseTagInvalid;
      } else {
        file.kind = FileKind::kSymlink;
        file.target = link->substitute_name;
        file.relative = link->relative;
      }
    }
    if (status == NtStatus::kSuccess && request.code != Fsctl::kCopyChunk &&
        request.code != Fsctl::kCopyChunkWrite) {
      RecordMutation(call, *open).fsctl = request.code;
    }
  } else {
    return false;
  }
  if (status != NtStatus::kSuccess && output.empty()) {
    ReplyError(call, status);
    return true;
  }
  Reply(
      call, smb::wire::EncodeIoctlResponse,
      smb::wire::IoctlResponse{.code = request.code, .file_id = request.file_id, .output = output});
  call.status = status;
  return true;
}

}  // namespace dfscsi::testing
