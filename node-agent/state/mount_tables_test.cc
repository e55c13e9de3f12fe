#include "node-agent/state/mount_tables.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "node-agent/state/store_deaths.h"

namespace dfscsi::state {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class MountTablesTest : public testing::Test {
 protected:
  MountTablesTest() { Renew(); }

  void Renew() {
    tables_.reset();
    memory_ = *CreateSharedMemory("test-tables", kTablesBytes);
    tables_ = *MountTables::Format(memory_.get(), /*root_ino=*/1);
  }
  // What the next agent does.
  void Restart() {
    tables_.reset();
    auto tables = MountTables::Map(memory_.get());
    ASSERT_TRUE(tables.ok()) << tables.status();
    tables_ = *std::move(tables);
    const absl::Status recovered = tables_->Recover();
    ASSERT_TRUE(recovered.ok()) << recovered;
  }

  InodeTable& inodes() { return tables_->inodes(); }
  HandleTable& handles() { return tables_->handles(); }

  NodeId Add(NodeId parent, std::string_view name, uint64_t nlookup = 1) {
    auto id = inodes().FindOrInsert(parent, name, {.ino = 100});
    EXPECT_TRUE(id.ok()) << id.status();
    inodes().AddLookup(*id, nlookup);
    return *id;
  }
  std::string PathOf(NodeId id) { return inodes().Path(id).value_or("?"); }

