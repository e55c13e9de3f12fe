#include "node-agent/dfsctl/direct_changes.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "node-agent/agent/failure.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/base/unique_fd.h"
#include "node-agent/dfsctl/direct_call.h"
#include "node-agent/dfsctl/direct_name.h"
#include "node-agent/dfsctl/removal.h"
#include "node-agent/dfsctl/upload.h"
#include "node-agent/runtime/deadline.h"
#include "node-agent/smb/tree.h"
#include "node-agent/smb/wire/nt_status.h"

namespace dfscsi::dfsctl {
namespace {

using runtime::Deadline;
using runtime::Task;
using smb::wire::NtStatus;
using smb::wire::NtStatusOf;

constexpr size_t kPieceBytes = 4 << 20;
constexpr uint64_t kServerCopyBytes = 64 << 20;
// How often a copy begins anew, on whichever target there is, when its server is lost.
constexpr int kAttempts = 3;

absl::Status Local(const std::string& path, const std::string& why) {
  return agent::WithReason(absl::UnknownError(absl::StrCat(path, ": ", why)), agent::v1::SYSTEM);
}

bool IsServerLost(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsAborted(status);
}

// ---- What is copied ----

// Where a copy's bytes come from.
class Input {
 public:
  virtual ~Input() = default;
  // Before the first byte, of each attempt. False: it cannot be read a second time.
  virtual Task<absl::StatusOr<bool>> Begin(int attempt) = 0;
  // Copies by itself what the upload's server has. False: it is to be read.
  virtual Task<absl::StatusOr<bool>> TryCopy(Upload* upload) { co_return false; }
  // As many bytes as there are, up to all of `into`; 0: the end.
  virtual Task<absl::StatusOr<size_t>> Read(uint64_t offset, absl::Span<uint8_t> into) = 0;
};

class LocalInput final : public Input {
 public:
  static absl::StatusOr<LocalInput> Open(const std::string& path) {
    if (path == "-") return LocalInput(path, UniqueFd(dup(STDIN_FILENO)));
    UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY));
    if (!fd) return Local(path, strerror(errno));
    struct stat there = {};
    if (fstat(fd.get(), &there) != 0) return Local(path, strerror(errno));
    if (S_ISDIR(there.st_mode)) return Local(path, "is a folder; only files are copied");
    return LocalInput(path, std::move(fd));
  }

  Task<absl::StatusOr<bool>> Begin(int attempt) override {
    co_return attempt == 0 || lseek(fd_.get(), 0, SEEK_SET) == 0;
  }
  Task<absl::StatusOr<size_t>> Read(uint64_t, absl::Span<uint8_t> into) override {
    size_t filled = 0;
    while (filled < into.size()) {
      const ssize_t n = read(fd_.get(), into.data() + filled, into.size() - filled);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) co_return Local(path_, strerror(errno));
      if (n == 0) break;
      filled += static_cast<size_t>(n);
    }
    co_return filled;
  }

 private:
  LocalInput(std::string path, UniqueFd fd) : path_(std::move(path)), fd_(std::move(fd)) {}

  std::string path_;
  UniqueFd fd_;
};

// A file on a server.
class RemoteInput final : public Input {
 public:
  RemoteInput(dfs::Client* client, dfs::DfsPath path) : client_(client), path_(std::move(path)) {}
  ~RemoteInput() override { Close(); }

  Task<absl::StatusOr<bool>> Begin(int) override {
    Close();
    CO_RETURN_IF_ERROR(co_await client_->Run(
        path_, [this](dfs::Binding binding) { return OpenOn(std::move(binding)); }, {},
        Deadline::Never()));
    co_return true;
  }

  Task<absl::StatusOr<bool>> TryCopy(Upload* upload) override {
    if (&upload->tree() != tree_.get()) co_return false;
    for (uint64_t done = 0; done < size_;) {
      const uint64_t wanted = std::min(size_ - done, kServerCopyBytes);
      const absl::StatusOr<uint64_t> copied = co_await upload->CopyFrom(file_id_, done, wanted);
      const std::optional<NtStatus> answer = NtStatusOf(copied.status());
      if (done == 0 && (answer == NtStatus::kInvalidDeviceRequest ||
                        answer == NtStatus::kNotSupported || answer == NtStatus::kAccessDenied)) {
        co_return false;  // By reading and writing it will be seen whether it may be.
      }
      CO_RETURN_IF_ERROR(copied.status());
      if (*copied == 0) co_return absl::OutOfRangeError("the file became shorter meanwhile");
      done += *copied;
    }
    co_return true;
  }

