// smb-write-probe AUTH_PROGRAM CREDENTIALS: one client of smb/, driven line by line, to be compared
// with what then lies on a real server's disk.
//
// A line of input is a word that the answer repeats, a command, and its arguments; "key=value"
// arguments stand in any order. Commands run side by side: a lock that waits does not hold up the
// next line. The answer is "WORD ok …" or "WORD error STATUS …". A lease break that comes by itself
// is "break KEY FROM TO MUST_ACKNOWLEDGE" (states as letters of RWH, "-" for none).
//
//   connect HOST SHARE                  also after the connection was lost
//   open NAME PATH [how=open|create|open_if|overwrite] [access=HEX] [lease=KEY:STATE] [durable]
//                  [share=0..7] [delete_on_close] [directory] [looks: at its directory]
//   reopen NAME                         the durable handle, over the new connection; or "gone"
//   close NAME
//   write NAME OFFSET TEXT | fill NAME OFFSET SIZE | append NAME TEXT | read NAME OFFSET SIZE
//   flush NAME | eof NAME SIZE | allocation NAME SIZE | mtime NAME SECONDS | attributes NAME HEX
//   disposition NAME 0|1 | move NAME PATH | hardlink NAME PATH
//   lock NAME OFFSET SIZE [shared] [wait] [within=SECONDS] | unlock NAME OFFSET SIZE
//   mkdir PATH | rm PATH | rmdir PATH | mv FROM TO [replace] | ln PATH TO | truncate PATH SIZE
//   chmod PATH HEX | stat PATH
//   copy FROM OFFSET TO OFFSET SIZE | sparse NAME | zero NAME OFFSET BEYOND | ranges NAME SIZE
//   setea NAME KEY VALUE | getea NAME | symlink NAME TARGET
//   acknowledge KEY STATE | lease KEY

#include <stdio.h>
#include <unistd.h>

#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "node-agent/runtime/real_loop.h"
#include "node-agent/smb/auth/gss_authenticator.h"
#include "node-agent/smb/session_pool.h"
#include "node-agent/smb/wire/file_name.h"
#include "node-agent/smb/wire/filetime.h"

