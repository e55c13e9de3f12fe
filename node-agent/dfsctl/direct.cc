#include "node-agent/dfsctl/direct.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <deque>
#include <filesystem>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "node-agent/agent/failure.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/dfs/client.h"
#include "node-agent/dfs/path.h"
#include "node-agent/dfsctl/credentials_file.h"
#include "node-agent/dfsctl/output_file.h"
#include "node-agent/runtime/real_loop.h"
#include "node-agent/smb/auth/gss_authenticator.h"
#include "node-agent/smb/session_pool.h"
#include "node-agent/smb/tree.h"
#include "node-agent/smb/wire/directory.h"
#include "node-agent/smb/wire/reparse.h"
#include "node-agent/smb/wire/utf16.h"

namespace dfscsi::dfsctl {
namespace {

using runtime::Deadline;
using runtime::Task;

// An error is to be told within 20 s.
constexpr absl::Duration kAnswerTime = absl::Seconds(15);

struct Call {
  dfs::DfsPath source;
  std::optional<std::string> file;
  smb::Credential credential;
  smb::Options options;
};

// As of a mount's options.
bool IsSecretOption(absl::string_view name) {
  return name == "password" || name == "pass" || name == "passwd" || name == "password2";
}

// dialects and algorithms by name, for the matrix of servers that require one each.
absl::Status ApplyOption(absl::string_view option, smb::Options& options) {
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(option, absl::MaxSplits('=', 1));
  const auto [key, value] = parts;
  using wire = smb::wire::Dialect;
  if (key == "vers") {
    static constexpr std::pair<absl::string_view, wire> kDialects[] = {
        {"2.1", wire::k210}, {"3.0", wire::k300}, {"3.0.2", wire::k302}, {"3.1.1", wire::k311}};
    for (const auto& [name, dialect] : kDialects) {
      if (value == name) {
        options.lowest_dialect = options.highest_dialect = dialect;
        return absl::OkStatus();
      }
    }
    if (value == "3" || value == "default") {
      options.lowest_dialect = wire::k300;
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(
        absl::StrCat("vers=", std::string(value),
                     ": not one of 2.1, 3.0, 3.0.2, 3.1.1, 3 (SMB1 is not spoken)"));
  }
  if (key == "seal" && value.empty()) {
    options.encryption = smb::Encryption::kRequired;
    return absl::OkStatus();
  }
  if (key == "sign" && value.empty()) {
    options.signing = smb::Signing::kRequired;
    return absl::OkStatus();
  }
  if (key == "nosign" && value.empty()) {
    options.signing = smb::Signing::kIfRequired;
    return absl::OkStatus();
  }
  // The name only: a value may be a secret.
  const std::string name(key.substr(0, 100));
  if (IsSecretOption(name)) {
    return absl::InvalidArgumentError(
        absl::StrCat("option ", name, ": secrets are read from a credentials file only"));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown option '", name, "': vers=, sign, nosign or seal"));
}

absl::StatusOr<Call> ParseCall(const std::vector<std::string>& arguments, bool may_have_file) {
  std::vector<std::string> positional;
  std::optional<smb::Credential> credential;
  smb::Options options;
  for (size_t i = 0; i < arguments.size(); ++i) {
    std::string flag = arguments[i];
    std::optional<std::string> value;
    if (const size_t equals = flag.find('=');
        absl::StartsWith(flag, "--") && equals != std::string::npos) {
      value = flag.substr(equals + 1);
      flag.resize(equals);
    }
    if (flag == "-o" || flag == "--options" || flag == "--credentials") {
      if (!value.has_value()) {
        if (i + 1 == arguments.size()) {
          return absl::InvalidArgumentError(absl::StrCat(flag, " needs a value"));
        }
        value = arguments[++i];
      }
      if (flag != "--credentials") {
        for (absl::string_view option : absl::StrSplit(*value, ',', absl::SkipEmpty())) {
          RETURN_IF_ERROR(ApplyOption(option, options));
        }
      } else {
        absl::StatusOr<smb::Credential> read = ReadCredentialsFile(*value);
        if (!read.ok()) return agent::WithReason(read.status(), agent::v1::BAD_ARGUMENT);
        credential = *std::move(read);
      }
    } else if (absl::StartsWith(flag, "-") && flag != "-") {
      return absl::InvalidArgumentError(absl::StrCat("unknown flag ", flag));
    } else {
      positional.push_back(arguments[i]);
    }
  }
  if (positional.empty() || positional.size() > (may_have_file ? 2u : 1u)) {
    return absl::InvalidArgumentError("one source, //host/share[/path], is needed");
  }
  if (!credential.has_value()) {
    return absl::InvalidArgumentError(
        "--credentials FILE is needed (username=, password=, domain=)");
  }
  ASSIGN_OR_RETURN(dfs::DfsPath source, dfs::DfsPath::Parse(positional[0]));
  if (const std::optional<uint16_t> port = source.Port()) {  // host@port; not its links' targets.
    options.port = *port;
    options.port_host = std::string(source.HostName());
    source = source.WithoutPort();
  }
  Call call{.source = std::move(source), .credential = *std::move(credential), .options = options};
  if (positional.size() == 2 && positional[1] != "-") call.file = positional[1];
  return call;
}

std::string AuthProgram() {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  return (self.parent_path() / "dfs-auth").string();
}

// What both commands need: a namespace seen by one credential.
struct Context {
  explicit Context(const Call& call)
      : authenticators(loop, AuthProgram()),
        pool(call.options, authenticators, nullptr),
        client(call.source, call.credential, {.give_up_after = kAnswerTime}, pool, cache, domains,
               health) {}
  runtime::RealLoop loop;
  smb::auth::GssAuthenticatorFactory authenticators;
  smb::SessionPool pool;
  dfs::ReferralCache cache;
  dfs::DomainCache domains;
  dfs::TargetHealthTable health;
  dfs::Client client;
};

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

Task<absl::Status> GetFile(Context* context, const Call* call, int out) {
  uint64_t written = 0;
  co_return co_await context->client.Run(
      call->source,
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
    std::string name;
    smb::wire::AppendUtf8(entry->name, &name);
    lines->push_back(LineOf(entry->attributes, entry->reparse_tag, name));
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

Task<absl::Status> List(Context* context, const Call* call) {
  std::vector<std::string> lines;
  CO_RETURN_IF_ERROR(co_await context->client.Run(
      call->source,
      [call, &lines](dfs::Binding binding) {
        return ListOn(std::move(binding), call->source.ToString(), &lines);
      },
      {}, Deadline::Never()));
  for (const std::string& line : lines) puts(line.c_str());
  co_return absl::OkStatus();
}

absl::Status RunOnLoop(Context& context, const std::string& source, Task<absl::Status> task) {
  struct Runner {
    static Task<void> Run(Task<absl::Status> work, absl::Status* result) {
      *result = co_await work;
    }
  };
  absl::Status result;
  context.loop.RunUntilDone(Runner::Run(std::move(task), &result));
  if (result.ok()) return result;
  return agent::WithReason(
      absl::Status(result.code(), absl::StrCat(source, ": ", agent::ForPeople(result))),
      agent::ReasonOf(result));
}

}  // namespace

absl::Status Get(const std::vector<std::string>& arguments) {
  ASSIGN_OR_RETURN(const Call call, ParseCall(arguments, /*may_have_file=*/true));
  std::optional<OutputFile> file;
  if (call.file.has_value()) {
    ASSIGN_OR_RETURN(OutputFile opened, OutputFile::Open(*call.file));
    file.emplace(std::move(opened));
  }
  Context context(call);
  RETURN_IF_ERROR(
      RunOnLoop(context, call.source.ToString(),
                GetFile(&context, &call, file.has_value() ? file->fd() : STDOUT_FILENO)));
  return file.has_value() ? file->Commit() : absl::OkStatus();
}

absl::Status Ls(const std::vector<std::string>& arguments) {
  ASSIGN_OR_RETURN(const Call call, ParseCall(arguments, /*may_have_file=*/false));
  Context context(call);
  return RunOnLoop(context, call.source.ToString(), List(&context, &call));
}

}  // namespace dfscsi::dfsctl