  Task<absl::StatusOr<size_t>> Read(uint64_t offset, absl::Span<uint8_t> into) override {
    if (offset >= size_) co_return size_t{0};
    const size_t wanted = std::min<uint64_t>(into.size(), size_ - offset);
    CO_ASSIGN_OR_RETURN(const size_t n, co_await tree_->Read(file_id_, offset, into.first(wanted),
                                                             Deadline::After(kAnswerTime)));
    if (n < wanted) co_return absl::OutOfRangeError("the file became shorter meanwhile");
    co_return n;
  }

 private:
  Task<absl::Status> OpenOn(dfs::Binding binding) {
    smb::wire::CreateRequest create;
    create.desired_access = smb::wire::kAccessReadData | smb::wire::kAccessReadAttributes;
    create.options = smb::wire::kOptionNonDirectory;
    create.name = binding.path;
    CO_ASSIGN_OR_RETURN(
        const smb::OpenedFile opened,
        co_await binding.tree->Create(std::move(create), Deadline::After(kAnswerTime)));
    tree_ = binding.tree;
    file_id_ = opened.file_id;
    size_ = opened.response.attributes.end_of_file;
    co_return absl::OkStatus();
  }
  void Close() {
    if (tree_ != nullptr) tree_->CloseLater(file_id_);
    tree_ = nullptr;
  }

  dfs::Client* const client_;
  const dfs::DfsPath path_;
  std::shared_ptr<smb::Tree> tree_;
  smb::wire::FileId file_id_;
  uint64_t size_ = 0;
};

// `begun`: there was a server, which may have been lost since.
Task<absl::Status> CopyOnce(dfs::Client* client, dfs::DfsPath target, Input* input, bool* begun) {
  Upload upload;
  CO_RETURN_IF_ERROR(co_await upload.Begin(client, std::move(target)));
  *begun = true;
  CO_ASSIGN_OR_RETURN(const bool copied, co_await input->TryCopy(&upload));
  std::vector<uint8_t> piece(copied ? 0 : kPieceBytes);
  for (uint64_t offset = 0; !copied;) {
    CO_ASSIGN_OR_RETURN(const size_t n, co_await input->Read(offset, absl::MakeSpan(piece)));
    if (n == 0) break;
    CO_RETURN_IF_ERROR(co_await upload.Write(offset, absl::MakeConstSpan(piece).first(n)));
    offset += n;
  }
  co_return co_await upload.Commit();
}

Task<absl::Status> Copy(dfs::Client* client, dfs::DfsPath target, Input* input) {
  absl::Status status;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    CO_ASSIGN_OR_RETURN(const bool readable, co_await input->Begin(attempt));
    if (!readable) break;
    bool begun = false;
    status = co_await CopyOnce(client, target, input, &begun);
    if (!begun || !IsServerLost(status)) break;
  }
  co_return status;
}

// ---- Making folders ----

Task<absl::Status> MakeFolderOn(dfs::Binding binding, bool is_link) {
  if (is_link) co_return smb::wire::ToStatus(NtStatus::kObjectNameCollision, "CREATE");
  co_return (co_await binding.tree->MakeDirectory(binding.path, Deadline::After(kAnswerTime)))
      .status();
}

Task<absl::Status> LookForFolderOn(dfs::Binding binding, bool* is_folder) {
  CO_ASSIGN_OR_RETURN(const smb::FileStatus there,
                      co_await binding.tree->Stat(binding.path, Deadline::After(kAnswerTime)));
  *is_folder = there.attributes.Has(smb::wire::kAttributeDirectory);
  co_return absl::OkStatus();
}

// OK also if it is there, and is a folder, where `may_be_there`.
Task<absl::Status> MakeFolder(dfs::Client* client, dfs::DfsPath path, bool may_be_there) {
  const absl::Status status = co_await client->Run(
      path,
      [&path](dfs::Binding binding) {
        const bool is_link = binding.link_components == path.size();
        return MakeFolderOn(std::move(binding), is_link);
      },
      {.repeatable = false}, Deadline::Never());
  if (NtStatusOf(status) != NtStatus::kObjectNameCollision) co_return Of(path, status);
  bool is_folder = false;
  CO_RETURN_IF_ERROR(Of(path, co_await client->Run(
                                  path,
                                  [&is_folder](dfs::Binding binding) {
                                    return LookForFolderOn(std::move(binding), &is_folder);
                                  },
                                  {}, Deadline::Never())));
  if (is_folder && may_be_there) co_return absl::OkStatus();
  if (is_folder) {
    co_return Of(path, Refused("is there already", agent::v1::FAILURE_REASON_UNSPECIFIED));
  }
  co_return Of(path, Refused("is a file, and no folder", agent::v1::MISSING_PATH));
}

