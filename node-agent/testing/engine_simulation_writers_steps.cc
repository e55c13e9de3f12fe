// What simulated writers do in their folders, step by step.

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/fuse.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "node-agent/testing/engine_simulation_requests.h"
#include "node-agent/testing/engine_simulation_writers.h"

namespace dfscsi::simulation {

using requests::As;
using requests::BytesOf;
using requests::Name;
using requests::Named;
using requests::Parent;
using runtime::Task;

Task<bool> Writers::DoSomething(Visit* visit) {
  const uint64_t what = Below(100);
  const std::string file = SomePath(*visit, /*directory=*/false);
  const size_t handle = visit->handles.empty() ? 0 : Below(visit->handles.size());
  if (what < 14 || file.empty()) co_return co_await CreateFile(visit, NewPath(visit));
  if (what < 24) co_return co_await OpenFile(visit, file);
  if (what < 54 && !visit->handles.empty()) {
    if (what < 42 && visit->handles[handle].writes) co_return co_await Write(visit, handle);
    if (what < 50) co_return co_await ReadBack(visit, handle);
    co_return co_await Sync(visit, handle);
  }
  if (what < 62) co_return co_await SetSizeOrTime(visit, file);
  if (what < 72) {
    const std::string target = Below(2) == 0 ? NewPath(visit) : SomePath(*visit, false);
    if (target == file || visit->folder->on(visit->view).FileAt(target) == 0) {
      if (target == file || visit->folder->on(visit->view).Has(target)) co_return true;
    }
    co_return co_await Rename(visit, file, target, Below(4) != 0);
  }
  if (what < 80) co_return co_await Remove(visit, Below(6) == 0 ? NewPath(visit) : file);
  if (what < 86) {
    const std::string path = NewPath(visit);
    if (absl::StrContains(path, '/')) co_return true;
    co_return co_await MakeDirectory(visit, path);
  }
  if (what < 91) {
    const std::string directory = SomePath(*visit, /*directory=*/true);
    if (directory.empty()) co_return co_await Look(visit);
    if (what < 89) co_return co_await Remove(visit, directory);
    const std::string target = absl::StrCat("n", Below(kMostNames));
    if (visit->folder->on(visit->view).Has(target)) co_return true;
    co_return co_await Rename(visit, directory, target, false);
  }
  if (what < 96 && !visit->handles.empty()) co_return co_await Release(visit, handle);
  co_return co_await Look(visit);
}

Task<bool> Writers::Look(Visit* visit) {
  const std::string path = SomePath(*visit, /*directory=*/false);
  if (path.empty()) co_return true;
  uint64_t node = 0;
  if (!co_await Find(visit, path, &node)) co_return false;
  const std::shared_ptr<Reserved> reserved =
      co_await Reserve(visit, visit->folder->FilesOf({.path = path}, {}));
  const Answer answer =
      co_await Ask(visit, FUSE_GETATTR, node, std::string(sizeof(fuse_getattr_in), '\0'));
  if (!Accept(*visit, answer, FUSE_GETATTR, path)) co_return false;
  const uint64_t size = As<fuse_attr_out>(answer.body).attr.size;
  if (!visit->folder->MayHaveSize(path, size, visit->reachable)) {
    oracle_.Violation(
        absl::StrCat("GETATTR of ", visit->folder->name(), "/", path, ": size ", size));
  }
  co_return !oracle_.failed();
}

Task<bool> Writers::ReadBack(Visit* visit, size_t index) {
  const Handle handle = visit->handles[index];
  fuse_read_in read = {};
  read.fh = handle.fh;
  read.offset = Below(4'000);
  read.size = static_cast<uint32_t>(Below(2) == 0 ? 64 << 10 : 4096);
  const std::shared_ptr<Reserved> reserved = co_await Reserve(visit, FilesOf(handle));
  if (visit->sharing->left) co_return false;
  const Answer answer = co_await Ask(visit, FUSE_READ, FUSE_ROOT_ID, BytesOf(read));
  if (answer.error == EIO && handle.owner != 0) co_return co_await LoseLocks(visit, index);
  if (!Accept(*visit, answer, FUSE_READ, handle.path)) co_return false;
  if (!visit->folder->MayRead(handle.files, read.offset, read.size, answer.body)) {
    oracle_.Violation(absl::StrCat("READ of ", visit->folder->name(), " ", handle.path, " at ",
                                   read.offset, ": ", answer.body.size(), " wrong bytes"));
  }
  co_return !oracle_.failed();
}

Task<bool> Writers::MakeDirectory(Visit* visit, std::string path) {
  uint64_t parent = visit->work;
  if (!path.empty() && !co_await Find(visit, Parent(path), &parent)) co_return false;
  fuse_mkdir_in make = {};
  make.mode = 0755;
  const std::string name = path.empty() ? visit->folder->name() : Name(path);
  std::string reply;
  Folder::Outcome outcome;
  const bool go_on = co_await Do(visit, {.kind = Step::Kind::kMakeDirectory, .path = path},
                                 FUSE_MKDIR, parent, Named(BytesOf(make), name), &reply, &outcome);
  if (!go_on || reply.empty()) co_return go_on && !path.empty();
  const uint64_t node = As<fuse_entry_out>(reply).nodeid;
  visit->lookups.emplace_back(node, 1);
  visit->nodes[path] = node;
  co_return true;
}

Task<bool> Writers::CreateFile(Visit* visit, std::string path) {
  const TreeModel& model = visit->folder->on(visit->view);
  if (model.Has(path) && model.FileAt(path) == 0) co_return true;
  uint64_t parent = 0;
  if (!co_await Find(visit, Parent(path), &parent)) co_return false;
  Step step{.kind = Step::Kind::kCreate, .path = path, .file = ++last_file_};
  step.exclusive = Below(2) == 0;
  step.truncates = !step.exclusive && Below(3) == 0;
  fuse_create_in create = {};
  create.flags = O_RDWR | O_CREAT | (step.exclusive ? O_EXCL : 0) | (step.truncates ? O_TRUNC : 0);
  create.mode = 0644;
  std::string reply;
  Folder::Outcome outcome;
  const bool go_on = co_await Do(visit, step, FUSE_CREATE, parent,
                                 Named(BytesOf(create), Name(path)), &reply, &outcome);
  if (!go_on || reply.empty()) co_return go_on;
  const uint64_t node = As<fuse_entry_out>(reply).nodeid;
  visit->lookups.emplace_back(node, 1);
  visit->nodes[path] = node;
  visit->handles.push_back({.fh = As<fuse_open_out>(reply, sizeof(fuse_entry_out)).fh,
                            .files = outcome.opened,
                            .path = path,
                            .writes = true});
  co_return true;
}

Task<bool> Writers::OpenFile(Visit* visit, std::string path) {
  uint64_t node = 0;
  if (!co_await Find(visit, path, &node)) co_return false;
  const uint64_t how = Below(5);
  Step step{.kind = Step::Kind::kOpen, .path = path, .truncates = how == 0};
  const bool appends = how == 1;
  fuse_open_in open = {};
  open.flags = how == 2 ? O_RDONLY : O_RDWR | (appends ? O_APPEND : 0) | (how == 0 ? O_TRUNC : 0);
  std::string reply;
  Folder::Outcome outcome;
  const bool go_on = co_await Do(visit, step, FUSE_OPEN, node, BytesOf(open), &reply, &outcome);
  if (!go_on || reply.empty()) co_return go_on;
  visit->handles.push_back({.fh = As<fuse_open_out>(reply).fh,
                            .files = outcome.opened,
                            .path = path,
                            .writes = how != 2,
                            .appends = appends});
  co_return true;
}

Task<Writers::Answer> Writers::WriteOnce(Visit* visit, Handle handle, Step* step, int* number) {
  step->offset = Below(4'000);
  step->bytes = Bytes();
  fuse_write_in write = {};
  write.fh = handle.fh;
  write.offset = step->offset;
  write.size = static_cast<uint32_t>(step->bytes.size());
  if (*number == 0) {
    *number = visit->folder->Begin(*step, handle.files, visit->reachable);
  } else {
    visit->folder->Extend(*number, *step);
  }
  Answer answer = co_await Ask(visit, FUSE_WRITE, FUSE_ROOT_ID, BytesOf(write) + step->bytes);
  if (answer.error == 0 && As<fuse_write_out>(answer.body).size != step->bytes.size()) {
    oracle_.Violation("a short WRITE");
  }
  co_return answer;
}

Task<bool> Writers::Write(Visit* visit, size_t index) {
  const Handle handle = visit->handles[index];
  Step step{.kind = Step::Kind::kWrite,
            .path = handle.path,
            .through_handle = true,
            .appends = handle.appends};
  const std::shared_ptr<Reserved> reserved =
      co_await Reserve(visit, NeededBy(*visit, step, handle.files));
  if (visit->sharing->left || !CheckUnchanged(*visit, step)) co_return false;
  const absl::Time asked = node_.world().now();
  int number = 0;
  // Else what is answered is on its server.
  const bool behind = node_.writes_behind() && !handle.appends;
  Answer answer = co_await WriteOnce(visit, handle, &step, &number);
  for (uint64_t more = behind ? Below(3) : 0; more > 0 && answer.error == 0; --more) {
    step.earlier.push_back({.offset = step.offset, .bytes = std::move(step.bytes)});
    ++counts_.early;
    answer = co_await WriteOnce(visit, handle, &step, &number);
  }
  std::string reply;
  Folder::Outcome outcome;
  if (behind && answer.error == 0) answer.error = co_await AwaitWritten(visit, handle.fh);
  if (answer.error == ESTALE && !step.earlier.empty()) {
    // Of this one it is an answer, of those before it there is none yet.
    const int error = co_await AwaitWritten(visit, handle.fh);
    if (error != 0) {
      answer.error = error;
    } else {
      Step before = step;
      before.offset = before.earlier.back().offset;
      before.bytes = before.earlier.back().bytes;
      before.earlier.pop_back();
      step.earlier.clear();
      const bool go_on = Settle(visit, before, {}, asked, &reply, &outcome, handle.files, number);
      if (!go_on) co_return false;
      number = 0;
    }
  }
  const bool go_on = Settle(visit, step, answer, asked, &reply, &outcome, handle.files, number);
  if (!outcome.done) co_return go_on;
  // Its file is that copy's from now on.
  for (size_t copy = 0; copy < Copies::kAll.size(); ++copy) {
    if ((outcome.where & (1u << copy)) == 0) visit->handles[index].files[copy] = 0;
  }
  co_return go_on;
}

Task<bool> Writers::Sync(Visit* visit, size_t index) {
  const Handle handle = visit->handles[index];
  fuse_fsync_in sync = {};
  sync.fh = handle.fh;
  std::string reply;
  Folder::Outcome outcome;
  co_return co_await Do(visit,
                        {.kind = Step::Kind::kSync, .path = handle.path, .through_handle = true},
                        FUSE_FSYNC, FUSE_ROOT_ID, BytesOf(sync), &reply, &outcome, handle.files);
}

Task<bool> Writers::SetSizeOrTime(Visit* visit, std::string path) {
  uint64_t node = 0;
  if (!co_await Find(visit, path, &node)) co_return false;
  fuse_setattr_in set = {};
  Step step{.path = path};
  if (Below(2) == 0) {
    step.kind = Step::Kind::kSetTime;
    step.time = absl::FromUnixSeconds(static_cast<int64_t>(1'400'000'000 + Below(100'000'000)));
    set.valid = FATTR_MTIME;
    set.mtime = static_cast<uint64_t>(absl::ToUnixSeconds(step.time));
  } else {
    step.kind = Step::Kind::kTruncate;
    step.size_bytes = Below(6'000);
    set.valid = FATTR_SIZE;
    set.size = step.size_bytes;
  }
  std::string reply;
  Folder::Outcome outcome;
  const bool go_on = co_await Do(visit, step, FUSE_SETATTR, node, BytesOf(set), &reply, &outcome);
  if (!go_on || reply.empty()) co_return go_on;
  const uint64_t size = As<fuse_attr_out>(reply).attr.size;
  // Where the link has moved in between, what was known last is told.
  const bool knows = sharers_ == 0 || visit->reachable != Copies::kEvery;
  if (knows && !visit->folder->MayHaveSize(path, size, visit->reachable)) {
    oracle_.Violation(
        absl::StrCat("SETATTR of ", visit->folder->name(), "/", path, ": size ", size));
  }
  co_return !oracle_.failed();
}

Task<bool> Writers::Rename(Visit* visit, std::string path, std::string target, bool replaces) {
  uint64_t from = 0;
  uint64_t to = 0;
  if (!co_await Find(visit, Parent(path), &from)) co_return false;
  if (!co_await Find(visit, Parent(target), &to)) co_return false;
  if (visit->folder->on(visit->view).FileAt(path) == 0 && Parent(target) == path) co_return true;
  fuse_rename2_in rename = {};
  rename.newdir = to;
  rename.flags = replaces ? 0 : RENAME_NOREPLACE;
  if (sharers_ > 0 || IsOpen(*visit, target)) visit->folder->NoteHidden();
  const Step step{
      .kind = Step::Kind::kRename, .path = path, .target = target, .replaces = replaces};
  std::string reply;
  Folder::Outcome outcome;
  const bool go_on =
      co_await Do(visit, step, FUSE_RENAME2, from,
                  Named(Named(BytesOf(rename), Name(path)), Name(target)), &reply, &outcome);
  if (!outcome.done) co_return go_on;
  // The kernel's names: of a folder's entries, too.
  std::map<std::string, uint64_t> nodes;
  for (const auto& [name, node] : visit->nodes) {
    if (name == target) continue;
    const bool below = absl::StartsWith(name, absl::StrCat(path, "/"));
    nodes[name == path || below ? target + name.substr(path.size()) : name] = node;
  }
  visit->nodes = std::move(nodes);
  co_return go_on;
}

Task<bool> Writers::Remove(Visit* visit, std::string path) {
  const TreeModel& model = visit->folder->on(visit->view);
  const bool directory = model.Has(path) && model.FileAt(path) == 0;
  uint64_t parent = 0;
  if (!co_await Find(visit, Parent(path), &parent)) co_return false;
  if (sharers_ > 0 || IsOpen(*visit, path)) visit->folder->NoteHidden();
  std::string reply;
  Folder::Outcome outcome;
  const Step step{.kind = directory ? Step::Kind::kRemoveDirectory : Step::Kind::kUnlink,
                  .path = path};
  const bool go_on = co_await Do(visit, step, directory ? FUSE_RMDIR : FUSE_UNLINK, parent,
                                 Named("", Name(path)), &reply, &outcome);
  if (go_on && !visit->folder->on(visit->view).Has(path)) visit->nodes.erase(path);
  co_return go_on;
}

}  // namespace dfscsi::simulation
