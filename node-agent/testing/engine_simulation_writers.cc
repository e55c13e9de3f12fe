#include "node-agent/testing/engine_simulation_writers.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/fuse.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>

#include "absl/numeric/bits.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "node-agent/testing/engine_simulation_requests.h"

namespace dfscsi::simulation {

using requests::As;
using requests::BytesOf;
using requests::Name;
using requests::Named;
using requests::Parent;
using runtime::Deadline;
using runtime::Task;

namespace {

// A change may wait for its own server (write_grace, 30 s), and then everything may begin anew.
constexpr absl::Duration kPatience = absl::Seconds(40);
constexpr uint64_t kMostSteps = 30;

}  // namespace

// --- Who writes

void Writers::Start(const std::shared_ptr<Mount>& mount, int writers, int sharers) {
  sharers_ = sharers;
  for (int i = 0; i < writers; ++i) {
    progress_.push_back({.mount = mount});
    ++running_;
    node_.SpawnApplication(Run(mount, progress_.size() - 1));
  }
}

bool Writers::AllGotOnSince(const std::vector<Progress>& before) const {
  for (size_t i = 0; i < before.size(); ++i) {
    if (!progress_[i].mount->gone() && progress_[i].steps < before[i].steps + 2) return false;
  }
  return true;
}

Task<void> Writers::Run(std::shared_ptr<Mount> mount, size_t self) {
  while (!stopping_ && !mount->gone() && !oracle_.failed()) {
    Visit visit{.mount = mount, .link = Lab::kLinks[Below(Lab::kLinks.size())]};
    visit.reachable = ReachableBy(visit.link);
    co_await Work(&visit, self);
    co_await Leave(&visit);
    if (!stopping_) {
      (void)co_await runtime::Sleep(absl::Milliseconds(static_cast<int64_t>(20 + Below(200))),
                                    Deadline::Never());
    }
  }
  --running_;
}

Task<void> Writers::Work(Visit* visit, size_t self) {
  if (!co_await Begin(visit)) {
    ++counts_.left;
    co_return;
  }
  StartSharers(visit);
  const uint64_t steps = 3 + Below(kMostSteps);
  for (uint64_t i = 0; i < steps && !stopping_ && !visit->sharing->left; ++i) {
    if (!co_await DoSomething(visit)) {
      visit->sharing->left = true;
      break;
    }
    ++progress_[self].steps;
    const absl::Duration pause =
        calm_ ? absl::Milliseconds(20)
              : 0.2 * longest_pause_ * (static_cast<double>(Below(1000)) / 1000.0);
    if (!stopping_) (void)co_await runtime::Sleep(pause, Deadline::Never());
  }
  co_await EndSharers(visit);
  if (visit->sharing->left) ++counts_.left;
}

void Writers::CheckEnd() {
  std::set<std::string> known;
  for (const std::unique_ptr<Folder>& folder : folders_) {
    known.insert(folder->name());
    const std::string change = folder->FindChange();
    if (!change.empty()) oracle_.Violation(absl::StrCat("at the end, ", change));
  }
  // What was removed while it was open is gone, but where it was open when its mount ended, or on a
  // copy that the link has left.
  const bool all_stay =
      single_ && std::none_of(progress_.begin(), progress_.end(),
                              [](const Progress& one) { return one.mount->gone(); });
  if (const int hidden = copies_.CountHidden(); all_stay && hidden != 0) {
    oracle_.Violation(absl::StrCat("at the end, ", hidden, " hidden files are left"));
  }
  for (int base = 0; base < Copies::kBases; ++base) known.insert(Copies::BaseName(base));
  for (size_t copy = 0; copy < Copies::kAll.size(); ++copy) {
    for (const std::string& name : copies_.List(copy)) {
      if (!known.contains(name)) {
        oracle_.Violation(absl::StrCat(Copies::kAll[copy].target, " has ", name));
      }
    }
  }
}

// Where nothing fails over, the first target serves.
CopySet Writers::ReachableBy(const std::string& link) const {
  if (!stays_ && !single_) return Copies::kEvery;
  if (link == "two") return 1u << 0;
  if (link == "inter") return 1u << 1;
  return 1u << 2;
}

// --- Asking

Task<Writers::Answer> Writers::Ask(Visit* visit, uint32_t opcode, uint64_t node, std::string body) {
  absl::Duration signal = absl::InfiniteDuration();
  if (!calm_ && Below(60) == 0) signal = absl::Milliseconds(static_cast<int64_t>(Below(1500)));
  const Mount::Answer answer =
      co_await visit->mount->Ask(opcode, node, std::move(body), visit->link, signal, kPatience);
  co_return Answer{
      .error = answer.error, .body = answer.body, .signalled = signal != absl::InfiniteDuration()};
}

bool Writers::Accept(const Visit& visit, const Answer& answer, uint32_t opcode,
                     std::string_view path) {
  if (oracle_.failed()) return false;
  if (answer.error == 0) return true;
  const bool unsettled = node_.world().now() <= lab_.UnsettledUntil(visit.link);
  const bool gone = answer.error == ENOENT || answer.error == ESTALE || answer.error == ENOTDIR;
  // A path of the folder: the link may have moved to a copy that does not have it.
  const bool moved = gone && visit.reachable == Copies::kEvery && visit.folder != nullptr;
  if (answer.error == ESTALE && &visit != visit.sharing->writer) ++counts_.stale;
  if (visit.mount->gone() || (answer.error == EINTR && answer.signalled) || moved ||
      (unsettled && (gone || answer.error == EIO))) {
    return false;
  }
  oracle_.Violation(absl::StrCat("opcode ", opcode, " of \"", std::string(path), "\" in ",
                                 visit.folder == nullptr ? "no folder" : visit.folder->name(),
                                 " below link \"", visit.link, "\" of mount ", visit.mount->id(),
                                 ": ", strerror(answer.error)));
  return false;
}

bool Writers::CheckUnchanged(const Visit& visit, const Step& step) {
  const std::string change = visit.folder->FindChange();
  if (change.empty()) return true;
  oracle_.Violation(absl::StrCat("before ", step.ToString(), ", ", change));
  return false;
}

Task<bool> Writers::Do(Visit* visit, Step step, uint32_t opcode, uint64_t node, std::string body,
                       std::string* reply, Folder::Outcome* outcome, Folder::Files files) {
  const std::shared_ptr<Reserved> reserved = co_await Reserve(visit, NeededBy(*visit, step, files));
  if (visit->sharing->left || !CheckUnchanged(*visit, step)) co_return false;
  const int number = visit->folder->Begin(step, files, visit->reachable);
  const bool names = step.ChangesNames();
  if (names) {
    visit->sharing->names_change = true;
    visit->sharing->names.NotifyAll();
  }
  const absl::Time asked = node_.world().now();
  Answer answer = co_await Ask(visit, opcode, node, std::move(body));
  if (names) visit->sharing->names_change = false;
  co_return Settle(visit, step, std::move(answer), asked, reply, outcome, files, number);
}

bool Writers::Settle(Visit* visit, const Step& step, Answer answer, absl::Time asked,
                     std::string* reply, Folder::Outcome* outcome, const Folder::Files& files,
                     int number) {
  ++counts_.steps;
  if (oracle_.failed()) return false;
  const bool shared = visit != visit->sharing->writer;
  if (shared) {
    ++counts_.shared;
    counts_.beside += visit->sharing->names_change ? 1 : 0;
    counts_.stale += answer.error == ESTALE ? 1 : 0;
  }
  const bool nameless = step.kind == Step::Kind::kOpen && step.through_handle &&
                        (answer.error == ENOENT || answer.error == ESTALE) &&
                        visit->folder->MayBeNameless(files);
  // What a dead agent had locked stays so while its process of the server hangs.
  const bool locked =
      answer.error == EACCES && sharers_ > 0 && IsLockedByFormer(*visit, step, files);
  if (nameless || locked) {
    visit->folder->End(number);
    return CheckUnchanged(*visit, step);
  }
  if (visit->mount->gone() && answer.error != 0) answer.error = ENOTCONN;
  const bool unsettled = node_.world().now() <= lab_.UnsettledUntil(visit->link);
  *outcome = visit->folder->Settle(step, answer.error, visit->reachable, unsettled, files, number);
  if (!outcome->violation.empty()) {
    oracle_.Violation(absl::StrCat(outcome->violation, "\n    link \"", visit->link, "\", mount ",
                                   visit->mount->id(), ", asked ",
                                   absl::FormatDuration(node_.world().now() - asked), " ago"));
    return false;
  }
  node_.world().Log(absl::StrCat(shared ? "sharer: " : "writer: ", visit->folder->name(), " ",
                                 step.ToString(), ": ",
                                 answer.error == 0 ? "done" : strerror(answer.error)));
  if (answer.error == 0) {
    ++counts_.done;
    // The names of the copy that serves now, as far as that can be told.
    if ((outcome->where & (1u << visit->view)) == 0) {
      visit->view = static_cast<size_t>(absl::countr_zero(outcome->where));
    }
    *reply = std::move(answer.body);
    return true;
  }
  if (outcome->unknown) {
    if (answer.error == EIO) ++counts_.unknown;
    if (answer.error == EIO && stays_ && !step.appends && !unsettled) {
      oracle_.Violation(absl::StrCat("EIO although every server is well: ", step.ToString()));
    }
    if (answer.error == EINTR && !answer.signalled) {
      oracle_.Violation(absl::StrCat("EINTR without a signal: ", step.ToString()));
    }
    return false;
  }
  // Refused, as it must be; by a copy that does not have the folder it is over.
  const bool gone = answer.error == ESTALE || !visit->folder->on(visit->view).Has("") ||
                    (outcome->where & (1u << visit->view)) == 0;
  return !gone;
}

Task<int> Writers::AwaitWritten(Visit* visit, uint64_t handle) {
  fuse_fsync_in sync = {};
  sync.fh = handle;
  fuse_flush_in flush = {};
  flush.fh = handle;
  const bool closes = Below(2) == 0;
  const auto ask = [&](bool by_flush) {
    return visit->mount->Ask(by_flush ? FUSE_FLUSH : FUSE_FSYNC, FUSE_ROOT_ID,
                             by_flush ? BytesOf(flush) : BytesOf(sync), visit->link,
                             absl::InfiniteDuration(), kPatience);
  };
  const Mount::Answer answer = co_await ask(closes);
  if (answer.error == 0 || visit->mount->gone() || oracle_.failed()) co_return answer.error;
  // A handle that is stale has lost it, too.
  if (answer.error != EIO && answer.error != EHOSTDOWN && answer.error != ESTALE) {
    oracle_.Violation(absl::StrCat("a WRITE that was answered failed: ", strerror(answer.error)));
  }
  // Closing asks no server: what it says once more is what was told.
  const Mount::Answer again = co_await ask(/*by_flush=*/true);
  if (again.error != 0 && !visit->mount->gone()) {
    oracle_.Violation(absl::StrCat("a lost WRITE is told twice: ", strerror(again.error)));
  }
  co_return EIO;
}

// --- Files, one after the other

class Writers::Reserved {
 public:
  Reserved(std::shared_ptr<Sharing> sharing, std::set<uint64_t> files)
      : sharing_(std::move(sharing)), files_(std::move(files)) {
    sharing_->busy.insert(files_.begin(), files_.end());
  }
  Reserved(const Reserved&) = delete;
  ~Reserved() {
    for (const uint64_t file : files_) sharing_->busy.erase(file);
    sharing_->changed.NotifyAll();
  }