  UniqueFd memory_;
  std::unique_ptr<MountTables> tables_;
};

TEST_F(MountTablesTest, TheRootIsNodeOneForEver) {
  EXPECT_EQ(PathOf(kRootNode), "");
  EXPECT_EQ(inodes().Get(kRootNode).ino(), 1u);
  EXPECT_FALSE(inodes().Forget(kRootNode, 1'000'000));
  Restart();
  EXPECT_TRUE(inodes().Contains(kRootNode));
  EXPECT_FALSE(inodes().Contains(0));
}

TEST_F(MountTablesTest, NodesKeepTheirIdsOverARestart) {
  const NodeId a = Add(kRootNode, "a");
  const NodeId b = Add(a, "B");
  const NodeId c = Add(b, std::string(765, 'c'), 3);
  inodes().SetUserFlags(c, 0x10000);
  inodes().SetIdentity(c, {.size_bytes = 5, .last_write = 6, .file_id = 7, .attributes = 8});
  const std::string path = PathOf(c);
  EXPECT_EQ(path, "a/B/" + std::string(765, 'c'));
  Restart();
  EXPECT_EQ(PathOf(c), path);
  EXPECT_EQ(inodes().Find(a, "B"), b);
  EXPECT_EQ(inodes().Find(a, "b"), 0u);
  EXPECT_EQ(inodes().Get(c).nlookup(), 3u);
  EXPECT_EQ(inodes().Get(c).flags() & kNodeUserFlags, 0x10000u);
  ASSERT_NE(inodes().Get(c).identity(), nullptr);
  EXPECT_EQ(inodes().Get(c).identity()->last_write, 6u);
  EXPECT_EQ(inodes().Get(b).identity(), nullptr);
  EXPECT_EQ(inodes().size(), 4u);
}

TEST_F(MountTablesTest, NamesOfEveryLength) {
  std::vector<NodeId> ids;
  for (uint32_t n = 1; n <= InodeTable::kMaxNameBytes; ++n) {
    ids.push_back(Add(kRootNode, std::string(n, 'x')));
  }
  Restart();
  for (uint32_t n = 1; n <= InodeTable::kMaxNameBytes; ++n) {
    EXPECT_EQ(inodes().Find(kRootNode, std::string(n, 'x')), ids[n - 1]);
    EXPECT_EQ(PathOf(ids[n - 1]), std::string(n, 'x'));
  }
  for (const uint32_t n : {0u, InodeTable::kMaxNameBytes + 1}) {
    EXPECT_EQ(inodes().FindOrInsert(kRootNode, std::string(n, 'x'), {}).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
}

TEST_F(MountTablesTest, AForgottenIdNeverMeansAnotherFile) {
  const NodeId a = Add(kRootNode, "a", 2);
  EXPECT_FALSE(inodes().Forget(a, 1));
  EXPECT_TRUE(inodes().Forget(a, 1));
  EXPECT_FALSE(inodes().Contains(a));
  const NodeId again = Add(kRootNode, "a");
  EXPECT_EQ(static_cast<uint32_t>(again), static_cast<uint32_t>(a));  // The same slot …
  EXPECT_NE(again, a);                                                // … under another id.
  EXPECT_EQ(inodes().FindOrInsert(a, "x", {}).status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(inodes().AddLookup(a));
  EXPECT_FALSE(inodes().Forget(a, 1));
  EXPECT_EQ(inodes().Get(again).nlookup(), 1u);
}

TEST_F(MountTablesTest, ChildrenAndPinsHoldAForgottenDirectory) {
  const NodeId a = Add(kRootNode, "a");
  const NodeId b = Add(a, "b");
  inodes().Pin(b);
  EXPECT_FALSE(inodes().Forget(a, 1));
  EXPECT_FALSE(inodes().Forget(b, 1));
  EXPECT_EQ(PathOf(b), "a/b");
  inodes().Unpin(b);
  EXPECT_FALSE(inodes().Contains(b));
  EXPECT_FALSE(inodes().Contains(a));
  EXPECT_EQ(inodes().size(), 1u);
}

TEST_F(MountTablesTest, ANodeThatWasNeverGivenOutIsGoneAfterARestart) {
  const NodeId a = Add(kRootNode, "a", 0);
  const NodeId b = Add(a, "b", 0);
  const NodeId open = Add(a, "open", 0);
  ASSERT_TRUE(handles().Open({.node = open}).ok());
  Restart();
  EXPECT_FALSE(inodes().Contains(b));
  EXPECT_TRUE(inodes().Contains(open));
  EXPECT_EQ(PathOf(open), "a/open");
}

TEST_F(MountTablesTest, RenameMovesWhatIsBelow) {
  const NodeId a = Add(kRootNode, "a");
  const NodeId b = Add(a, "b");
  const NodeId c = Add(b, "c");
  const NodeId d = Add(kRootNode, "d");
  const std::string long_name(200, 'l');
  ASSERT_TRUE(inodes().Rename(b, d, long_name).ok());
  EXPECT_EQ(PathOf(c), "d/" + long_name + "/c");
  EXPECT_EQ(inodes().Find(a, "b"), 0u);
  EXPECT_EQ(inodes().Find(d, long_name), b);
  EXPECT_EQ(inodes().Rename(d, c, "x").code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(inodes().Rename(d, d, "x").code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(inodes().Forget(a, 1));  // No child holds it any more.
  Restart();
  EXPECT_EQ(PathOf(c), "d/" + long_name + "/c");
}

TEST_F(MountTablesTest, RenameOverAnotherNodeUnlinksIt) {
  const NodeId a = Add(kRootNode, "a");
  const NodeId b = Add(kRootNode, "b");
  ASSERT_TRUE(inodes().Rename(a, kRootNode, "b").ok());
  EXPECT_EQ(inodes().Find(kRootNode, "b"), a);
  EXPECT_EQ(inodes().Find(kRootNode, "a"), 0u);
  EXPECT_EQ(PathOf(b), "?");
  EXPECT_TRUE(inodes().Get(b).unlinked());
  Restart();
  EXPECT_EQ(inodes().Find(kRootNode, "b"), a);
  EXPECT_TRUE(inodes().Forget(b, 1));
  // Only the spelling changes.
  ASSERT_TRUE(inodes().Rename(a, kRootNode, "B").ok());
  EXPECT_EQ(PathOf(a), "B");
}

TEST_F(MountTablesTest, AnUnlinkedNodeLivesUntilForgotten) {
  const NodeId a = Add(kRootNode, "a");
  inodes().Unlink(a);
  EXPECT_EQ(inodes().Find(kRootNode, "a"), 0u);
  EXPECT_EQ(PathOf(a), "?");
  const NodeId fresh = Add(kRootNode, "a");
  EXPECT_NE(fresh, a);
  Restart();
  EXPECT_TRUE(inodes().Get(a).unlinked());
  EXPECT_EQ(inodes().Find(kRootNode, "a"), fresh);
  EXPECT_TRUE(inodes().Forget(a, 1));
  // A rename brings an unlinked one back (silly rename and the like).
  inodes().Unlink(fresh);
  ASSERT_TRUE(inodes().Rename(fresh, kRootNode, "back").ok());
  EXPECT_EQ(PathOf(fresh), "back");
}

TEST_F(MountTablesTest, NumbersAreNeverGivenOutTwice) {
  const uint64_t id = tables_->NextId();
  const uint64_t epoch = tables_->NextEpoch();
  const Guid guid = tables_->client_guid();
  Restart();
  EXPECT_GT(tables_->NextId(), id);
  EXPECT_GT(tables_->NextEpoch(), epoch);
  EXPECT_EQ(tables_->client_guid(), guid);
  EXPECT_NE(guid, Guid{});
}

TEST_F(MountTablesTest, RefusesWhatItCannotRead) {
  UniqueFd blank = *CreateSharedMemory("blank", kTablesBytes);
  EXPECT_EQ(MountTables::Map(blank.get()).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(MountTables::Format(memory_.get(), 1).status().code(),
            absl::StatusCode::kFailedPrecondition);
  auto raw = SharedMemory::Map(memory_.get(), kTablesBytes);
  raw->data()[8] ^= 0x40;  // The layout version.
  EXPECT_EQ(MountTables::Map(memory_.get()).status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(MountTablesTest, DamagedMemoryIsAnErrorNotACrash) {
  Add(kRootNode, std::string(300, 'n'));
  handles().Open({.node = kRootNode, .kind = HandleTable::Kind::kDirectory}).IgnoreError();
  auto raw = SharedMemory::Map(memory_.get(), kTablesBytes);
  std::mt19937 random(3);
  const std::vector<std::pair<uint64_t, uint64_t>> ranges = {
      {16, sizeof(TablesHeader)},
      {kTablesHeaderBytes, 4 * sizeof(InodeTable::Record)},
      {kTablesHeaderBytes + InodeTable::kRegionBytes, 2 * sizeof(HandleTable::Record)}};
  for (int round = 0; round < 3'000; ++round) {
    const auto [offset, length] = ranges[random() % ranges.size()];
    char& byte = raw->data()[offset + random() % length];
    const char old = byte;
    byte ^= static_cast<char>(1 + random() % 255);
    auto tables = MountTables::Map(memory_.get());
    // A changed byte may also change what the table does; here it must only not crash.
    if (tables.ok() && (*tables)->Recover().ok()) {
      (*tables)->inodes().ForEach(
          [&](const InodeTable::Node& node) { (*tables)->inodes().Path(node.id()).IgnoreError(); });
    }
    byte = old;
    // Recover() may have repaired the damage by removing what it damaged.
    if (round % 50 == 0) {
      Renew();
      Add(kRootNode, std::string(300, 'n'));
      handles().Open({.node = kRootNode, .kind = HandleTable::Kind::kDirectory}).IgnoreError();
      raw = SharedMemory::Map(memory_.get(), kTablesBytes);
    }
  }
}

// ---- handles ----

TEST_F(MountTablesTest, HandlesSurvive) {
  const NodeId a = Add(kRootNode, "a");
  const HandleTable::ServerSide server = {.lease_key = {1}, .create_guid = {2}, .file_id = {3, 4}};
  auto fh = handles().Open({.node = a, .open_flags = 2, .access = 3, .server = server});
  ASSERT_TRUE(fh.ok());
  handles().SetIdentity(*fh, {.size_bytes = 77});
  handles().AddRef(*fh);
  inodes().Forget(a, 1);
  Restart();
  ASSERT_TRUE(handles().Contains(*fh));
  const HandleTable::Record& record = handles().Get(*fh);
  EXPECT_EQ(record.node, a);
  EXPECT_EQ(record.open_flags, 2u);
  EXPECT_EQ(record.access, 3u);
  EXPECT_EQ(record.server.Get(), server);
  EXPECT_EQ(record.identity.Get().size_bytes, 77u);
  EXPECT_TRUE(inodes().Contains(a));  // Open.
  EXPECT_FALSE(handles().Close(*fh));
  EXPECT_TRUE(handles().Close(*fh));
  EXPECT_FALSE(handles().Close(*fh));
  EXPECT_FALSE(inodes().Contains(a));
  auto again = handles().Open({.node = kRootNode});
  EXPECT_NE(*again, *fh);
  EXPECT_EQ(handles().Open({.node = a}).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(MountTablesTest, ADirectoryStreamGoesOnAfterARestart) {
  auto fh = handles().Open({.node = kRootNode, .kind = HandleTable::Kind::kDirectory});
  ASSERT_TRUE(fh.ok());
  std::vector<uint64_t> names;
  for (uint64_t i = 0; i < 50'000; ++i) {
    names.push_back(i * 977);
    ASSERT_TRUE(handles().AppendName(*fh, names.back()).ok());
  }
  Restart();
  EXPECT_EQ(handles().StreamNames(*fh), names);
  for (const uint64_t length : {49'999u, 630u, 63u, 62u, 1u, 0u}) {
    handles().TruncateStream(*fh, length);
    names.resize(length);
    ASSERT_EQ(handles().StreamNames(*fh), names);
    ASSERT_TRUE(handles().AppendName(*fh, 5).ok());
    names.push_back(5);
    Restart();
    ASSERT_EQ(handles().StreamNames(*fh), names);
  }
  EXPECT_TRUE(handles().Close(*fh));
  EXPECT_THAT(handles().StreamNames(*fh), IsEmpty());
}

// ---- against a model, with deaths ----

// What the kernel believes: the facts that must hold after any death.
struct Model {
  struct Node {
    NodeId parent = 0;
    std::string name;
    uint64_t nlookup = 0;
    bool unlinked = false;
  };
  std::map<NodeId, Node> nodes;
  std::map<std::pair<NodeId, std::string>, NodeId> names;
};

class RandomTree {
 public:
  RandomTree(MountTables* tables, Model* model, uint32_t seed)
      : tables_(tables), model_(model), random_(seed) {}

  void Step() {
    switch (random_() % 8) {
      case 0:
      case 1:
      case 2:
        return LookUp();
      case 3:
      case 4:
        return Forget();
      case 5:
        return Rename();
      case 6:
        return Unlink();
      default:
        if (Any() != kRootNode) tables_->inodes().SetIdentity(Any(), {.size_bytes = random_()});
    }
  }

 private:
  NodeId Any() {
    if (model_->nodes.empty() || random_() % 4 == 0) return kRootNode;
    auto it = model_->nodes.begin();
    std::advance(it, random_() % model_->nodes.size());
    return it->first;
  }
  std::string Name() {
    std::string name(1, static_cast<char>('a' + random_() % 6));
    if (random_() % 3 == 0) name += std::string(random_() % 300, 'l');
    return name;
  }

  void LookUp() {
    const NodeId parent = Any();
    const std::string name = Name();
    auto id = tables_->inodes().FindOrInsert(parent, name, {.ino = 9});
    ASSERT_TRUE(id.ok()) << id.status();
    auto it = model_->names.find({parent, name});
    if (it != model_->names.end()) ASSERT_EQ(it->second, *id);
    ASSERT_TRUE(tables_->inodes().AddLookup(*id));
    // The reply reaches the kernel here.
    Model::Node& node = model_->nodes[*id];
    node.parent = parent;
    node.name = name;
    ++node.nlookup;
    model_->names[{parent, name}] = *id;
  }

  void Forget() {
    const NodeId id = Any();
    if (id == kRootNode) return;
    Model::Node& node = model_->nodes[id];
    const uint64_t n = random_() % 2 == 0 ? node.nlookup : 1;
    // The kernel has dropped it as soon as it sends the message, and only then are its children
    // gone.
    for (const auto& [child, other] : model_->nodes) {
      if (other.parent == id && n == node.nlookup) return;
    }
    node.nlookup -= n;
    if (node.nlookup == 0) {
      if (!node.unlinked) model_->names.erase({node.parent, node.name});
      model_->nodes.erase(id);
    }
    tables_->inodes().Forget(id, n);
  }

  void Unlink() {
    const NodeId id = Any();
    if (id == kRootNode || model_->nodes[id].unlinked) return;
    tables_->inodes().Unlink(id);
    Model::Node& node = model_->nodes[id];
    model_->names.erase({node.parent, node.name});
    node.unlinked = true;
  }

  void Rename() {
    const NodeId id = Any();
    const NodeId parent = Any();
    const std::string name = Name();
    if (id == kRootNode) return;
    for (NodeId up = parent; up != kRootNode; up = model_->nodes[up].parent) {
      if (up == id) return;
    }
    renaming = {id, parent, name};
    const absl::Status status = tables_->inodes().Rename(id, parent, name);
    ASSERT_TRUE(status.ok()) << status;
    ApplyRename();
  }

 public:
  struct Pending {
    NodeId id = 0, parent = 0;
    std::string name;
  };
  Pending renaming;

  // After a death in a rename the table may have it or not; the server knows, and so does the next
  // agent.
  void ApplyRename() {
    if (renaming.id == 0) return;
    Model::Node& node = model_->nodes[renaming.id];
    if (!node.unlinked) model_->names.erase({node.parent, node.name});
    auto replaced = model_->names.find({renaming.parent, renaming.name});
    if (replaced != model_->names.end()) model_->nodes[replaced->second].unlinked = true;
    node.parent = renaming.parent;
    node.name = renaming.name;
    node.unlinked = false;
    model_->names[{node.parent, node.name}] = renaming.id;
    renaming = {};
  }

 private:
  MountTables* tables_;
  Model* model_;
  std::mt19937 random_;
};

// `exact`: no death since the tables were last compared.
void Compare(MountTables& tables, const Model& model, bool exact) {
  for (const auto& [id, node] : model.nodes) {
    ASSERT_TRUE(tables.inodes().Contains(id));
    const InodeTable::Node got = tables.inodes().Get(id);
    EXPECT_EQ(got.parent(), node.parent);
    EXPECT_EQ(got.name(), node.name);
    EXPECT_EQ(got.unlinked(), node.unlinked);
    // Too high only leaks; too low would be the wrong file.
    EXPECT_GE(got.nlookup(), node.nlookup);
    if (exact) EXPECT_EQ(got.nlookup(), node.nlookup);
  }
  for (const auto& [key, id] : model.names) {
    EXPECT_EQ(tables.inodes().Find(key.first, key.second), id);
  }
  if (exact) EXPECT_EQ(tables.inodes().size(), model.nodes.size() + 1);
}

TEST_F(MountTablesTest, BehavesLikeTheModel) {
  Model model;
  for (uint32_t round = 0; round < 20; ++round) {
    RandomTree tree(tables_.get(), &model, round);
    for (int step = 0; step < 300; ++step) {
      tree.Step();
      if (HasFatalFailure()) return;
    }
    Compare(*tables_, model, /*exact=*/true);
    Restart();
    Compare(*tables_, model, /*exact=*/true);
  }
}

TEST_F(MountTablesTest, DeathAfterEveryStore) {
  // The same 60 steps again and again, each time dying one store later.
  bool ended = false;
  for (long stores = 0; !ended && !HasFailure(); ++stores) {
    SCOPED_TRACE(stores);
    Renew();
    Model model;
    RandomTree tree(tables_.get(), &model, 4);
    const Model before_last = model;
    ended = RunUntilStore(stores, [&] {
      for (int step = 0; step < 60; ++step) tree.Step();
    });
    const bool armed =
        reinterpret_cast<TablesHeader*>(SharedMemory::Map(memory_.get(), kTablesBytes)->data())
            ->inodes.redo_armed != 0;
    Restart();
    if (tree.renaming.id != 0) {
      const auto pending = tree.renaming;
      const InodeTable::Node node = inodes().Get(pending.id);
      const bool done = node.parent() == pending.parent && node.name() == pending.name;
      if (armed) EXPECT_TRUE(done);
      if (done) tree.ApplyRename();
    }
    // An unlink that died after its only store.
    for (auto& [id, node] : model.nodes) {
      ASSERT_TRUE(inodes().Contains(id));
      if (!node.unlinked && inodes().Get(id).unlinked()) {
        node.unlinked = true;
        model.names.erase({node.parent, node.name});
      }
    }
    Compare(*tables_, model, /*exact=*/false);
    // And it goes on working.
    RandomTree next(tables_.get(), &model, 5);
    for (int step = 0; step < 100 && !HasFailure(); ++step) next.Step();
  }
}

// A range is split: the request is run again, and until then nothing outside it has changed.
TEST_F(MountTablesTest, LocksDieAfterEveryStore) {
  const LockTable::Lock whole = {.node = 2, .fh = 3, .owner = 4, .first = 0, .last = 99, .type = 2};
  LockTable::Lock left = whole, right = whole;
  left.last = 39;
  right.first = 60;
  const auto covers = [this](uint64_t at) {
    bool covered = false;
    tables_->locks().ForEach([&](uint32_t, const LockTable::Lock& lock) {
      EXPECT_EQ(lock.owner, 4u);
      EXPECT_EQ(lock.type, 2u);
      covered |= lock.first <= at && at <= lock.last;
    });
    return covered;
  };
  bool ended = false;
  for (long stores = 0; !ended && !HasFailure(); ++stores) {
    SCOPED_TRACE(stores);
    Renew();
    bool answered = false;
    ended = RunUntilStore(stores, [&] {
      const uint32_t number = *tables_->locks().Add(whole);
      answered = true;
      ASSERT_TRUE(tables_->locks().Add(left).ok());
      ASSERT_TRUE(tables_->locks().Add(right).ok());
      tables_->locks().Remove(number);
    });
    Restart();
    if (answered) {
      EXPECT_TRUE(covers(0) && covers(39) && covers(60) && covers(99));
    }
    if (ended) EXPECT_FALSE(covers(50));  // Before, either is right.
    EXPECT_FALSE(covers(100));
    // And it goes on working.
    const uint32_t before = tables_->locks().size();
    const uint32_t number = *tables_->locks().Add(left);
    EXPECT_EQ(tables_->locks().size(), before + 1);
    tables_->locks().Remove(number);
    EXPECT_EQ(tables_->locks().size(), before);
  }
}

TEST_F(MountTablesTest, LocksAreBounded) {
  const LockTable::Lock lock = {.node = 2, .last = 9};
  for (uint32_t i = 0; i < LockTable::kMaxLocks; ++i) ASSERT_TRUE(tables_->locks().Add(lock).ok());
  EXPECT_FALSE(tables_->locks().HasRoom(1));
  EXPECT_TRUE(absl::IsResourceExhausted(tables_->locks().Add(lock).status()));
  tables_->locks().Remove(17);
  EXPECT_EQ(*tables_->locks().Add(lock), 17u);
}

// The tables of a mount that was made before there were locks.
TEST_F(MountTablesTest, TablesOfLayoutOneAreReadAndHaveNoLocks) {
  const NodeId a = Add(kRootNode, "a");
  tables_.reset();
  {
    const SharedMemory raw = *SharedMemory::Map(memory_.get(), kTablesBytes);
    reinterpret_cast<TablesHeader*>(raw.data())->layout_version = 1;
  }
  Restart();
  EXPECT_EQ(PathOf(a), "a");
  EXPECT_EQ(tables_->locks().size(), 0u);
}

TEST_F(MountTablesTest, HandlesDieAfterEveryStore) {
  bool ended = false;
  for (long stores = 0; !ended && !HasFailure(); ++stores) {
    SCOPED_TRACE(stores);
    Renew();
    const NodeId a = Add(kRootNode, "a");
    // What the kernel has been told, and what it asked to be closed.
    std::map<FileHandle, std::vector<uint64_t>> open;
    std::set<FileHandle> closing;
    FileHandle appending = 0;
    std::vector<HandleTable::ServerSide> sides;
    ended = RunUntilStore(stores, [&] {
      const FileHandle f1 = *handles().Open({.node = a});
      open[f1];
      const FileHandle d = *handles().Open({.node = a, .kind = HandleTable::Kind::kDirectory});
      open[d];
      appending = d;
      for (uint64_t i = 0; i < 70; ++i) {
        ASSERT_TRUE(handles().AppendName(d, i).ok());
        open[d].push_back(i);
      }
      closing.insert(f1);
      open.erase(f1);
      handles().Close(f1);
      const FileHandle f2 = *handles().Open({.node = a});
      open[f2];
      sides.push_back({});
      sides.push_back({.lease_key = {1}, .create_guid = {2}, .file_id = {3, 4}, .session_id = 5});
      handles().SetServerSide(f2, sides.back());
      open[d].resize(3);
      handles().TruncateStream(d, 3);
      closing.insert(d);
      open.erase(d);
      handles().Close(d);
    });
    Restart();
    for (const auto& [fh, names] : open) {
      ASSERT_TRUE(handles().Contains(fh));
      EXPECT_EQ(handles().Get(fh).node, a);
      std::vector<uint64_t> got = handles().StreamNames(fh);
      if (fh == appending) {
        // Perhaps more than the kernel knows of; never less, never others.
        ASSERT_GE(got.size(), names.size());
        got.resize(names.size());
      } else if (!sides.empty()) {
        EXPECT_THAT(sides, testing::Contains(handles().Get(fh).server.Get()));
      }
      EXPECT_EQ(got, names);
    }
    handles().ForEach([&](FileHandle fh, const HandleTable::Record&) {
      // Opened and never told, or asked to be closed.
      if (!open.contains(fh)) EXPECT_LE(handles().size(), open.size() + closing.size() + 1);
    });
    // All blocks are accounted for: a long stream can be written again.
    auto fh = handles().Open({.node = a, .kind = HandleTable::Kind::kDirectory});
    for (uint64_t i = 0; i < 200; ++i) ASSERT_TRUE(handles().AppendName(*fh, i).ok());
    for (const auto& [other, names] : open) {
      if (other != appending) EXPECT_EQ(handles().StreamNames(other), names);
    }
  }
}

TEST_F(MountTablesTest, RecoveryOf900kNodes) {
  const auto seconds = [](std::function<void()> body) {
    const auto start = std::chrono::steady_clock::now();
    body();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  std::vector<NodeId> directories = {kRootNode};
  const double insert = seconds([&] {
    for (int i = 0; i < 900'000; ++i) {
      const NodeId id = Add(directories[i % directories.size()], "file-" + std::to_string(i));
      if (i % 100 == 0) directories.push_back(id);
    }
  });
  tables_.reset();
  const double recover = seconds([&] { Restart(); });
  EXPECT_EQ(inodes().size(), 900'001u);
  printf("900,000 nodes: insert %.0f ns each, recovery %.0f ms\n", insert / 900'000 * 1e9,
         recover * 1e3);
  RecordProperty("recovery_ms", static_cast<int>(recover * 1e3));
}

}  // namespace
}  // namespace dfscsi::state
