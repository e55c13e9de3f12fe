#include "node-agent/runtime/dns.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "node-agent/base/unique_fd.h"
#include "node-agent/runtime/real_loop.h"

namespace dfscsi::runtime {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::Not;
using testing::UnorderedElementsAre;

Deadline Soon() { return Deadline::After(absl::Seconds(20)); }

constexpr uint16_t kTypeA = 1;
constexpr uint16_t kTypeSrv = 33;

std::string Be16(unsigned value) {
  return {static_cast<char>(value >> 8), static_cast<char>(value & 0xff)};
}

std::string WireName(const std::string& name) {
  std::string wire, label;
  for (const char c : name + ".") {
    if (c != '.') {
      label += c;
      continue;
    }
    wire += static_cast<char>(label.size());
    wire += label;
    label.clear();
  }
  return wire + '\0';
}

// Answers from its table; NXDOMAIN otherwise.
class FakeNameServer {
 public:
  explicit FakeNameServer(RealLoop& loop)
      : fd_(socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    if (bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), size) != 0) abort();
    getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address), &size);
    port_ = ntohs(address.sin_port);
    watch_ = loop.Watch(fd_.get());
    serving_.Spawn(Serve());
  }

  std::string servers() const { return absl::StrCat("127.0.0.1:", port_); }
  void AddAddress(const std::string& name, const std::string& address) {
    in_addr bytes;
    inet_pton(AF_INET, address.c_str(), &bytes);
    records_[{name, kTypeA}].push_back(std::string(reinterpret_cast<char*>(&bytes), 4));
  }
  void AddService(const std::string& name, unsigned priority, unsigned weight, unsigned port,
                  const std::string& host) {
    records_[{name, kTypeSrv}].push_back(
        absl::StrCat(Be16(priority), Be16(weight), Be16(port), WireName(host)));
  }
  void set_fails(bool fails) { fails_ = fails; }
  // Names asked for addresses, each once, in order.
  const std::vector<std::string>& asked() const { return asked_; }

 private:
  Task<void> Serve() {
    while (true) {
      char packet[512];
      sockaddr_in from{};
      socklen_t size = sizeof from;
      const ssize_t n =
          recvfrom(fd_.get(), packet, sizeof packet, 0, reinterpret_cast<sockaddr*>(&from), &size);
      if (n < 0) {
        (void)co_await watch_->WaitReadable(Deadline::Never());
        continue;
      }
      const std::string answer = Answer(std::string(packet, static_cast<size_t>(n)));
      sendto(fd_.get(), answer.data(), answer.size(), 0, reinterpret_cast<sockaddr*>(&from), size);
    }
  }

  std::string Answer(const std::string& query) {
    size_t at = 12;
    std::string name;
    while (query[at] != 0) {
      if (!name.empty()) name += '.';
      name += query.substr(at + 1, static_cast<size_t>(query[at]));
      at += 1 + static_cast<size_t>(query[at]);
    }
    const uint16_t type = static_cast<uint8_t>(query[at + 2]);
    const std::string question = query.substr(12, at + 5 - 12);
    if (asked_.empty() || asked_.back() != name) asked_.push_back(name);
    bool known = false;
    for (const auto& [key, values] : records_) known = known || key.first == name;
    const auto found = records_.find({name, type});
    std::string answers;
    size_t count = 0;
    if (found != records_.end()) {
      for (const std::string& value : found->second) {
        answers += absl::StrCat(Be16(0xc00c), Be16(type), Be16(1), Be16(0), Be16(60),
                                Be16(static_cast<unsigned>(value.size())), value);
        ++count;
      }
    }
    const unsigned code = fails_ ? 2 : known ? 0 : 3;
    return absl::StrCat(query.substr(0, 2), Be16(0x8180 | code), Be16(1),
                        Be16(static_cast<unsigned>(fails_ ? 0 : count)), Be16(0), Be16(0), question,
                        fails_ ? "" : answers);
  }

  UniqueFd fd_;
  std::unique_ptr<FdWatch> watch_;
  uint16_t port_ = 0;
  bool fails_ = false;
  std::map<std::pair<std::string, uint16_t>, std::vector<std::string>> records_;
  std::vector<std::string> asked_;
  TaskGroup serving_;
};

