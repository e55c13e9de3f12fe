// Every kind of suspension that runtime/ has, ended in every way there is: cancelled, at its
// deadline, destroyed while it waits, destroyed between its wake-up and its turn, destroyed with
// the whole loop. Afterwards the next wait works as if nothing had been.

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "node-agent/base/unique_fd.h"
#include "node-agent/runtime/blocking.h"
#include "node-agent/runtime/both_loops.h"
#include "node-agent/runtime/dns.h"
#include "node-agent/runtime/race.h"

namespace dfscsi::runtime {
namespace {

constexpr absl::Duration kMoment = absl::Milliseconds(1);

Deadline Soon() { return Deadline::After(absl::Seconds(20)); }

// Something to wait for that does not come by itself.
class Suspension {
 public:
  virtual ~Suspension() = default;
  // Runs on the loop before anything else.
  virtual Task<void> SetUp() { co_return; }
  virtual Task<absl::Status> Wait(Deadline deadline) = 0;
  // Makes it come; false if that is not for us to do.
  virtual bool Wake() { return false; }
};

class EventSuspension final : public Suspension {
 public:
  Task<absl::Status> Wait(Deadline deadline) override {
    co_return co_await event_.WaitUntilSet(deadline);
  }
  bool Wake() override {
    event_.Set();
    event_.Reset();
    return true;
  }

 private:
  Event event_;
};

class ConditionSuspension final : public Suspension {
 public:
  Task<absl::Status> Wait(Deadline deadline) override {
    co_return co_await condition_.WaitForNotify(deadline);
  }
  bool Wake() override {
    condition_.NotifyAll();
    return true;
  }

 private:
  Condition condition_;
};

class MutexSuspension final : public Suspension {
 public:
  Task<void> SetUp() override {
    auto guard = co_await mutex_.Lock(Soon());
    guard_ = std::make_unique<Mutex::Guard>(*std::move(guard));
  }
  Task<absl::Status> Wait(Deadline deadline) override {
    if (guard_ == nullptr) co_await SetUp();
    auto guard = co_await mutex_.Lock(deadline);
    co_return guard.status();
  }
  bool Wake() override {
    guard_.reset();
    return true;
  }

 private:
  Mutex mutex_;
  std::unique_ptr<Mutex::Guard> guard_;
};

class SleepSuspension final : public Suspension {
 public:
  Task<absl::Status> Wait(Deadline deadline) override {
    co_return co_await Sleep(absl::Hours(1), deadline);
  }
};

class TaskGroupSuspension final : public Suspension {
 public:
  Task<void> SetUp() override {
    group_.Spawn([](Condition& condition) -> Task<void> {
      (void)co_await condition.WaitForNotify(Deadline::Never());
    }(end_));
    co_return;
  }
  Task<absl::Status> Wait(Deadline deadline) override {
    if (group_.running() == 0) co_await SetUp();
    co_return co_await group_.WaitUntilEmpty(deadline);
  }
  bool Wake() override {
    end_.NotifyAll();
    return true;
  }

 private:
  Condition end_;
  TaskGroup group_;
};

class RaceSuspension final : public Suspension {
 public:
  Task<absl::Status> Wait(Deadline deadline) override {
    using Racer = std::function<Task<absl::StatusOr<int>>(Deadline)>;
    std::vector<Racer> racers;
    for (int i = 0; i < 2; ++i) {
      racers.push_back([end = end_](Deadline limit) -> Task<absl::StatusOr<int>> {
        absl::Status status = co_await end->WaitUntilSet(limit);
        if (!status.ok()) co_return status;
        co_return 1;
      });
    }
    const absl::StatusOr<int> won = co_await Race<int>(
        std::move(racers), [](const auto&, const auto&) { return false; }, deadline);
    co_return won.status();
  }
  bool Wake() override {
    end_->Set();
    end_->Reset();
    return true;
  }

 private:
  std::shared_ptr<Event> end_ = std::make_shared<Event>();  // Losers outlive us.
};

class BlockingSuspension final : public Suspension {
 public:
  explicit BlockingSuspension(AnyLoop& any) {
    if (!any.is_real()) {
      static_cast<SimLoop&>(any.loop()).set_blocking_time([] { return absl::InfiniteDuration(); });
      return;
    }
    int ends[2];
    if (pipe(ends) != 0) abort();
    read_ = std::make_shared<UniqueFd>(ends[0]);
    write_.reset(ends[1]);
  }
  Task<absl::Status> Wait(Deadline deadline) override {
    const absl::StatusOr<int> done = co_await Blocking<int>(
        [from = read_] {
          char byte;
          // Ends when the test does, and its end of the pipe closes.
          return from == nullptr ? 0 : static_cast<int>(read(from->get(), &byte, 1));
        },
        deadline);
    co_return done.status();
  }

