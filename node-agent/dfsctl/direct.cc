#include "node-agent/dfsctl/direct.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <deque>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/dfs/client.h"
#include "node-agent/dfs/path.h"
#include "node-agent/dfsctl/direct_call.h"
#include "node-agent/dfsctl/direct_name.h"
#include "node-agent/dfsctl/output_file.h"
#include "node-agent/smb/tree.h"
#include "node-agent/smb/wire/directory.h"
#include "node-agent/smb/wire/reparse.h"

namespace dfscsi::dfsctl {
namespace {

using runtime::Deadline;
using runtime::Task;

// Keeps several READs in flight and writes what they bring in order.
class Download {
 public:
  // `written`: how far a former target brought it; kept up to date.
  Download(std::shared_ptr<smb::Tree> tree, smb::wire::FileId file_id, uint64_t size, int out,
           uint64_t* written)
      : tree_(std::move(tree)), file_id_(file_id), size_(size), out_(out), written_(written) {}

  Task<absl::Status> Run() {
    std::deque<std::unique_ptr<Piece>> in_flight;
    std::vector<std::unique_ptr<Piece>> spare;
    uint64_t next = *written_;
    while (next < size_ || !in_flight.empty()) {
      while (next < size_ && in_flight.size() < kDepth) {
        if (spare.empty()) spare.push_back(std::make_unique<Piece>());
        std::unique_ptr<Piece> piece = std::move(spare.back());
        spare.pop_back();
        piece->offset = next;
        piece->size = std::min<uint64_t>(kPieceBytes, size_ - next);
        next += piece->size;
        piece->done.Reset();
        tasks_.Spawn(Fetch(piece.get()));
        in_flight.push_back(std::move(piece));
      }
      std::unique_ptr<Piece> first = std::move(in_flight.front());
      in_flight.pop_front();
      CO_RETURN_IF_ERROR(co_await first->done.WaitUntilSet(Deadline::After(kAnswerTime)));
      CO_RETURN_IF_ERROR(first->result.status());
      if (*first->result != first->size) {
        co_return absl::AbortedError("the file became shorter while it was read");
      }
      CO_RETURN_IF_ERROR(Write(first->bytes.data(), first->size));
      *written_ += first->size;
      spare.push_back(std::move(first));
    }
    co_return absl::OkStatus();
  }

 private:
  static constexpr size_t kPieceBytes = 1 << 20;
  static constexpr size_t kDepth = 8;

  struct Piece {
    std::vector<uint8_t> bytes = std::vector<uint8_t>(kPieceBytes);
    uint64_t offset = 0;
    size_t size = 0;
    absl::StatusOr<size_t> result;
    runtime::Event done;
  };

  Task<void> Fetch(Piece* piece) {
    piece->result = co_await tree_->Read(file_id_, piece->offset,
                                         absl::MakeSpan(piece->bytes).first(piece->size),
                                         Deadline::After(kAnswerTime));
    piece->done.Set();
  }

  absl::Status Write(const uint8_t* bytes, size_t size) {
    while (size > 0) {
      const ssize_t n = write(out_, bytes, size);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return absl::ResourceExhaustedError(absl::StrCat("write: ", strerror(errno)));
      bytes += n;
      size -= n;
    }
    return absl::OkStatus();
  }