class DnsTest : public testing::Test {
 protected:
  DnsTest() {
    // As in a pod.
    resolv_conf_ = absl::StrCat(testing::TempDir(), "/resolv.conf.", getpid());
    std::ofstream(resolv_conf_) << "nameserver 127.0.0.1\n"
                                   "search ns.svc.cluster.test svc.cluster.test\n"
                                   "options ndots:5\n";
    dns_ = MakeDns(loop_, {resolv_conf_, server_->servers()});
  }
  ~DnsTest() override {
    unsetenv("CARES_HOSTS");
    unlink(resolv_conf_.c_str());
  }

  absl::StatusOr<std::vector<std::string>> Resolve(const std::string& name,
                                                   absl::Duration within = absl::Seconds(20)) {
    absl::StatusOr<std::vector<std::string>> result;
    loop_.RunUntilDone(
        [](Dns& dns, std::string host, absl::Duration limit, auto& out) -> Task<void> {
          auto addresses = co_await dns.Resolve(host, Deadline::After(limit));
          if (!addresses.ok()) {
            out = addresses.status();
            co_return;
          }
          out.emplace();
          for (const IpAddress& address : *addresses) out->push_back(address.ToString());
        }(*dns_, name, within, result));
    return result;
  }

  RealLoop loop_;
  std::unique_ptr<FakeNameServer> server_ = std::make_unique<FakeNameServer>(loop_);
  std::string resolv_conf_;
  std::unique_ptr<Dns> dns_;
};

// The host of a referral has dots: it is asked as it is, although the pod's resolv.conf says
// ndots:5, which would ask every search domain before.
TEST_F(DnsTest, ANameWithADotIsAskedAsAbsoluteFirst) {
  server_->AddAddress("t1.corp.test", "10.0.0.1");
  const auto addresses = Resolve("t1.corp.test");
  ASSERT_TRUE(addresses.ok()) << addresses.status();
  EXPECT_THAT(*addresses, ElementsAre("10.0.0.1"));
  EXPECT_THAT(server_->asked(), ElementsAre("t1.corp.test"));
}

TEST_F(DnsTest, AShortNameIsSearchedFor) {
  server_->AddAddress("t1.svc.cluster.test", "10.0.0.2");
  const auto addresses = Resolve("t1");
  ASSERT_TRUE(addresses.ok()) << addresses.status();
  EXPECT_THAT(*addresses, ElementsAre("10.0.0.2"));
  EXPECT_THAT(server_->asked(), ElementsAre("t1.ns.svc.cluster.test", "t1.svc.cluster.test"));
}

TEST_F(DnsTest, AFinalDotAsksForNothingElse) {
  EXPECT_TRUE(absl::IsNotFound(Resolve("t1.corp.test.").status()));
  EXPECT_THAT(server_->asked(), ElementsAre("t1.corp.test"));
}

TEST_F(DnsTest, AnUnknownNameIsNotFound) {
  const auto addresses = Resolve("nosuch.corp.test");
  EXPECT_TRUE(absl::IsNotFound(addresses.status())) << addresses.status();
}

TEST_F(DnsTest, AllAddressesOfAName) {
  server_->AddAddress("t1.corp.test", "10.0.0.1");
  server_->AddAddress("t1.corp.test", "10.0.0.2");
  const auto addresses = Resolve("t1.corp.test");
  ASSERT_TRUE(addresses.ok()) << addresses.status();
  EXPECT_THAT(*addresses, UnorderedElementsAre("10.0.0.1", "10.0.0.2"));
}

TEST_F(DnsTest, AnAddressIsItself) {
  EXPECT_THAT(*Resolve("192.0.2.7"), ElementsAre("192.0.2.7"));
  EXPECT_THAT(*Resolve("fd00::7"), ElementsAre("fd00::7"));
  EXPECT_TRUE(server_->asked().empty());
}