namespace dfscsi::testing {
namespace {

using runtime::Deadline;
using runtime::Task;
using smb::wire::Disposition;

constexpr absl::Duration kAnswerTime = absl::Seconds(60);

Deadline Soon() { return Deadline::After(kAnswerTime); }

std::string StateName(uint32_t state) {
  std::string name;
  if ((state & smb::wire::kLeaseRead) != 0) name += 'R';
  if ((state & smb::wire::kLeaseWrite) != 0) name += 'W';
  if ((state & smb::wire::kLeaseHandle) != 0) name += 'H';
  return name.empty() ? "-" : name;
}

uint32_t StateOf(std::string_view name) {
  uint32_t state = 0;
  for (const char c : name) {
    if (c == 'R') state |= smb::wire::kLeaseRead;
    if (c == 'W') state |= smb::wire::kLeaseWrite;
    if (c == 'H') state |= smb::wire::kLeaseHandle;
  }
  return state;
}

smb::wire::Bytes BytesOf(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

std::u16string Wide(const std::string& path) { return smb::wire::WirePath(path).value_or(u"?"); }

// A line's arguments: in order, and by name.
class Arguments {
 public:
  explicit Arguments(std::vector<std::string> words) {
    for (std::string& word : words) {
      const size_t equals = word.find('=');
      if (equals == std::string::npos) {
        flags_.insert(word);
        words_.push_back(std::move(word));
      } else {
        named_[word.substr(0, equals)] = word.substr(equals + 1);
      }
    }
  }
  std::string Word(size_t i) const { return i < words_.size() ? words_[i] : ""; }
  uint64_t Number(size_t i) const {
    uint64_t number = 0;
    (void)absl::SimpleAtoi(Word(i), &number);
    return number;
  }
  uint32_t Hex(size_t i) const { return HexOf(Word(i)); }
  bool Has(const std::string& flag) const { return flags_.contains(flag); }
  std::string Named(const std::string& name, const std::string& otherwise = "") const {
    const auto found = named_.find(name);
    return found == named_.end() ? otherwise : found->second;
  }
  static uint32_t HexOf(const std::string& text) {
    return static_cast<uint32_t>(strtoul(text.c_str(), nullptr, 16));
  }

 private:
  std::vector<std::string> words_;
  std::set<std::string> flags_;
  std::map<std::string, std::string> named_;
};

std::string Said(const absl::Status& status) {
  if (status.ok()) return "ok";
  const auto nt = smb::wire::NtStatusOf(status);
  return absl::StrCat("error ", nt.has_value() ? smb::wire::NtStatusName(*nt) : "-", " ",
                      std::string(status.message()));
}

// So that a new session ends the one that was lost, at once.
class Sessions final : public smb::SessionMemory {
 public:
  uint64_t PreviousSessionId(const std::string& host, const std::string& identity) override {
    return ids_[host + identity];
  }
  void RememberSessionId(const std::string& host, const std::string& identity,
                         uint64_t session_id) override {
    ids_[host + identity] = session_id;
  }
  absl::Duration RefusedFor(const std::string& host, const std::string& identity) override {
    return absl::ZeroDuration();
  }
  void RememberRefusal(const std::string& host, const smb::Credential& credential,
                       const absl::Status& refused) override {}

 private:
  std::map<std::string, uint64_t> ids_;
};

class Probe final : public smb::LeaseObserver, public std::enable_shared_from_this<Probe> {
 public:
  Probe(runtime::RealLoop& loop, const std::string& auth_program, smb::Credential credential)
      : loop_(loop),
        authenticators_(loop, auth_program),
        pool_(MakeOptions(), authenticators_, &sessions_),
        credential_(std::move(credential)) {}

  Task<void> FollowInput() {
    const std::unique_ptr<runtime::FdWatch> watch = loop_.Watch(STDIN_FILENO);
    std::string pending;
    while (true) {
      // Ends with the input.
      if (!(co_await watch->WaitReadable(Deadline::Never())).ok()) co_return;
      char bytes[65536];
      const ssize_t n = read(STDIN_FILENO, bytes, sizeof bytes);
      if (n == 0) co_return;
      if (n < 0) continue;
      pending.append(bytes, static_cast<size_t>(n));
      for (size_t end = pending.find('\n'); end != std::string::npos; end = pending.find('\n')) {
        tasks_.Spawn(Answer(pending.substr(0, end)));
        pending.erase(0, end + 1);
      }
    }
  }

  void OnLeaseBreak(const smb::LeaseBreak& broken) override {
    printf("break %d %s %s %d\n", broken.key[0], StateName(broken.from).c_str(),
           StateName(broken.to).c_str(), broken.must_acknowledge ? 1 : 0);
    fflush(stdout);
  }

 private:
  struct Handle {
    std::shared_ptr<smb::Tree> tree;
    smb::wire::CreateRequest request;
    smb::wire::FileId id;
  };

  static smb::Options MakeOptions() {
    smb::Options options;
    for (uint8_t& byte : options.client_guid) {
      byte = static_cast<uint8_t>(runtime::Loop::Current().Random());
    }
    return options;
  }

  Task<void> Answer(std::string line) {
    std::vector<std::string> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
    if (words.size() < 2) co_return;
    const std::string word = words[0];
    const std::string command = words[1];
    words.erase(words.begin(), words.begin() + 2);
    const std::string said = co_await Do(command, Arguments(std::move(words)));
    printf("%s %s\n", word.c_str(), said.c_str());
    fflush(stdout);
  }

  Task<std::string> Do(std::string command, Arguments arguments) {
    if (command == "connect") co_return co_await Connect(std::move(arguments));
    if (tree_ == nullptr) co_return "error - not connected";
    if (command == "open") co_return co_await Open(std::move(arguments));
    if (command == "mkdir" || command == "rm" || command == "rmdir" || command == "mv" ||
        command == "ln" || command == "truncate" || command == "chmod" || command == "stat") {
      co_return co_await DoPath(std::move(command), std::move(arguments));
    }
    if (command == "acknowledge") {
      co_return Said(co_await tree_->session().AcknowledgeLease(
          {static_cast<uint8_t>(arguments.Number(0))}, StateOf(arguments.Word(1)), Soon()));
    }
    if (command == "lease") {
      co_return absl::StrCat("ok ", StateName(tree_->session().leases().StateOf(
                                        {static_cast<uint8_t>(arguments.Number(0))})));
    }
    if (!handles_.contains(arguments.Word(0))) co_return "error - no such handle";
    if (command == "reopen") co_return co_await Reopen(std::move(arguments));
    if (command == "setea" || command == "getea" || command == "symlink" || command == "copy" ||
        command == "sparse" || command == "zero" || command == "ranges") {
      co_return co_await DoSpecial(std::move(command), std::move(arguments));
    }
    co_return co_await DoHandle(std::move(command), std::move(arguments));
  }

  Task<std::string> Connect(Arguments arguments) {
    smb::ConnectPhase phase;
    auto tree =
        co_await pool_.GetTree(arguments.Word(0), arguments.Word(1), credential_, &phase, Soon());
    if (!tree.ok()) co_return Said(tree.status());
    tree_ = *tree;
    co_return "ok";
  }

  Task<std::string> Open(Arguments arguments) {
    Handle handle{.tree = tree_, .request = {}, .id = {}};
    smb::wire::CreateRequest& request = handle.request;
    request.name = Wide(arguments.Word(1));
    request.desired_access = Arguments::HexOf(arguments.Named("access", "12019f"));
    static const auto* const dispositions =
        new std::map<std::string, Disposition>{{"open", Disposition::kOpen},
                                               {"create", Disposition::kCreate},
                                               {"open_if", Disposition::kOpenIf},
                                               {"overwrite", Disposition::kOverwrite}};
    request.disposition = dispositions->at(arguments.Named("how", "open_if"));
    request.share_access = Arguments::HexOf(arguments.Named("share", "7"));
    if (arguments.Has("delete_on_close")) request.options |= smb::wire::kOptionDeleteOnClose;
    if (arguments.Has("directory")) request.options |= smb::wire::kOptionDirectory;
    if (const std::string lease = arguments.Named("lease"); !lease.empty()) {
      const std::pair<std::string, std::string> parts = absl::StrSplit(lease, ':');
      request.lease = smb::wire::Lease{.key = {static_cast<uint8_t>(atoi(parts.first.c_str()))},
                                       .state = StateOf(parts.second)};
    }
    if (arguments.Has("durable")) {
      request.durable.emplace();
      for (uint8_t& byte : request.durable->create_guid) {
        byte = static_cast<uint8_t>(runtime::Loop::Current().Random());
      }
    }
    const auto opened = co_await tree_->Create(
        request, Soon(),
        {.observer = weak_from_this(), .looks_at_directory = arguments.Has("looks")});
    if (!opened.ok()) co_return Said(opened.status());
    handle.id = opened->file_id;
    handles_[arguments.Word(0)] = std::move(handle);
    co_return Describe(*opened);
  }

  static std::string Describe(const smb::OpenedFile& opened) {
    const smb::wire::CreateResponse& response = opened.response;
    return absl::StrCat(
        "ok action=", static_cast<uint32_t>(response.action),
        " lease=", response.lease.has_value() ? StateName(response.lease->state) : "none",
        " durable=", response.durable.has_value() ? response.durable->timeout_ms : 0,
        " persistent_id=", opened.file_id.persistent_id, " size=", response.attributes.end_of_file,
        opened.directory.has_value() ? absl::StrCat(" directory=", opened.directory->file_id) : "");
  }

  Task<std::string> Reopen(Arguments arguments) {
    Handle& handle = handles_.at(arguments.Word(0));
    const auto opened = co_await tree_->Reconnect(handle.request, handle.id, Soon(),
                                                  {.observer = weak_from_this()});
    if (!opened.ok()) co_return Said(opened.status());
    if (!opened->has_value()) co_return "gone";
    handle.tree = tree_;
    handle.id = (*opened)->file_id;
    co_return Describe(**opened);
  }

  Task<std::string> DoPath(std::string command, Arguments arguments) {
    const std::u16string path = Wide(arguments.Word(0));
    const bool replace = arguments.Has("replace");
    if (command == "mkdir") co_return Said((co_await tree_->MakeDirectory(path, Soon())).status());
    if (command == "rm") {
      co_return Said(co_await tree_->Remove(path, smb::FileType::kFile, Soon()));
    }
    if (command == "rmdir") {
      co_return Said(co_await tree_->Remove(path, smb::FileType::kDirectory, Soon()));
    }
    if (command == "mv") {
      co_return Said(co_await tree_->RenamePath(
          path, {.replace = replace, .target = Wide(arguments.Word(1))}, Soon()));
    }
    if (command == "ln") {
      co_return Said(co_await tree_->LinkPath(path, {.target = Wide(arguments.Word(1))}, Soon()));
    }
    if (command == "truncate") {
      co_return Said(co_await tree_->Truncate(path, arguments.Number(1), Soon()));
    }
    if (command == "chmod") {
      co_return Said(
          co_await tree_->SetBasicOfPath(path, {.attributes = arguments.Hex(1)}, Soon()));
    }
    const auto status = co_await tree_->Stat(path, Soon());
    if (!status.ok()) co_return Said(status.status());
    co_return absl::StrCat("ok size=", status->attributes.end_of_file,
                           " attributes=", absl::Hex(status->attributes.attributes));
  }

  Task<std::string> DoHandle(std::string command, Arguments arguments) {
    const Handle handle = handles_.at(arguments.Word(0));
    smb::Tree& tree = *handle.tree;
    const uint64_t number = arguments.Number(1);
    if (command == "close") {
      handles_.erase(arguments.Word(0));
      co_return Said(co_await tree.Close(handle.id, Soon()));
    }
    if (command == "write") {
      const std::string text = arguments.Word(2);
      co_return Said(co_await tree.Write(handle.id, number, BytesOf(text), Soon()));
    }
    if (command == "fill") {
      std::string content(arguments.Number(2), '\0');
      for (size_t i = 0; i < content.size(); ++i) {
        content[i] = static_cast<char>((number + i) * 2654435761U >> 24);
      }
      co_return Said(co_await tree.Write(handle.id, number, BytesOf(content), Soon()));
    }
    if (command == "append") {
      const std::string text = arguments.Word(1) + "\n";
      co_return Said(co_await tree.Write(handle.id, smb::kAppend, BytesOf(text), Soon()));
    }
    if (command == "read") {
      std::vector<uint8_t> into(arguments.Number(2));
      const auto n = co_await tree.Read(handle.id, number, absl::MakeSpan(into), Soon());
      if (!n.ok()) co_return Said(n.status());
      co_return absl::StrCat("ok ", std::string(into.begin(), into.begin() + *n));
    }
    if (command == "flush") co_return Said(co_await tree.Flush(handle.id, Soon()));
    if (command == "eof") co_return Said(co_await tree.SetEndOfFile(handle.id, number, Soon()));
    if (command == "allocation") {
      co_return Said(co_await tree.SetAllocation(handle.id, number, Soon()));
    }
    if (command == "mtime") {
      const absl::Time when = absl::FromUnixSeconds(static_cast<int64_t>(number));
      co_return Said(co_await tree.SetBasic(
          handle.id, {.last_write_time = smb::wire::FileTimeOf(when)}, Soon()));
    }
    if (command == "attributes") {
      co_return Said(co_await tree.SetBasic(handle.id, {.attributes = arguments.Hex(1)}, Soon()));
    }
    if (command == "disposition") {
      co_return Said(co_await tree.SetDisposition(handle.id, number != 0, Soon()));
    }
    if (command == "move") {
      co_return Said(co_await tree.Rename(handle.id, {.target = Wide(arguments.Word(1))}, Soon()));
    }
    if (command == "hardlink") {
      co_return Said(co_await tree.Link(handle.id, {.target = Wide(arguments.Word(1))}, Soon()));
    }
    if (command == "lock" || command == "unlock") {
      co_return co_await DoLock(command == "lock", handle, std::move(arguments));
    }
    co_return "error - unknown command";
  }

  static Task<std::string> DoLock(bool lock, Handle handle, Arguments arguments) {
    const uint64_t offset = arguments.Number(1);
    const uint64_t size = arguments.Number(2);
    if (!lock) {
      co_return Said(co_await handle.tree->Unlock(handle.id, {{offset, size}}, 0, Soon()));
    }
    uint32_t flags = arguments.Has("shared") ? smb::wire::kLockShared : smb::wire::kLockExclusive;
    if (!arguments.Has("wait")) flags |= smb::wire::kLockFailImmediately;
    const int seconds = atoi(arguments.Named("within", "60").c_str());
    co_return Said(co_await handle.tree->Lock(handle.id, {{offset, size, flags}}, 0,
                                              Deadline::After(absl::Seconds(seconds))));
  }

  Task<std::string> DoSpecial(std::string command, Arguments arguments) {
    const Handle handle = handles_.at(arguments.Word(0));
    smb::Tree& tree = *handle.tree;
    if (command == "setea") {
      co_return Said(co_await tree.SetExtendedAttributes(
          handle.id, {{.name = arguments.Word(1), .value = arguments.Word(2)}}, Soon()));
    }
    if (command == "getea") {
      const auto attributes = co_await tree.GetExtendedAttributes(handle.id, {}, Soon());
      if (!attributes.ok()) co_return Said(attributes.status());
      std::string said = "ok";
      for (const auto& one : *attributes) absl::StrAppend(&said, " ", one.name, "=", one.value);
      co_return said;
    }
    if (command == "symlink") {
      const std::u16string target = Wide(arguments.Word(1));
      co_return Said(co_await tree.SetReparsePoint(
          handle.id,
          smb::wire::SymlinkReparse{
              .relative = true, .substitute_name = target, .print_name = target},
          Soon()));
    }
    if (command == "sparse") co_return Said(co_await tree.SetSparse(handle.id, true, Soon()));
    if (command == "zero") {
      co_return Said(
          co_await tree.SetZero(handle.id, {arguments.Number(1), arguments.Number(2)}, Soon()));
    }
    if (command == "ranges") {
      const auto ranges =
          co_await tree.AllocatedRanges(handle.id, {0, arguments.Number(1)}, Soon());
      if (!ranges.ok()) co_return Said(ranges.status());
      std::string said = "ok";
      for (const auto& range : ranges->ranges) {
        absl::StrAppend(&said, " ", range.offset, "+", range.length_bytes);
      }
      co_return said;
    }
    if (!handles_.contains(arguments.Word(2))) co_return "error - no such handle";
    const Handle target = handles_.at(arguments.Word(2));
    const auto copied = co_await tree.CopyRange(handle.id, arguments.Number(1), target.id,
                                                arguments.Number(3), arguments.Number(4), Soon());
    if (!copied.ok()) co_return Said(copied.status());
    co_return absl::StrCat("ok ", *copied);
  }

  runtime::RealLoop& loop_;
  smb::auth::GssAuthenticatorFactory authenticators_;
  Sessions sessions_;
  smb::SessionPool pool_;
  const smb::Credential credential_;
  std::shared_ptr<smb::Tree> tree_;
  std::map<std::string, Handle> handles_;
  runtime::TaskGroup tasks_;
};

int Main(int argc, char** argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: %s AUTH_PROGRAM CREDENTIALS\n", argv[0]);
    return 2;
  }
  std::ifstream file(argv[2]);
  smb::Credential credential;
  std::string line;
  while (std::getline(file, line)) {
    const std::pair<std::string, std::string> parts = absl::StrSplit(line, absl::MaxSplits('=', 1));
    if (parts.first == "username") credential.user = parts.second;
    if (parts.first == "password") credential.password = Secret(parts.second);
  }
  runtime::RealLoop loop;
  const auto probe = std::make_shared<Probe>(loop, argv[1], std::move(credential));
  loop.RunUntilDone(probe->FollowInput());
  return 0;
}

}  // namespace
}  // namespace dfscsi::testing

int main(int argc, char** argv) { return dfscsi::testing::Main(argc, argv); }