  const std::shared_ptr<smb::Tree> tree_;
  const smb::wire::FileId file_id_;
  const uint64_t size_;
  const int out_;
  uint64_t* const written_;
  runtime::TaskGroup tasks_;
};

Task<absl::Status> GetOn(dfs::Binding binding, int out, uint64_t* written) {
  smb::wire::CreateRequest create;
  create.desired_access = smb::wire::kAccessReadData | smb::wire::kAccessReadAttributes;
  create.options = smb::wire::kOptionNonDirectory;
  create.name = binding.path;
  CO_ASSIGN_OR_RETURN(
      const smb::OpenedFile opened,
      co_await binding.tree->Create(std::move(create), Deadline::After(kAnswerTime)));
  Download download(binding.tree, opened.file_id, opened.response.attributes.end_of_file, out,
                    written);
  const absl::Status status = co_await download.Run();
  binding.tree->CloseLater(opened.file_id);
  co_return status;
}

Task<absl::Status> GetFile(dfs::Client* client, dfs::DfsPath source, int out) {
  uint64_t written = 0;
  co_return co_await client->Run(
      source,
      [out, &written](dfs::Binding binding) { return GetOn(std::move(binding), out, &written); },
      {}, Deadline::Never());  // Bounded by give_up_after, and by each READ's own deadline.
}

std::string LineOf(const smb::wire::FileAttributes& attributes, uint32_t tag,
                   const std::string& name) {
  const bool directory = attributes.Has(smb::wire::kAttributeDirectory);
  return absl::StrFormat("%s %14u  %s",
                         smb::wire::IsDfsTag(tag) ? "link"
                         : directory              ? "dir "
                                                  : "file",
                         attributes.end_of_file, name);
}

absl::Status AddPage(const std::vector<uint8_t>& page, std::vector<std::string>* lines) {
  smb::wire::DirectoryReader reader(smb::wire::FileInfoClass::kIdBothDirectory, page);
  while (const std::optional<smb::wire::DirectoryEntry> entry = reader.Next()) {
    const std::optional<std::string> name = ShownName(entry->name);
    if (!name.has_value()) continue;
    lines->push_back(LineOf(entry->attributes, entry->reparse_tag, *name));
  }
  return reader.status();
}

Task<absl::Status> ListOn(dfs::Binding binding, std::string name, std::vector<std::string>* lines) {
  lines->clear();  // Another target begins anew.
  CO_ASSIGN_OR_RETURN(const smb::FileStatus status,
                      co_await binding.tree->Stat(binding.path, Deadline::After(kAnswerTime)));
  if (!status.attributes.Has(smb::wire::kAttributeDirectory)) {
    lines->push_back(LineOf(status.attributes, 0, name));
    co_return absl::OkStatus();
  }
  CO_ASSIGN_OR_RETURN(
      smb::Tree::OpenedDirectory opened,
      co_await binding.tree->OpenDirectory(binding.path, Deadline::After(kAnswerTime)));
  smb::DirectoryPages pages = std::move(opened.pages);
  while (true) {
    for (const std::vector<uint8_t>& page : pages.pages) {
      CO_RETURN_IF_ERROR(AddPage(page, lines));
    }
    if (pages.complete) break;
    CO_ASSIGN_OR_RETURN(
        pages, co_await binding.tree->ReadDirectory(opened.file_id, Deadline::After(kAnswerTime)));
  }
  binding.tree->CloseLater(opened.file_id);
  co_return absl::OkStatus();
}

Task<absl::Status> List(dfs::Client* client, dfs::DfsPath source) {
  std::vector<std::string> lines;
  CO_RETURN_IF_ERROR(co_await client->Run(
      source,
      [&source, &lines](dfs::Binding binding) {
        return ListOn(std::move(binding), ShownPath(source), &lines);
      },
      {}, Deadline::Never()));
  for (const std::string& line : lines) puts(line.c_str());
  co_return absl::OkStatus();
}

constexpr char kNeedsSource[] = "one source, //host/share[/path],";

}  // namespace

absl::Status Get(const std::vector<std::string>& arguments) {
  ASSIGN_OR_RETURN(DirectCall call, ParseDirectCall(arguments, "", 1, 2, kNeedsSource));
  ASSIGN_OR_RETURN(const dfs::DfsPath source, ParseSource(call.positional[0], &call));
  std::optional<OutputFile> file;
  if (call.positional.size() == 2 && call.positional[1] != "-") {
    ASSIGN_OR_RETURN(OutputFile opened, OutputFile::Open(call.positional[1]));
    file.emplace(std::move(opened));
  }
  DirectContext context(call);
  const std::unique_ptr<dfs::Client> client = context.MakeClient(source);
  RETURN_IF_ERROR(
      context.Run(ShownPath(source),
                  GetFile(client.get(), source, file.has_value() ? file->fd() : STDOUT_FILENO)));
  return file.has_value() ? file->Commit() : absl::OkStatus();
}

absl::Status Ls(const std::vector<std::string>& arguments) {
  ASSIGN_OR_RETURN(DirectCall call, ParseDirectCall(arguments, "", 1, 1, kNeedsSource));
  ASSIGN_OR_RETURN(const dfs::DfsPath source, ParseSource(call.positional[0], &call));
  DirectContext context(call);
  const std::unique_ptr<dfs::Client> client = context.MakeClient(source);
  return context.Run(ShownPath(source), List(client.get(), source));
}

}  // namespace dfscsi::dfsctl