TEST_F(DnsTest, AFailingServerIsUnavailableAndNotNotFound) {
  server_->set_fails(true);
  const auto addresses = Resolve("t1.corp.test");
  EXPECT_TRUE(absl::IsUnavailable(addresses.status())) << addresses.status();
}

TEST_F(DnsTest, ASilentServerEndsAtTheDeadlineAndLaterOneIsAsked) {
  server_.reset();
  // Nobody listens: the kernel may refuse (unavailable) or the deadline comes first.
  const auto none = Resolve("t1.corp.test", absl::Milliseconds(100));
  EXPECT_FALSE(none.ok());
  EXPECT_FALSE(absl::IsNotFound(none.status())) << none.status();
  server_ = std::make_unique<FakeNameServer>(loop_);
  server_->AddAddress("t1.corp.test", "10.0.0.1");
  dns_ = MakeDns(loop_, {resolv_conf_, server_->servers()});
  EXPECT_TRUE(Resolve("t1.corp.test").ok());
}

TEST_F(DnsTest, TheHostsFileIsReadFirst) {
  const std::string hosts = absl::StrCat(testing::TempDir(), "/hosts.", getpid());
  std::ofstream(hosts) << "10.9.9.9 t9.corp.test t9\n";
  setenv("CARES_HOSTS", hosts.c_str(), 1);
  const auto addresses = Resolve("t9.corp.test");
  ASSERT_TRUE(addresses.ok()) << addresses.status();
  EXPECT_THAT(*addresses, ElementsAre("10.9.9.9"));
  EXPECT_TRUE(server_->asked().empty());
  unlink(hosts.c_str());
}

TEST_F(DnsTest, ServicesComeInOrderOfPriorityThenWeight) {
  const std::string name = "_ldap._tcp.dc._msdcs.corp.test";
  server_->AddService(name, 10, 1, 389, "dc3.corp.test");
  server_->AddService(name, 0, 10, 389, "dc2.corp.test");
  server_->AddService(name, 0, 90, 3268, "dc1.corp.test");
  loop_.RunUntilDone([](Dns& dns, std::string service) -> Task<void> {
    const auto found = co_await dns.ResolveService(service, Soon());
    EXPECT_TRUE(found.ok()) << found.status();
    if (!found.ok()) co_return;
    std::vector<std::string> hosts;
    for (const Network::Service& one : *found)
      hosts.push_back(absl::StrCat(one.host, ":", one.port));
    EXPECT_THAT(hosts, ElementsAre("dc1.corp.test:3268", "dc2.corp.test:389", "dc3.corp.test:389"));
    EXPECT_TRUE(absl::IsNotFound(
        (co_await dns.ResolveService("_ldap._tcp.dc._msdcs.other.test", Soon())).status()));
  }(*dns_, name));
}

// Many at once, half of them given up: c-ares's callbacks come after their caller has gone.
TEST_F(DnsTest, ManyQuestionsSomeGivenUp) {
  for (int i = 0; i < 40; ++i) {
    server_->AddAddress(absl::StrCat("t", i, ".corp.test"), absl::StrCat("10.0.1.", i));
  }
  loop_.RunUntilDone([](Dns& dns) -> Task<void> {
    int answered = 0;
    TaskGroup kept;
    {
      TaskGroup given_up;
      for (int i = 0; i < 40; ++i) {
        (i % 2 == 0 ? kept : given_up).Spawn([](Dns& d, int n, int& count) -> Task<void> {
          const auto addresses = co_await d.Resolve(absl::StrCat("t", n, ".corp.test"), Soon());
          EXPECT_TRUE(addresses.ok()) << addresses.status();
          if (addresses.ok()) ++count;
        }(dns, i, answered));
      }
      (void)co_await Sleep(absl::Microseconds(1), Soon());
    }
    EXPECT_TRUE((co_await kept.WaitUntilEmpty(Soon())).ok());
    EXPECT_GE(answered, 20);
  }(*dns_));
}

}  // namespace
}  // namespace dfscsi::runtime
