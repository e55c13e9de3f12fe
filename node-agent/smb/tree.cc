#include "node-agent/smb/tree.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/smb/connection.h"
#include "node-agent/smb/session.h"
#include "node-agent/smb/tree_internal.h"
#include "node-agent/smb/wire/file_information.h"
#include "node-agent/smb/wire/fs_information.h"
#include "node-agent/smb/wire/io.h"
#include "node-agent/smb/wire/query.h"
#include "node-agent/smb/wire/reparse.h"

namespace dfscsi::smb {
namespace {

using runtime::Deadline;
using runtime::Task;

// The first listing of a directory asks for this much twice; a page after that is larger.
constexpr uint32_t kFirstPageBytes = 65536;
constexpr uint32_t kPageBytes = 262144;
constexpr uint32_t kSmallAnswerBytes = 1024;

wire::QueryDirectoryRequest NextPage(wire::FileId file_id, uint32_t bytes) {
  return {.info_class = wire::FileInfoClass::kIdBothDirectory,
          .file_id = file_id,
          .max_output_bytes = bytes};
}

// Adds the page that `response` holds; false at the end of the directory.
absl::StatusOr<bool> AddPage(const Response& response, DirectoryPages& pages) {
  const wire::NtStatus status = response.header.status;
  if (status == wire::NtStatus::kNoMoreFiles || status == wire::NtStatus::kNoSuchFile) {
    pages.complete = true;
    return false;
  }
  if (!wire::IsSuccess(status)) return wire::ToStatus(status, "QUERY_DIRECTORY");
  ASSIGN_OR_RETURN(const wire::Bytes page, wire::DecodeOutputBuffer(response.body()));
  if (page.empty()) {
    pages.complete = true;
    return false;
  }
  pages.pages.emplace_back(page.begin(), page.end());
  return true;
}

}  // namespace

Tree::Tree(std::shared_ptr<Session> session, std::string share, uint32_t tree_id,
           wire::TreeConnectResponse response)
    : session_(std::move(session)),
      share_(std::move(share)),
      tree_id_(tree_id),
      response_(response) {}

Tree::~Tree() {
  if (!usable()) return;
  struct Disconnect {
    static Task<void> Run(std::shared_ptr<Session> session, Request request) {
      std::vector<Request> requests;
      requests.push_back(std::move(request));
      (void)co_await session->Call(std::move(requests), Deadline::After(kUnwaited));
    }
  };
  Request request = MakeEmptyRequest(wire::Command::kTreeDisconnect);
  request.tree_id = tree_id_;
  runtime::Loop::Current().Spawn(Disconnect::Run(session_, std::move(request)));
}

bool Tree::usable() const { return !gone_ && session_->usable(); }

Task<absl::StatusOr<std::vector<Response>>> Tree::Call(std::vector<Request> requests,
                                                       Deadline deadline) {
  for (Request& request : requests) request.tree_id = tree_id_;
  CO_ASSIGN_OR_RETURN(std::vector<Response> responses,
                      co_await session_->Call(std::move(requests), deadline));
  for (const Response& response : responses) {
    if (response.header.status == wire::NtStatus::kNetworkNameDeleted && !gone_) {
      gone_ = true;
      session_->ForgetTree(share_);
    }
  }
  co_return responses;
}

Task<absl::StatusOr<Response>> Tree::CallOne(Request request, Deadline deadline) {
  absl::StatusOr<Response> response = co_await CallSized(std::move(request), deadline);
  if (absl::IsResourceExhausted(response.status())) {
    co_return absl::UnavailableError(response.status().message());
  }
  co_return response;
}

Task<absl::StatusOr<Response>> Tree::CallSized(Request request, Deadline deadline) {
  std::vector<Request> requests;
  requests.push_back(std::move(request));
  CO_ASSIGN_OR_RETURN(std::vector<Response> responses,
                      co_await Call(std::move(requests), deadline));
  co_return std::move(responses.front());
}

// Opens `path` to look at it, does `middle` with the handle, and closes it, in one frame. Returns
// the response to `middle`.
Task<absl::StatusOr<Response>> Tree::OpenAct(std::u16string path, Request middle,
                                             Deadline deadline) {
  std::vector<Request> requests;
  requests.push_back(MakeCreate(OpenToLook(std::move(path))));
  requests.push_back(std::move(middle));
  requests.push_back(MakeRelatedClose());
  CO_ASSIGN_OR_RETURN(std::vector<Response> responses,
                      co_await Call(std::move(requests), deadline));
  if (!wire::IsSuccess(responses[0].header.status)) {
    co_return wire::ToStatus(responses[0].header.status, "CREATE");
  }
  co_return std::move(responses[1]);
}

std::vector<Request> Tree::MakeLook(std::u16string path) {
  wire::CreateRequest create = OpenToLook(std::move(path));
  create.query_on_disk_id = true;
  std::vector<Request> requests;
  requests.push_back(MakeCreate(create));
  requests.push_back(MakeRelatedClose());
  return requests;
}

absl::StatusOr<FileStatus> Tree::SeenBy(const Response& look) {
  ASSIGN_OR_RETURN(const wire::CreateResponse created, wire::DecodeCreateResponse(look.body()));
  FileStatus status;
  status.attributes = created.attributes;
  if (created.on_disk_id.has_value()) status.file_id = created.on_disk_id->file;
  return status;
}

Task<absl::StatusOr<FileStatus>> Tree::Stat(std::u16string path, Deadline deadline) {
  std::vector<Request> requests = MakeLook(path);
  const wire::QueryInfoRequest standard{
      .type = wire::InfoType::kFile,
      .info_class = static_cast<uint8_t>(wire::FileInfoClass::kStandard),
      .max_output_bytes = wire::kStandardInformationSize,
      .file_id = {},
      .input = {}};
  requests.insert(requests.begin() + 1,
                  MakeRelated(wire::Command::kQueryInfo, wire::EncodeQueryInfoRequest, standard));
  CO_ASSIGN_OR_RETURN(const std::vector<Response> responses,
                      co_await Call(std::move(requests), deadline));
  if (!wire::IsSuccess(responses[0].header.status)) {
    co_return wire::ToStatus(responses[0].header.status, "CREATE");
  }
  CO_ASSIGN_OR_RETURN(FileStatus status, SeenBy(responses[0]));
  // A server that does not tell is no reason not to see the file.
  if (responses[1].header.status == wire::NtStatus::kSuccess) {
    CO_ASSIGN_OR_RETURN(const wire::Bytes output, wire::DecodeOutputBuffer(responses[1].body()));
    CO_ASSIGN_OR_RETURN(const wire::StandardInformation counted,
                        wire::DecodeStandardInformation(output));
    status.names = counted.links;
  }
  if (status.attributes.Has(wire::kAttributeReparsePoint)) {
    // Rare enough for a frame of its own.
    CO_ASSIGN_OR_RETURN(const std::vector<uint8_t> reparse,
                        co_await GetReparsePoint(std::move(path), deadline));
    wire::Reader reader(reparse);
    status.reparse_tag = reader.U32();
    if (!reader.ok()) co_return wire::MalformedError("reparse point", "too short");
  }
  co_return status;
}

Task<absl::StatusOr<size_t>> Tree::ReadOnce(wire::FileId file_id, uint64_t offset,
                                            wire::MutableBytes into, Deadline deadline) {
  const wire::ReadRequest read{
      .file_id = file_id, .offset = offset, .length_bytes = static_cast<uint32_t>(into.size())};
  Request request = MakeRequest(wire::Command::kRead, wire::EncodeReadRequest, read);
  request.largest_payload_bytes = read.length_bytes;
  request.read_into = into;
  const absl::StatusOr<Response> response = co_await CallSized(std::move(request), deadline);
  if (absl::IsResourceExhausted(response.status())) {
    // The server grants fewer credits than it did: in smaller pieces, then.
    co_return co_await Read(file_id, offset, into, deadline);
  }
  CO_RETURN_IF_ERROR(response.status());
  if (response->header.status == wire::NtStatus::kEndOfFile) co_return 0;
  if (!wire::IsSuccess(response->header.status)) {
    co_return wire::ToStatus(response->header.status, "READ");
  }
  co_return response->read_bytes;
}

Task<absl::StatusOr<size_t>> Tree::Read(wire::FileId file_id, uint64_t offset,
                                        wire::MutableBytes into, Deadline deadline,
                                        uint64_t known_end) {
  Connection& connection = session_->connection();
  const size_t most = std::min<size_t>(connection.max_read_bytes(),
                                       size_t{65536} * std::min(connection.largest_charge(), 16));
  if (into.size() <= most) {
    // A short answer is not the end: only none at all is, or the end as the caller knows it.
    size_t read = 0;
    while (read < into.size()) {
      CO_ASSIGN_OR_RETURN(const size_t n,
                          co_await ReadOnce(file_id, offset + read, into.subspan(read), deadline));
      read += n;
      if (n == 0 || offset + read == known_end) break;
    }
    co_return read;
  }

  // Several in flight; their tasks die with this frame.
  struct Pieces {
    std::vector<absl::StatusOr<size_t>> results;
    static Task<void> Run(Tree* tree, wire::FileId id, uint64_t at, wire::MutableBytes piece,
                          absl::StatusOr<size_t>* result, Deadline until) {
      *result = co_await tree->ReadOnce(id, at, piece, until);
    }
  } pieces;
  pieces.results.resize((into.size() + most - 1) / most, absl::UnknownError("not read"));
  runtime::TaskGroup tasks;
  for (size_t i = 0; i < pieces.results.size(); ++i) {
    tasks.Spawn(Pieces::Run(this, file_id, offset + i * most, into.subspan(i * most, most),
                            &pieces.results[i], deadline));
  }
  CO_RETURN_IF_ERROR(co_await tasks.WaitUntilEmpty(deadline));
  size_t total = 0;
  for (size_t i = 0; i < pieces.results.size(); ++i) {
    CO_ASSIGN_OR_RETURN(const size_t n, pieces.results[i]);
    total += n;
    if (n == into.subspan(i * most, most).size()) continue;
    // Short: the end of the file, or a server that gives less than it announced; then go on from
    // there.
    if (n == 0 || offset + total == known_end) break;
    CO_ASSIGN_OR_RETURN(const size_t rest, co_await Read(file_id, offset + total,
                                                         into.subspan(total), deadline, known_end));
    co_return total + rest;
  }
  co_return total;
}

Task<absl::StatusOr<Tree::OpenedDirectory>> Tree::OpenDirectory(std::u16string path,
                                                                Deadline deadline) {
  wire::CreateRequest create;
  create.desired_access = wire::kAccessReadData | wire::kAccessReadAttributes;
  create.options = wire::kOptionDirectory;
  create.name = std::move(path);
  std::vector<Request> requests;
  requests.push_back(MakeCreate(create));
  for (int page = 0; page < 2; ++page) {
    requests.push_back(MakeRelated(wire::Command::kQueryDirectory,
                                   wire::EncodeQueryDirectoryRequest,
                                   NextPage(wire::kNoFileId, kFirstPageBytes)));
    requests.back().largest_payload_bytes = kFirstPageBytes;
  }
  CO_ASSIGN_OR_RETURN(const std::vector<Response> responses,
                      co_await Call(std::move(requests), deadline));
  if (!wire::IsSuccess(responses[0].header.status)) {
    co_return wire::ToStatus(responses[0].header.status, "CREATE");
  }
  CO_ASSIGN_OR_RETURN(const wire::CreateResponse created,
                      wire::DecodeCreateResponse(responses[0].body()));
  OpenedDirectory opened{.file_id = created.file_id, .attributes = created.attributes, .pages = {}};
  for (size_t page = 1; page < responses.size() && !opened.pages.complete; ++page) {
    const absl::StatusOr<bool> more = AddPage(responses[page], opened.pages);
    if (!more.ok()) {
      CloseLater(opened.file_id);
      co_return more.status();
    }
  }
  co_return opened;
}

Task<absl::StatusOr<DirectoryPages>> Tree::ReadDirectory(wire::FileId file_id, Deadline deadline) {
  const uint32_t bytes =
      std::min({kPageBytes, session_->connection().max_transact_bytes(),
                uint32_t{65536} * static_cast<uint32_t>(session_->connection().largest_charge())});
  Request request = MakeRequest(wire::Command::kQueryDirectory, wire::EncodeQueryDirectoryRequest,
                                NextPage(file_id, bytes));
  request.largest_payload_bytes = bytes;
  const absl::StatusOr<Response> response = co_await CallSized(std::move(request), deadline);
  if (absl::IsResourceExhausted(response.status())) {
    co_return co_await ReadDirectory(file_id, deadline);  // As with READ: smaller pages.
  }
  CO_RETURN_IF_ERROR(response.status());
  DirectoryPages pages;
  CO_RETURN_IF_ERROR(AddPage(*response, pages).status());
  co_return pages;
}

Task<absl::StatusOr<FileSystemSize>> Tree::StatFileSystem(std::u16string path, Deadline deadline) {
  const wire::QueryInfoRequest query{
      .type = wire::InfoType::kFileSystem,
      .info_class = static_cast<uint8_t>(wire::FsInfoClass::kFullSize),
      .max_output_bytes = kSmallAnswerBytes};
  CO_ASSIGN_OR_RETURN(
      const Response response,
      co_await OpenAct(std::move(path),
                       MakeRelated(wire::Command::kQueryInfo, wire::EncodeQueryInfoRequest, query),
                       deadline));
  if (!wire::IsSuccess(response.header.status)) {
    co_return wire::ToStatus(response.header.status, "QUERY_INFO");
  }
  CO_ASSIGN_OR_RETURN(const wire::Bytes output, wire::DecodeOutputBuffer(response.body()));
  CO_ASSIGN_OR_RETURN(const wire::FsSizeInformation size,
                      wire::DecodeFsFullSizeInformation(output));
  co_return FileSystemSize{.total_units = size.total_units,
                           .available_units = size.available_units,
                           .free_units = size.free_units,
                           .unit_bytes = size.unit_bytes()};
}

Task<absl::StatusOr<std::vector<uint8_t>>> Tree::GetReparsePoint(std::u16string path,
                                                                 Deadline deadline) {
  constexpr uint32_t kMostReparseBytes = 16384;  // [MS-FSCC] 2.1.2
  const wire::IoctlRequest ioctl{.code = wire::Fsctl::kGetReparsePoint,
                                 .max_output_bytes = kMostReparseBytes};
  CO_ASSIGN_OR_RETURN(
      const Response response,
      co_await OpenAct(std::move(path),
                       MakeRelated(wire::Command::kIoctl, wire::EncodeIoctlRequest, ioctl),
                       deadline));
  co_return IoctlOutput(response, "FSCTL_GET_REPARSE_POINT");
}

Task<absl::StatusOr<Tree::Ranges>> Tree::AllocatedRanges(wire::FileId file_id,
                                                         wire::FileRange within,
                                                         Deadline deadline) {
  constexpr size_t kRangeBytes = 16;  // [MS-FSCC] 2.3.55
  std::vector<uint8_t> input;
  wire::Writer writer(&input);
  wire::EncodeFileRanges({&within, 1}, writer);
  const wire::IoctlRequest ioctl{.code = wire::Fsctl::kQueryAllocatedRanges,
                                 .file_id = file_id,
                                 .input = input,
                                 .max_output_bytes = kFirstPageBytes};
  Request request = MakeRequest(wire::Command::kIoctl, wire::EncodeIoctlRequest, ioctl);
  request.largest_payload_bytes = kFirstPageBytes;
  CO_ASSIGN_OR_RETURN(const Response response, co_await CallOne(std::move(request), deadline));
  const bool complete = response.header.status != wire::NtStatus::kBufferOverflow;
  if (complete && response.header.status != wire::NtStatus::kSuccess) {
    co_return wire::ToStatus(response.header.status, "FSCTL_QUERY_ALLOCATED_RANGES");
  }
  CO_ASSIGN_OR_RETURN(const wire::IoctlResponse answer, wire::DecodeIoctlResponse(response.body()));
  wire::Bytes output = answer.output;
  if (!complete) output = output.first(output.size() / kRangeBytes * kRangeBytes);
  CO_ASSIGN_OR_RETURN(std::vector<wire::FileRange> ranges, wire::DecodeFileRanges(output));
  if (!complete && ranges.empty()) {
    co_return wire::MalformedError("allocated ranges", "cut off before the first");
  }
  co_return Ranges{.ranges = std::move(ranges), .complete = complete};
}

Task<absl::StatusOr<std::vector<uint8_t>>> Tree::Ioctl(wire::Fsctl code, wire::FileId file_id,
                                                       std::vector<uint8_t> input,
                                                       uint32_t max_output_bytes,
                                                       Deadline deadline) {
  const wire::IoctlRequest ioctl{
      .code = code, .file_id = file_id, .input = input, .max_output_bytes = max_output_bytes};
  Request request = MakeRequest(wire::Command::kIoctl, wire::EncodeIoctlRequest, ioctl);
  request.largest_payload_bytes = std::max(static_cast<uint32_t>(input.size()), max_output_bytes);
  CO_ASSIGN_OR_RETURN(const Response response, co_await CallOne(std::move(request), deadline));
  if (response.header.status == wire::NtStatus::kSuccess) {
    // The answer to another question than ours is none ([MS-SMB2] 2.2.32).
    CO_ASSIGN_OR_RETURN(const wire::IoctlResponse answer,
                        wire::DecodeIoctlResponse(response.body()));
    if (answer.code != code || answer.file_id != file_id) {
      co_return absl::DataLossError("IOCTL response about another FSCTL or file");
    }
  }
  co_return IoctlOutput(response, "FSCTL");
}

absl::StatusOr<std::vector<uint8_t>> Tree::IoctlOutput(const Response& response,
                                                       std::string_view what) {
  if (response.header.status != wire::NtStatus::kSuccess) {
    return wire::ToStatus(response.header.status, what);
  }
  ASSIGN_OR_RETURN(const wire::IoctlResponse answer, wire::DecodeIoctlResponse(response.body()));
  return std::vector<uint8_t>(answer.output.begin(), answer.output.end());
}

}  // namespace dfscsi::smb