Task<absl::Status> MakeFolders(dfs::Client* client, dfs::DfsPath path, bool with_parents) {
  if (!with_parents) co_return co_await MakeFolder(client, path, /*may_be_there=*/false);
  for (size_t size = 3; size <= path.size(); ++size) {
    CO_RETURN_IF_ERROR(co_await MakeFolder(client, path.Prefix(size), /*may_be_there=*/true));
  }
  co_return absl::OkStatus();
}

absl::Status NeedsName(const dfs::DfsPath& path) {
  return path.size() > 2 ? absl::OkStatus()
                         : absl::InvalidArgumentError(absl::StrCat(
                               ShownPath(path), " is a share: a name in it is needed"));
}

// Of what is copied, and of the copy: not a folder, also where none is there yet.
absl::StatusOr<dfs::DfsPath> ParseFile(const std::string& text, DirectCall* call) {
  ASSIGN_OR_RETURN(dfs::DfsPath path, ParseSource(text, call));
  RETURN_IF_ERROR(NeedsName(path));
  if (NamesFolder(text)) {
    return absl::InvalidArgumentError(absl::StrCat(
        ShownPath(path), "/ is a folder by its last character: the name of a file is needed"));
  }
  return path;
}

}  // namespace

absl::Status Put(const std::vector<std::string>& arguments) {
  ASSIGN_OR_RETURN(DirectCall call,
                   ParseDirectCall(arguments, "", 2, 2, "a file, and //host/share/path,"));
  ASSIGN_OR_RETURN(const dfs::DfsPath target, ParseFile(call.positional[1], &call));
  ASSIGN_OR_RETURN(LocalInput input, LocalInput::Open(call.positional[0]));
  DirectContext context(call);
  const std::unique_ptr<dfs::Client> client = context.MakeClient(target);
  return context.Run(ShownPath(target), Copy(client.get(), target, &input));
}

absl::Status Cp(const std::vector<std::string>& arguments) {
  ASSIGN_OR_RETURN(DirectCall call, ParseDirectCall(arguments, "", 2, 2,
                                                    "a source and a target, //host/share/path,"));
  ASSIGN_OR_RETURN(const dfs::DfsPath source, ParseFile(call.positional[0], &call));
  ASSIGN_OR_RETURN(const dfs::DfsPath target, ParseFile(call.positional[1], &call));
  if (source == target) return absl::InvalidArgumentError("source and target are the same file");
  DirectContext context(call);
  const std::unique_ptr<dfs::Client> from = context.MakeClient(source);
  const std::unique_ptr<dfs::Client> to = context.MakeClient(target);
  RemoteInput input(from.get(), source);
  return context.Run(absl::StrCat(ShownPath(source), " to ", ShownPath(target)),
                     Copy(to.get(), target, &input));
}

absl::Status Rm(const std::vector<std::string>& arguments) {
  ASSIGN_OR_RETURN(DirectCall call,
                   ParseDirectCall(arguments, "-r", 1, 1, "one path, //host/share/path,"));
  ASSIGN_OR_RETURN(const dfs::DfsPath path, ParseSource(call.positional[0], &call));
  RETURN_IF_ERROR(NeedsName(path));
  DirectContext context(call);
  const std::unique_ptr<dfs::Client> client = context.MakeClient(path);
  return context.Run("", RemovePath(client.get(), path, call.flag));
}

absl::Status Mkdir(const std::vector<std::string>& arguments) {
  ASSIGN_OR_RETURN(DirectCall call,
                   ParseDirectCall(arguments, "-p", 1, 1, "one path, //host/share/path,"));
  ASSIGN_OR_RETURN(const dfs::DfsPath path, ParseSource(call.positional[0], &call));
  RETURN_IF_ERROR(NeedsName(path));
  DirectContext context(call);
  const std::unique_ptr<dfs::Client> client = context.MakeClient(path);
  return context.Run("", MakeFolders(client.get(), path, call.flag));
}

}  // namespace dfscsi::dfsctl