 private:
  const std::shared_ptr<Sharing> sharing_;
  const std::set<uint64_t> files_;
};

std::set<uint64_t> Writers::NeededBy(const Visit& visit, const Step& step,
                                     const Folder::Files& files) const {
  std::set<uint64_t> needed = visit.folder->FilesOf(step, files);
  // The kernel locks an inode while it is cut, its times are set, its names are changed, or
  // something is appended; but not while its pages are written, or read.
  std::set<uint64_t> locked;
  if (step.ChangesNames()) {
    for (const std::string& path : {step.path, step.target}) {
      locked.merge(visit.folder->FilesOf({.path = path}, {}));
    }
  } else if (step.kind == Step::Kind::kTruncate || step.kind == Step::Kind::kSetTime ||
             (step.kind == Step::Kind::kWrite && step.appends)) {
    locked = needed;
  }
  for (const uint64_t file : locked) needed.insert(file | kInodeLock);
  return needed;
}

Task<std::shared_ptr<Writers::Reserved>> Writers::Reserve(Visit* visit, std::set<uint64_t> files) {
  Sharing& sharing = *visit->sharing;
  if (files.empty()) co_return nullptr;
  while (std::any_of(files.begin(), files.end(),
                     [&](uint64_t file) { return sharing.busy.contains(file); })) {
    (void)co_await sharing.changed.WaitForNotify(Deadline::Never());
  }
  co_return std::make_shared<Reserved>(visit->sharing, std::move(files));
}

// --- Names

bool Writers::IsOpen(const Visit& visit, const std::string& path) const {
  const uint64_t file = visit.folder->on(visit.view).FileAt(path);
  return file != 0 &&
         std::any_of(visit.handles.begin(), visit.handles.end(),
                     [&](const Handle& handle) { return handle.files[visit.view] == file; });
}

// Of what there is; "" of files: there is none.
std::string Writers::SomePath(const Visit& visit, bool directory) {
  const TreeModel& model = visit.folder->on(visit.view);
  std::vector<std::string> paths;
  for (const std::string& path : model.Paths()) {
    if ((model.FileAt(path) == 0) == directory) paths.push_back(path);
  }
  return paths.empty() ? "" : paths[Below(paths.size())];
}

std::string Writers::NewPath(Visit* visit) {
  // Few names, so that many are used again.
  const std::string directory = SomePath(*visit, /*directory=*/true);
  std::string name = absl::StrCat("n", Below(kMostNames));
  if (Parent(directory) == "" && !directory.empty()) return absl::StrCat(directory, "/", name);
  return name;
}

std::string Writers::Bytes() {
  std::string bytes(Below(8) == 0 ? 1 + Below(50'000) : 1 + Below(3'000), '\0');
  uint64_t word = Random();
  for (char& byte : bytes) {
    word = word * 6364136223846793005u + 1442695040888963407u;
    byte = static_cast<char>('a' + (word >> 59) % 26);
  }
  return bytes;
}

Task<bool> Writers::Find(Visit* visit, std::string path, uint64_t* node) {
  if (const auto known = visit->nodes.find(path); known != visit->nodes.end() && Below(3) != 0) {
    *node = known->second;
    co_return true;
  }
  uint64_t parent = visit->work;
  std::string name = visit->folder->name();
  if (!path.empty()) {
    if (!co_await Find(visit, Parent(path), &parent)) co_return false;
    name = Name(path);
  }
  const std::shared_ptr<Reserved> reserved =
      co_await Reserve(visit, visit->folder->FilesOf({.path = path}, {}));
  const Answer answer = co_await Ask(visit, FUSE_LOOKUP, parent, Named("", name));
  if (!Accept(*visit, answer, FUSE_LOOKUP, path)) co_return false;
  const auto entry = As<fuse_entry_out>(answer.body);
  visit->lookups.emplace_back(entry.nodeid, 1);
  visit->nodes[path] = *node = entry.nodeid;
  if (!visit->folder->MayHaveSize(path, entry.attr.size, visit->reachable)) {
    oracle_.Violation(
        absl::StrCat("LOOKUP of ", visit->folder->name(), "/", path, ": size ", entry.attr.size));
    co_return false;
  }
  co_return true;
}

Task<bool> Writers::LookUp(Visit* visit, uint64_t parent, std::string name, uint64_t* node) {
  const Answer answer = co_await Ask(visit, FUSE_LOOKUP, parent, Named("", name));
  if (!Accept(*visit, answer, FUSE_LOOKUP, name)) co_return false;
  *node = As<fuse_entry_out>(answer.body).nodeid;
  visit->lookups.emplace_back(*node, 1);
  co_return true;
}

Task<bool> Writers::Begin(Visit* visit) {
  visit->sharing->writer = visit;
  uint64_t link = 0;
  if (!co_await LookUp(visit, FUSE_ROOT_ID, visit->link, &link)) co_return false;
  if (!co_await LookUp(visit, link, Copies::kFolder, &visit->work)) co_return false;
  // Of sharers, the file of a name must be one: what single copies hold is the others' matter.
  const bool may_be_base = sharers_ == 0 || single_;
  const bool base = bases_ < Copies::kBases && Below(4) == 0 && may_be_base;
  folders_.push_back(std::make_unique<Folder>(
      copies_, base ? Copies::BaseName(bases_) : absl::StrCat("w", folders_.size())));
  visit->folder = folders_.back().get();
  if (base) {
    visit->folder->TakeBase(bases_++, last_file_ + 1);
    last_file_ += Copies::kBaseFiles.size();
    visit->view = static_cast<size_t>(absl::countr_zero(visit->reachable));
    co_return true;
  }
  co_return co_await MakeDirectory(visit, "");
}

Task<void> Writers::Leave(Visit* visit) {
  while (!visit->handles.empty()) (void)co_await Release(visit, visit->handles.size() - 1);
  for (const auto& [node, count] : visit->lookups) visit->mount->Forget(node, count);
}

Task<bool> Writers::Release(Visit* visit, size_t handle) {
  const Handle closed = visit->handles[handle];
  visit->handles.erase(visit->handles.begin() + static_cast<int64_t>(handle));
  if (closed.owner != 0) co_await GiveBackLocks(visit, closed);
  // A time that is set beside a CLOSE may be replaced by that of what was written before.
  std::shared_ptr<Reserved> reserved;
  if (sharers_ > 0 && closed.writes) reserved = co_await Reserve(visit, FilesOf(closed));
  fuse_release_in release = {};
  release.fh = closed.fh;
  const Mount::Answer answer =
      co_await visit->mount->Ask(FUSE_RELEASE, FUSE_ROOT_ID, BytesOf(release), "");
  if (answer.error != 0 && !visit->mount->gone() && !oracle_.failed()) {
    oracle_.Violation(absl::StrCat("RELEASE: ", strerror(answer.error)));
  }
  co_return true;
}

}  // namespace dfscsi::simulation