 private:
  std::shared_ptr<UniqueFd> read_;
  UniqueFd write_;
};

// Base of those that need two ends of a connection.
class StreamSuspension : public Suspension {
 public:
  explicit StreamSuspension(AnyLoop& any) : any_(any) {}
  Task<void> SetUp() override {
    Network& network = any_.loop().network();
    listener_ = *network.Listen({any_.address(), 0});
    near_ = *co_await network.Connect(listener_->local(), Soon());
    far_ = *co_await listener_->Accept(Soon());
  }

 protected:
  AnyLoop& any_;
  std::unique_ptr<Listener> listener_;
  std::unique_ptr<Stream> near_;
  std::unique_ptr<Stream> far_;
};

class ReadSuspension final : public StreamSuspension {
 public:
  using StreamSuspension::StreamSuspension;
  Task<absl::Status> Wait(Deadline deadline) override {
    char bytes[100];
    co_return (co_await near_->Read(bytes, sizeof bytes, deadline)).status();
  }
  bool Wake() override {
    const iovec byte{const_cast<char*>("x"), 1};
    EXPECT_TRUE(far_->TryWrite({&byte, 1}).ok());
    return true;
  }
};

class WriteSuspension final : public StreamSuspension {
 public:
  using StreamSuspension::StreamSuspension;
  Task<absl::Status> Wait(Deadline deadline) override {
    const std::string block(1 << 20, 'x');
    while (true) {
      const absl::Status status = co_await near_->WriteAll(block.data(), block.size(), deadline);
      if (!status.ok()) co_return status;
    }
  }
};

class AcceptSuspension final : public StreamSuspension {
 public:
  using StreamSuspension::StreamSuspension;
  Task<absl::Status> Wait(Deadline deadline) override {
    co_return (co_await listener_->Accept(deadline)).status();
  }
};

// A server that takes no connection and refuses none.
class ConnectSuspension final : public Suspension {
 public:
  explicit ConnectSuspension(AnyLoop& any) : any_(any) {}
  Task<void> SetUp() override {
    if (!any_.is_real()) {
      to_ = {*IpAddress::Parse("10.0.0.99"), 445};
      co_return;
    }
    // A listening socket whose queue is full: the kernel ignores further SYNs.
    full_.reset(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (bind(full_.get(), reinterpret_cast<sockaddr*>(&address), size) != 0) abort();
    if (listen(full_.get(), 0) != 0) abort();
    getsockname(full_.get(), reinterpret_cast<sockaddr*>(&address), &size);
    to_ = {any_.address(), ntohs(address.sin_port)};
    for (int i = 0; i < 4; ++i) {
      fillers_.emplace_back(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
      (void)connect(fillers_.back().get(), reinterpret_cast<sockaddr*>(&address), size);
    }
    (void)co_await Sleep(absl::Milliseconds(20), Soon());
  }
  Task<absl::Status> Wait(Deadline deadline) override {
    co_return (co_await any_.loop().network().Connect(to_, deadline)).status();
  }

 private:
  AnyLoop& any_;
  SocketAddress to_;
  UniqueFd full_;
  std::vector<UniqueFd> fillers_;
};

// A name server that says nothing.
class ResolveSuspension final : public Suspension {
 public:
  ResolveSuspension(AnyLoop& any, bool service) : any_(any), service_(service) {
    if (!any.is_real()) {
      any.world().network().set_name_server(SimNetwork::NameServer::kSilent);
      return;
    }
    silent_.reset(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (bind(silent_.get(), reinterpret_cast<sockaddr*>(&address), size) != 0) abort();
    getsockname(silent_.get(), reinterpret_cast<sockaddr*>(&address), &size);
    dns_ = MakeDns(static_cast<RealLoop&>(any.loop()),
                   {.servers = "127.0.0.1:" + std::to_string(ntohs(address.sin_port))});
  }
  Task<absl::Status> Wait(Deadline deadline) override {
    Network& network = any_.loop().network();
    if (service_) {
      const std::string name = "_ldap._tcp.dc._msdcs.corp.test";
      if (dns_ != nullptr) co_return (co_await dns_->ResolveService(name, deadline)).status();
      co_return (co_await network.ResolveService(name, deadline)).status();
    }
    if (dns_ != nullptr) co_return (co_await dns_->Resolve("t1.corp.test", deadline)).status();
    co_return (co_await network.Resolve("t1.corp.test", deadline)).status();
  }

 private:
  AnyLoop& any_;
  const bool service_;
  UniqueFd silent_;
  std::unique_ptr<Dns> dns_;
};

using Factory = std::function<std::unique_ptr<Suspension>(AnyLoop&)>;

template <class T>
std::unique_ptr<Suspension> Make(AnyLoop&) {
  return std::make_unique<T>();
}
template <class T>
std::unique_ptr<Suspension> MakeFor(AnyLoop& any) {
  return std::make_unique<T>(any);
}

const std::map<std::string, Factory>& Suspensions() {
  static const auto* const all = new std::map<std::string, Factory>{
      {"Event", Make<EventSuspension>},
      {"Condition", Make<ConditionSuspension>},
      {"Mutex", Make<MutexSuspension>},
      {"Sleep", Make<SleepSuspension>},
      {"TaskGroup", Make<TaskGroupSuspension>},
      {"Race", Make<RaceSuspension>},
      {"Blocking", MakeFor<BlockingSuspension>},
      {"Read", MakeFor<ReadSuspension>},
      {"Write", MakeFor<WriteSuspension>},
      {"Accept", MakeFor<AcceptSuspension>},
      {"Connect", MakeFor<ConnectSuspension>},
      {"Resolve", [](AnyLoop& any) { return std::make_unique<ResolveSuspension>(any, false); }},
      {"ResolveService",
       [](AnyLoop& any) { return std::make_unique<ResolveSuspension>(any, true); }},
  };
  return *all;
}

class SuspensionTest : public testing::TestWithParam<std::tuple<LoopKind, std::string>> {
 protected:
  AnyLoop any_{std::get<0>(GetParam())};
  std::unique_ptr<Suspension> suspension_ = Suspensions().at(std::get<1>(GetParam()))(any_);
  int resumed_ = 0;
};

INSTANTIATE_TEST_SUITE_P(All, SuspensionTest,
                         testing::Combine(testing::Values(LoopKind::kReal, LoopKind::kSimulated),
                                          testing::ValuesIn([] {
                                            std::vector<std::string> names;
                                            for (const auto& [name, factory] : Suspensions())
                                              names.push_back(name);
                                            return names;
                                          }())),
                         [](const auto& tested) {
                           return std::get<1>(tested.param) +
                                  (std::get<0>(tested.param) == LoopKind::kReal ? "OnReal"
                                                                                : "OnSimulated");
                         });

Task<void> WaitAndCount(Suspension& suspension, Deadline deadline, absl::Status& result,
                        int& resumed) {
  result = co_await suspension.Wait(deadline);
  ++resumed;
}

TEST_P(SuspensionTest, EndsWhenCancelledAndTheNextWaitWorks) {
  any_.Run([](Suspension& suspension, int& resumed) -> Task<void> {
    co_await suspension.SetUp();
    CancelSource parent;
    CancelSource source(parent.deadline());
    absl::Status first, second;
    TaskGroup group;
    group.Spawn(WaitAndCount(suspension, source.deadline(), first, resumed));
    (void)co_await Sleep(absl::Milliseconds(5), Soon());
    EXPECT_EQ(resumed, 0);
    source.Cancel();
    EXPECT_TRUE((co_await group.WaitUntilEmpty(Soon())).ok());
    EXPECT_TRUE(absl::IsCancelled(first)) << first;
    // The same wait once more, under a source that is not cancelled; its parent then is.
    group.Spawn(
        WaitAndCount(suspension, CancelSource(parent.deadline()).deadline(), second, resumed));
    EXPECT_TRUE((co_await Sleep(absl::Milliseconds(5), Soon())).ok());
    EXPECT_EQ(resumed, 1);
    parent.Cancel();
    EXPECT_TRUE((co_await group.WaitUntilEmpty(Soon())).ok());
    EXPECT_TRUE(absl::IsCancelled(second)) << second;
  }(*suspension_, resumed_));
}

TEST_P(SuspensionTest, CancelledBeforeItBegan) {
  any_.Run([](Suspension& suspension) -> Task<void> {
    co_await suspension.SetUp();
    CancelSource source;
    source.Cancel();
    const absl::Status status = co_await suspension.Wait(source.deadline());
    EXPECT_TRUE(absl::IsCancelled(status)) << status;
    EXPECT_TRUE((co_await Sleep(kMoment, Soon())).ok());
  }(*suspension_));
}

TEST_P(SuspensionTest, EndsAtItsDeadline) {
  any_.Run([](Suspension& suspension) -> Task<void> {
    co_await suspension.SetUp();
    for (int i = 0; i < 2; ++i) {
      const absl::Time start = Loop::Current().Now();
      const absl::Status status = co_await suspension.Wait(Deadline::After(absl::Milliseconds(10)));
      EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
      EXPECT_GE(Loop::Current().Now(), start + absl::Milliseconds(10));
      EXPECT_LE(Loop::Current().Now(), start + absl::Seconds(5));
    }
  }(*suspension_));
}

TEST_P(SuspensionTest, IsDestroyedWhileItWaits) {
  any_.Run([](Suspension& suspension, int& resumed) -> Task<void> {
    co_await suspension.SetUp();
    CancelSource source;
    absl::Status dropped, after;
    {
      TaskGroup group;
      group.Spawn(WaitAndCount(suspension, source.deadline().Within(absl::Milliseconds(20)),
                               dropped, resumed));
      (void)co_await Sleep(absl::Milliseconds(5), Soon());
    }
    // What would have ended it comes now; nobody is there.
    suspension.Wake();
    source.Cancel();
    (void)co_await Sleep(absl::Milliseconds(30), Soon());
    EXPECT_EQ(resumed, 0);
  }(*suspension_, resumed_));
}

TEST_P(SuspensionTest, IsDestroyedBetweenItsWakeUpAndItsTurn) {
  any_.Run([](Suspension& suspension, int& resumed) -> Task<void> {
    co_await suspension.SetUp();
    for (const bool by_cancel : {true, false}) {
      CancelSource source;
      absl::Status dropped;
      auto group = std::make_unique<TaskGroup>();
      group->Spawn(WaitAndCount(suspension, source.deadline(), dropped, resumed));
      (void)co_await Sleep(absl::Milliseconds(5), Soon());
      if (by_cancel) {
        source.Cancel();
      } else if (!suspension.Wake()) {
        continue;
      }
      group.reset();
      (void)co_await Sleep(absl::Milliseconds(5), Soon());
      EXPECT_EQ(resumed, 0);
    }
    EXPECT_TRUE((co_await Sleep(kMoment, Soon())).ok());
  }(*suspension_, resumed_));
}

TEST_P(SuspensionTest, EndsWhenWhatItWaitsForComes) {
  any_.Run([](Suspension& suspension, int& resumed) -> Task<void> {
    co_await suspension.SetUp();
    absl::Status result;
    TaskGroup group;
    group.Spawn(WaitAndCount(suspension, Soon(), result, resumed));
    (void)co_await Sleep(absl::Milliseconds(5), Soon());
    if (!suspension.Wake()) co_return;
    EXPECT_TRUE((co_await group.WaitUntilEmpty(Soon())).ok());
    EXPECT_TRUE(result.ok()) << result;
    EXPECT_EQ(resumed, 1);
  }(*suspension_, resumed_));
}

TEST_P(SuspensionTest, DiesWithItsLoop) {
  // As an object graph would: what owns the wait is itself on the loop.
  absl::Status dropped;
  Suspension* const suspension = suspension_.get();
  any_.Run([](Suspension& set_up) -> Task<void> { co_await set_up.SetUp(); }(*suspension));
  any_.loop().Spawn(
      [](std::unique_ptr<Suspension> owner, absl::Status& result, int& resumed) -> Task<void> {
        TaskGroup group;
        group.Spawn(WaitAndCount(*owner, Deadline::Never(), result, resumed));
        (void)co_await Sleep(absl::Hours(1), Deadline::Never());
      }(std::move(suspension_), dropped, resumed_));
  any_.Run([]() -> Task<void> { (void)co_await Sleep(absl::Milliseconds(5), Soon()); }());
  any_.Destroy();
  EXPECT_EQ(resumed_, 0);
}

}  // namespace
}  // namespace dfscsi::runtime
