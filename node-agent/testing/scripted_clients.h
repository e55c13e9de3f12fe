// For tests of writing: two clients of one scripted server with a writable share, on the simulated
// network.

#ifndef NODE_AGENT_TESTING_SCRIPTED_CLIENTS_H_
#define NODE_AGENT_TESTING_SCRIPTED_CLIENTS_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "node-agent/smb/session_pool.h"
#include "node-agent/smb/wire/file_name.h"
#include "node-agent/testing/scripted_lab.h"

namespace dfscsi::testing {

inline constexpr uint32_t kRwh =
    smb::wire::kLeaseRead | smb::wire::kLeaseWrite | smb::wire::kLeaseHandle;
inline constexpr uint32_t kRh = smb::wire::kLeaseRead | smb::wire::kLeaseHandle;
inline constexpr uint32_t kAll = 0x001f01ff;

inline runtime::Deadline Soon() { return runtime::Deadline::After(absl::Seconds(60)); }

inline std::vector<uint8_t> Content(size_t size, uint64_t seed = 1) {
  std::vector<uint8_t> bytes(size);
  FillContent(seed, 0, absl::MakeSpan(bytes));
  return bytes;
}

inline std::string TextOf(const std::vector<uint8_t>& bytes) {
  return std::string(bytes.begin(), bytes.end());
}

inline smb::wire::Bytes BytesOf(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

inline smb::wire::CreateRequest Open(
    std::string_view path, smb::wire::Disposition disposition = smb::wire::Disposition::kOpenIf,
    uint32_t access = kAll) {
  smb::wire::CreateRequest create;
  create.desired_access = access;
  create.disposition = disposition;
  create.name = *smb::wire::WirePath(path);
  return create;
}

inline smb::wire::CreateRequest OpenWithLease(std::string_view path, uint8_t key,
                                              uint32_t state = kRwh) {
  smb::wire::CreateRequest create = Open(path);
  create.lease = smb::wire::Lease{.key = {key}, .state = state};
  return create;
}

inline smb::wire::LockElement Exclusive(uint64_t offset, uint64_t length, bool wait = false) {
  return {offset, length,
          smb::wire::kLockExclusive | (wait ? 0u : uint32_t{smb::wire::kLockFailImmediately})};
}

// One mount's view of the server.
struct Client {
  Client(ScriptedLab& lab, smb::Options options, uint8_t number)
      : pool(WithGuid(std::move(options), number), lab.authenticators(), nullptr),
        credential(lab.credential()) {}
  static smb::Options WithGuid(smb::Options options, uint8_t number) {
    options.client_guid = {number};
    return options;
  }
  runtime::Task<std::shared_ptr<smb::Tree>> Connect() {
    smb::ConnectPhase phase;
    auto tree = co_await pool.GetTree("t1", "data", credential, &phase, Soon());
    EXPECT_TRUE(tree.ok()) << tree.status();
    co_return tree.ok() ? *tree : nullptr;
  }
  smb::SessionPool pool;
  smb::Credential credential;
};

// Does with a break what a mount would, or notes it only.
struct Observer : smb::LeaseObserver {
  explicit Observer(std::shared_ptr<smb::Tree> of) : tree(std::move(of)) {}
  void OnLeaseBreak(const smb::LeaseBreak& broken) override {
    breaks.push_back(broken);
    if (!acknowledges || !broken.must_acknowledge) return;
    struct Run {
      static runtime::Task<void> Acknowledge(Observer* observer, smb::LeaseBreak broken) {
        if (observer->before) co_await observer->before();
        observer->acknowledged =
            co_await observer->tree->session().AcknowledgeLease(broken.key, broken.to, Soon());
      }
    };
    tasks.Spawn(Run::Acknowledge(this, broken));
  }
  std::shared_ptr<smb::Tree> tree;
  bool acknowledges = true;
  std::function<runtime::Task<void>()> before;
  std::vector<smb::LeaseBreak> breaks;
  absl::Status acknowledged = absl::UnknownError("not yet");
  runtime::TaskGroup tasks;
};

class ScriptedClientsTest : public ::testing::Test {
 protected:
  ScriptedClientsTest() { share_->writable = true; }
  ~ScriptedClientsTest() override { EXPECT_THAT(lab_.Violations(), ::testing::IsEmpty()); }

  using Work = std::function<runtime::Task<void>(Client&, Client&)>;
  void Run(Work work) {
    struct Body {
      static runtime::Task<void> Do(ScriptedClientsTest* test, Work work) {
        Client one(test->lab_, test->options_, 1);
        Client two(test->lab_, test->options_, 2);
        co_await work(one, two);
      }
    };
    EXPECT_TRUE(lab_.Run(Body::Do(this, std::move(work))));
    lab_.world().RunFor(absl::Milliseconds(10));  // Until the server has seen the end, too.
  }
  // The same for tests of one client.
  void RunOne(std::function<runtime::Task<void>(std::shared_ptr<smb::Tree>)> work) {
    Run([&](Client& one, Client&) -> runtime::Task<void> {
      co_await work(co_await one.Connect());
    });
  }
  static runtime::Task<smb::wire::FileId> MustOpen(std::shared_ptr<smb::Tree> tree,
                                                   smb::wire::CreateRequest create) {
    auto opened = co_await tree->Create(std::move(create), Soon());
    EXPECT_TRUE(opened.ok()) << opened.status();
    co_return opened.ok() ? opened->file_id : smb::wire::FileId{};
  }
  std::string ContentOf(std::string_view path) {
    const ScriptedFile* const file = share_->Find(path);
    return file == nullptr ? "(none)" : file->Content();
  }
  int CountMutations(smb::wire::Command command) const {
    int count = 0;
    for (const ScriptedMutation& mutation : server_.mutations()) {
      count += mutation.command == command ? 1 : 0;
    }
    return count;
  }

  ScriptedLab lab_{1};
  ScriptedServer& server_ = lab_.AddServer("t1");
  ScriptedShare* share_ = &server_.AddShare("data");
  smb::Options options_;
};

}  // namespace dfscsi::testing

#endif  // NODE_AGENT_TESTING_SCRIPTED_CLIENTS_H_
