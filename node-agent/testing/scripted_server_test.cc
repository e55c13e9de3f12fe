// The scripted server, asked by the real client on the simulated network: what it answers when it
// tells the truth, and what it does when its script says otherwise.

#include "node-agent/testing/scripted_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "node-agent/dfs/referral.h"
#include "node-agent/dfs/referral_request.h"
#include "node-agent/runtime/real_loop.h"
#include "node-agent/smb/session_pool.h"
#include "node-agent/smb/wire/directory.h"
#include "node-agent/smb/wire/file_name.h"
#include "node-agent/smb/wire/reparse.h"
#include "node-agent/smb/wire/utf16.h"
#include "node-agent/testing/scripted_lab.h"

namespace dfscsi::testing {
namespace {

using runtime::Deadline;
using runtime::Task;
using smb::wire::CipherId;
using smb::wire::Command;
using smb::wire::Dialect;
using smb::wire::NtStatus;
using smb::wire::SigningId;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Deadline Soon() { return Deadline::After(absl::Seconds(60)); }

class ScriptedServerTest : public ::testing::Test {
 protected:
  ScriptedServerTest() {
    options_.lowest_dialect = Dialect::k210;
    share_->AddFile("dir/file", 1 << 20);
    share_->AddText("who", "t1");
  }
  ~ScriptedServerTest() override {
    EXPECT_THAT(lab_.Violations(), ::testing::ElementsAreArray(expected_violations_));
  }

  using Work = std::function<Task<void>(std::shared_ptr<smb::Tree>)>;
  // Connects and runs `work` with the share.
  absl::Status WithTree(Work work, std::string share = "data") {
    absl::Status status = absl::UnknownError("did not run");
    EXPECT_TRUE(lab_.Run(Connect(*this, std::move(work), std::move(share), status)));
    lab_.world().RunFor(absl::Milliseconds(10));  // Until the server has seen the end, too.
    return status;
  }
  static Task<void> Connect(ScriptedServerTest& test, Work work, std::string share,
                            absl::Status& status) {
    smb::SessionPool pool(test.options_, test.lab_.authenticators(), nullptr);
    smb::ConnectPhase phase;
    auto tree = co_await pool.GetTree("t1", share, test.credential_, &phase, Soon());
    status = tree.status();
    if (tree.ok()) co_await work(*tree);
  }

  // Opens, reads `size` bytes, closes; checks each byte.
  static Task<absl::Status> ReadFile(std::shared_ptr<smb::Tree> tree, std::string path,
                                     uint64_t size, Deadline deadline) {
    smb::wire::CreateRequest create;
    create.desired_access = smb::wire::kAccessReadData;
    create.name = *smb::wire::WirePath(path);
    auto open = co_await tree->Create(create, deadline);
    if (!open.ok()) co_return open.status();
    std::vector<uint8_t> bytes(size + 100);
    auto n = co_await tree->Read(open->file_id, 0, absl::MakeSpan(bytes), deadline);
    if (!n.ok()) co_return n.status();
    if (*n != size) co_return absl::InternalError(absl::StrCat("read ", *n));
    std::vector<uint8_t> expected(size);
    FillContent(ContentSeed(path), 0, absl::MakeSpan(expected));
    bytes.resize(size);
    if (bytes != expected) co_return absl::InternalError("wrong bytes");
    co_return co_await tree->Close(open->file_id, deadline);
  }
  absl::Status ReadOnce(absl::Duration within = absl::Seconds(60)) {
    absl::Status result = absl::UnknownError("did not run");
    const absl::Status connected = WithTree([&](std::shared_ptr<smb::Tree> tree) -> Task<void> {
      result = co_await ReadFile(tree, "dir/file", 1 << 20, Deadline::After(within));
    });
    return connected.ok() ? result : connected;
  }

  ScriptedLab lab_{1};
  ScriptedServer& server_ = lab_.AddServer("t1");
  ScriptedShare* share_ = &server_.AddShare("data");
  smb::Options options_;
  smb::Credential credential_ = lab_.credential();
  std::vector<std::string> expected_violations_;
};

// --- The truth, in every dialect and algorithm

struct Variant {
  Dialect dialect;
  SigningId signing;
  CipherId cipher;
  bool encrypt;
};

class VariantTest : public ScriptedServerTest, public ::testing::WithParamInterface<Variant> {};

TEST_P(VariantTest, ReadsAFile) {
  const Variant& variant = GetParam();
  server_.options().highest_dialect = variant.dialect;
  server_.options().signing_algorithms = {variant.signing};
  server_.options().ciphers = {variant.cipher};
  server_.options().encrypt_sessions = variant.encrypt;
  EXPECT_EQ(ReadOnce(), absl::OkStatus());
  const bool sealed = variant.encrypt;
  for (const ScriptedRequest& request : server_.log()) {
    if (request.header.command != Command::kRead) continue;
    EXPECT_EQ(request.encrypted, sealed);
    EXPECT_EQ(request.is_signed, !sealed);
  }
  EXPECT_EQ(server_.options().highest_dialect, variant.dialect);
}

std::string VariantName(const ::testing::TestParamInfo<Variant>& info) {
  return absl::StrCat("Dialect", absl::Hex(static_cast<int>(info.param.dialect)), "Signing",
                      static_cast<int>(info.param.signing), "Cipher",
                      static_cast<int>(info.param.cipher), info.param.encrypt ? "Encrypted" : "");
}

INSTANTIATE_TEST_SUITE_P(
    All, VariantTest,
    ::testing::Values(Variant{Dialect::k210, SigningId::kHmacSha256, CipherId::kNone, false},
                      Variant{Dialect::k300, SigningId::kAesCmac, CipherId::kNone, false},
                      Variant{Dialect::k300, SigningId::kAesCmac, CipherId::kAes128Ccm, true},
                      Variant{Dialect::k302, SigningId::kAesCmac, CipherId::kNone, false},
                      Variant{Dialect::k302, SigningId::kAesCmac, CipherId::kAes128Ccm, true},
                      Variant{Dialect::k311, SigningId::kHmacSha256, CipherId::kNone, false},
                      Variant{Dialect::k311, SigningId::kAesCmac, CipherId::kNone, false},
                      Variant{Dialect::k311, SigningId::kAesGmac, CipherId::kNone, false},
                      Variant{Dialect::k311, SigningId::kAesGmac, CipherId::kAes128Ccm, true},
                      Variant{Dialect::k311, SigningId::kAesGmac, CipherId::kAes128Gcm, true},
                      Variant{Dialect::k311, SigningId::kAesGmac, CipherId::kAes256Ccm, true},
                      Variant{Dialect::k311, SigningId::kAesGmac, CipherId::kAes256Gcm, true}),
    VariantName);

TEST_F(ScriptedServerTest, WithoutSigning) {
  options_.signing = smb::Signing::kIfRequired;
  EXPECT_EQ(ReadOnce(), absl::OkStatus());
  server_.ClearLog();
  server_.options().signing_required = true;
  EXPECT_EQ(ReadOnce(), absl::OkStatus());
  for (const ScriptedRequest& request : server_.log()) {
    if (request.header.command == Command::kRead) EXPECT_TRUE(request.is_signed);
  }
}

TEST_F(ScriptedServerTest, MoreRoundsAndAServerThatProvesItself) {
  server_.passwords().set_rounds(4);
  server_.passwords().set_proves_itself(true);
  EXPECT_EQ(ReadOnce(), absl::OkStatus());
  EXPECT_EQ(server_.Count(Command::kSessionSetup), 4);
}

TEST_F(ScriptedServerTest, RefusesAWrongPasswordAndAnUnknownShare) {
  EXPECT_EQ(smb::wire::NtStatusOf(WithTree(nullptr, "nosuch")), NtStatus::kBadNetworkName);
  credential_.password = Secret("wrong");
  EXPECT_EQ(smb::wire::NtStatusOf(WithTree(nullptr)), NtStatus::kLogonFailure);
  EXPECT_EQ(server_.passwords().refused(), 1);
  EXPECT_EQ(server_.sessions(), 0);
}

TEST_F(ScriptedServerTest, AGuestIsNotWhoWeAre) {
  server_.options().guests = true;
  EXPECT_TRUE(absl::IsPermissionDenied(WithTree(nullptr)));
}

// --- Files

TEST_F(ScriptedServerTest, ContentIsAFunctionOfPathAndOffset) {
  const uint64_t seed = ContentSeed("Dir/FILE");
  EXPECT_EQ(seed, ContentSeed("dir/file"));
  EXPECT_NE(seed, ContentSeed("dir/file", 1));
  std::vector<uint8_t> all(1000), part(37);
  FillContent(seed, 0, absl::MakeSpan(all));
  FillContent(seed, 501, absl::MakeSpan(part));
  EXPECT_TRUE(std::equal(part.begin(), part.end(), all.begin() + 501));
  EXPECT_EQ(ContentByte(seed, 501), all[501]);
}

TEST_F(ScriptedServerTest, StatsAndErrors) {
  share_->AddLink("dir/link", {.targets = {"t2/data"}});
  share_->AddSymlink("dir/sym", "file");
  share_->AddText("secret", "x").denied = true;
  const auto run = [](std::shared_ptr<smb::Tree> tree) -> Task<void> {
    auto file = co_await tree->Stat(u"DIR\\File", Soon());
    EXPECT_TRUE(file.ok()) << file.status();
    if (!file.ok()) co_return;
    EXPECT_EQ(file->attributes.end_of_file, 1u << 20);
    const auto status_of = [&](std::u16string path) -> Task<NtStatus> {
      auto stat = co_await tree->Stat(path, Soon());
      co_return stat.ok() ? NtStatus::kSuccess
                          : smb::wire::NtStatusOf(stat.status()).value_or(NtStatus::kUnsuccessful);
    };
    EXPECT_EQ(co_await status_of(u"dir"), NtStatus::kSuccess);
    EXPECT_EQ(co_await status_of(u""), NtStatus::kSuccess);
    EXPECT_EQ(co_await status_of(u"nosuch"), NtStatus::kObjectNameNotFound);
    EXPECT_EQ(co_await status_of(u"nosuch\\file"), NtStatus::kObjectPathNotFound);
    EXPECT_EQ(co_await status_of(u"who\\file"), NtStatus::kObjectPathNotFound);
    EXPECT_EQ(co_await status_of(u"dir\\link"), NtStatus::kPathNotCovered);
    EXPECT_EQ(co_await status_of(u"dir\\link\\below"), NtStatus::kPathNotCovered);
    EXPECT_EQ(co_await status_of(u"dir\\sym\\below"), NtStatus::kStoppedOnSymlink);
    EXPECT_EQ(co_await status_of(u"secret"), NtStatus::kAccessDenied);
    EXPECT_EQ(co_await status_of(u"\\dir"), NtStatus::kInvalidParameter);
    auto symlink = co_await tree->Stat(u"dir\\sym", Soon());
    EXPECT_TRUE(symlink.ok()) << symlink.status();
    if (symlink.ok()) EXPECT_EQ(symlink->reparse_tag, smb::wire::kTagSymlink);
    auto reparse = co_await tree->GetReparsePoint(u"dir\\sym", Soon());
    EXPECT_TRUE(reparse.ok()) << reparse.status();
    if (reparse.ok()) {
      auto data = smb::wire::DecodeReparseData(*reparse);
      EXPECT_EQ(std::get<smb::wire::SymlinkReparse>(*data).substitute_name, u"file");
    }
    auto size = co_await tree->StatFileSystem(u"", Soon());
    EXPECT_TRUE(size.ok()) << size.status();
  };
  EXPECT_EQ(WithTree(run), absl::OkStatus());
  EXPECT_EQ(server_.opens(), 0);
}

TEST_F(ScriptedServerTest, ListsLargeDirectoriesInAnyOrder) {
  for (int i = 0; i < 20000; ++i) share_->AddText(absl::StrCat("big/entry-", i), "x");
  share_->AddLink("big/link", {.targets = {"t2/data"}});
  std::vector<std::string> orders[2];
  for (const int order : {0, 1}) {
    share_->listing_order = static_cast<uint64_t>(order) * 77;
    const auto run = [&](std::shared_ptr<smb::Tree> tree) -> Task<void> {
      auto opened = co_await tree->OpenDirectory(u"big", Soon());
      EXPECT_TRUE(opened.ok()) << opened.status();
      if (!opened.ok()) co_return;
      smb::DirectoryPages pages = std::move(opened->pages);
      while (true) {
        for (const std::vector<uint8_t>& page : pages.pages) {
          smb::wire::DirectoryReader reader(smb::wire::FileInfoClass::kIdBothDirectory, page);
          while (auto entry = reader.Next()) {
            std::string name;
            EXPECT_TRUE(smb::wire::FromWireName(entry->name, &name));
            if (name == "link") EXPECT_EQ(entry->reparse_tag, smb::wire::kTagDfs);
            orders[order].push_back(name);
          }
          EXPECT_TRUE(reader.status().ok());
        }
        if (pages.complete) break;
        auto more = co_await tree->ReadDirectory(opened->file_id, Soon());
        EXPECT_TRUE(more.ok()) << more.status();
        if (!more.ok()) co_return;
        pages = *std::move(more);
      }
      (void)co_await tree->Close(opened->file_id, Soon());
    };
    EXPECT_EQ(WithTree(run), absl::OkStatus());
    EXPECT_EQ(orders[order].size(), 20001u);
  }
  EXPECT_NE(orders[0], orders[1]);
  std::sort(orders[0].begin(), orders[0].end());
  std::sort(orders[1].begin(), orders[1].end());
  EXPECT_EQ(orders[0], orders[1]);
}

// --- Referrals

TEST_F(ScriptedServerTest, ReferralsOfEveryVersion) {
  ScriptedShare& dfs = server_.AddShare("dfs");
  dfs.dfs_root = true;
  dfs.AddLink("a/link", {.targets = {"t2/data", "t3/data/sub"}, .version = 4, .ttl_seconds = 77});
  dfs.AddLink("empty", {});
  dfs.AddLink("inter", {.targets = {"other/ns"}, .interlink = true});
  server_.AddDomain("corp.test", {"dc1.corp.test", "dc2.corp.test"});
  const auto run = [](std::shared_ptr<smb::Tree> tree) -> Task<void> {
    const auto ask = [&](std::u16string path,
                         uint16_t level) -> Task<absl::StatusOr<std::vector<uint8_t>>> {
      co_return co_await tree->Ioctl(smb::wire::Fsctl::kDfsGetReferrals, smb::wire::kNoFileId,
                                     dfs::EncodeReferralRequest(path, level), 8192, Soon());
    };
    for (uint16_t level = 1; level <= 4; ++level) {
      auto bytes = co_await ask(u"\\t1\\DFS\\a\\Link\\below\\it", level);
      EXPECT_TRUE(bytes.ok()) << bytes.status();
      if (!bytes.ok()) continue;
      auto referral = dfs::DecodeReferral(*bytes, u"\\t1\\DFS\\a\\Link\\below\\it");
      EXPECT_TRUE(referral.ok()) << referral.status();
      if (!referral.ok()) continue;
      EXPECT_EQ(referral->version, level);
      if (level > 1) EXPECT_EQ(referral->consumed_components, 4u);
      if (level > 1) EXPECT_EQ(referral->ttl, absl::Seconds(77));
      EXPECT_EQ(referral->targets.size(), 2u);
      EXPECT_EQ(referral->targets[1].path.ToString(), "//t3/data/sub");
      EXPECT_FALSE(referral->root);
    }
    auto root = dfs::DecodeReferral(*co_await ask(u"\\t1\\dfs", 4), u"\\t1\\dfs");
    EXPECT_TRUE(root->root);
    EXPECT_EQ(root->targets.front().path.ToString(), "//t1/dfs");
    auto inter = dfs::DecodeReferral(*co_await ask(u"\\t1\\dfs\\inter", 4), u"\\t1\\dfs\\inter");
    EXPECT_TRUE(inter->interlink);
    auto empty = dfs::DecodeReferral(*co_await ask(u"\\t1\\dfs\\empty", 4), u"\\t1\\dfs\\empty");
    EXPECT_TRUE(empty->targets.empty());
    const auto refused = [&](std::u16string path, uint16_t level) -> Task<NtStatus> {
      auto bytes = co_await ask(path, level);
      co_return smb::wire::NtStatusOf(bytes.status()).value_or(NtStatus::kSuccess);
    };
    EXPECT_EQ(co_await refused(u"\\t1\\data", 4), NtStatus::kNotFound);
    EXPECT_EQ(co_await refused(u"\\t1\\dfs\\a", 4), NtStatus::kObjectPathNotFound);
    EXPECT_EQ(co_await refused(u"\\foreign.test", 4), NtStatus::kInvalidParameter);
    EXPECT_EQ(co_await refused(u"\\corp.test", 2), NtStatus::kUnsuccessful);
    auto names = dfs::DecodeNameListReferral(*co_await ask(u"\\CORP.test", 4));
    EXPECT_THAT(names->entries.front().expanded, ElementsAre("dc1.corp.test", "dc2.corp.test"));
    auto domains = dfs::DecodeNameListReferral(*co_await ask(u"", 4));
    EXPECT_EQ(domains->entries.front().name, "corp.test");
  };
  EXPECT_EQ(WithTree(run, "IPC$"), absl::OkStatus());
  EXPECT_EQ(server_.CountReferrals(), 13);
}

TEST_F(ScriptedServerTest, AReferralThatDoesNotFitIsCutOff) {
  ScriptedShare& dfs = server_.AddShare("dfs");
  dfs.dfs_root = true;
  dfs.AddLink("link", {.targets = std::vector<ScriptedReferral::Target>(200, "server/share")});
  EXPECT_EQ(WithTree(
                [](std::shared_ptr<smb::Tree> tree) -> Task<void> {
                  auto bytes = co_await tree->Ioctl(
                      smb::wire::Fsctl::kDfsGetReferrals, smb::wire::kNoFileId,
                      dfs::EncodeReferralRequest(u"\\t1\\dfs\\link"), 1024, Soon());
                  EXPECT_EQ(smb::wire::NtStatusOf(bytes.status()), NtStatus::kBufferOverflow);
                },
                "IPC$"),
            absl::OkStatus());
}

TEST_F(ScriptedServerTest, WithoutDfs) {
  server_.options().dfs = false;
  EXPECT_EQ(WithTree(
                [](std::shared_ptr<smb::Tree> tree) -> Task<void> {
                  auto bytes =
                      co_await tree->Ioctl(smb::wire::Fsctl::kDfsGetReferrals, smb::wire::kNoFileId,
                                           dfs::EncodeReferralRequest(u"\\t1\\dfs"), 1024, Soon());
                  EXPECT_EQ(smb::wire::NtStatusOf(bytes.status()), NtStatus::kFsDriverRequired);
                },
                "IPC$"),
            absl::OkStatus());
}

// --- The script

TEST_F(ScriptedServerTest, RulesFitOnceSkipAndEnd) {
  server_.AddRule({.command = Command::kCreate,
                   .path = "DIR/file",
                   .skip = 1,
                   .times = 2,
                   .action = {.status = NtStatus::kSharingViolation}});
  EXPECT_EQ(ReadOnce(), absl::OkStatus());
  EXPECT_EQ(smb::wire::NtStatusOf(ReadOnce()), NtStatus::kSharingViolation);
  EXPECT_EQ(smb::wire::NtStatusOf(ReadOnce()), NtStatus::kSharingViolation);
  EXPECT_EQ(ReadOnce(), absl::OkStatus());
  EXPECT_EQ(server_.Count(Command::kCreate), 4);
}

TEST_F(ScriptedServerTest, DelayedAnswersAreOvertaken) {
  server_.AddRule({.command = Command::kRead, .times = 1, .action = {.delay = absl::Seconds(2)}});
  const absl::Time start = lab_.world().now();
  EXPECT_EQ(ReadOnce(), absl::OkStatus());
  EXPECT_GT(lab_.world().now() - start, absl::Seconds(2));
}

TEST_F(ScriptedServerTest, PendingAnswersComeLater) {
  server_.AddRule(
      {.command = Command::kRead, .action = {.delay = absl::Seconds(1), .pending = true}});
  EXPECT_EQ(ReadOnce(), absl::OkStatus());
}

TEST_F(ScriptedServerTest, APendingRequestIsCancelled) {
  server_.AddRule(
      {.command = Command::kRead, .action = {.delay = absl::InfiniteDuration(), .pending = true}});
  EXPECT_TRUE(absl::IsDeadlineExceeded(ReadOnce(absl::Seconds(3))));
  EXPECT_GE(server_.Count(Command::kCancel), 1);
}

TEST_F(ScriptedServerTest, AnUnansweredRequestEndsAtItsDeadline) {
  server_.AddRule({.command = Command::kCreate, .action = {.drop = true}});
  EXPECT_FALSE(ReadOnce(absl::Seconds(3)).ok());
  EXPECT_EQ(server_.opens(), 0);  // The connection is gone, and with it the handle.
}

TEST_F(ScriptedServerTest, ResetsAndCloses) {
  for (const Closing how : {Closing::kClose, Closing::kReset}) {
    server_.AddRule(
        {.command = Command::kRead, .times = 1, .action = {.drop = true, .close = how}});
    EXPECT_TRUE(absl::IsAborted(ReadOnce()));
    server_.ClearRules();
  }
}

TEST_F(ScriptedServerTest, LiesEndTheConnection) {
  const std::vector<std::pair<const char*, Action>> lies = {
      {"signature", {.bad_signature = true}},
      {"unsigned", {.is_unsigned = true}},
      {"message id", {.message_id = 4711}},
      {"truncated", {.truncate_to = 70}},
      {"command", {.edit = [](std::vector<uint8_t>& message) { message[12] = 0x0e; }}},
      {"session", {.edit = [](std::vector<uint8_t>& message) { message[40] ^= 1; }}},
      {"protocol", {.edit = [](std::vector<uint8_t>& message) { message[1] = 'X'; }}},
      {"data offset", {.edit = [](std::vector<uint8_t>& message) { message[66] = 0; }}},
      {"data length", {.edit = [](std::vector<uint8_t>& message) { message[71] = 0x7f; }}},
      {"on the way", {.tamper = [](std::vector<uint8_t>& frame) { frame[100] ^= 1; }}},
  };
  for (const auto& [what, action] : lies) {
    server_.AddRule({.command = Command::kRead, .times = 1, .action = action});
    const absl::Status status = ReadOnce();
    EXPECT_TRUE(absl::IsDataLoss(status) || absl::IsAborted(status)) << what << ": " << status;
    EXPECT_EQ(lab_.network().open_connections(), 0) << what;
    server_.ClearRules();
  }
}

TEST_F(ScriptedServerTest, ASecondAnswerToOneRequest) {
  server_.AddRule({.command = Command::kCreate, .times = 1, .action = {.copies = 2}});
  EXPECT_FALSE(ReadOnce().ok());
}

TEST_F(ScriptedServerTest, ANegotiationThatWasTamperedWith) {
  // The dialect's preauth hash, or FSCTL_VALIDATE_NEGOTIATE_INFO, tells.
  for (const Dialect dialect : {Dialect::k311, Dialect::k302}) {
    server_.options().highest_dialect = dialect;
    server_.AddRule({.command = Command::kNegotiate,
                     .times = 1,
                     .action = {.tamper = [](std::vector<uint8_t>& frame) {
                       frame[64 + 24] ^= smb::wire::kCapDfs;
                     }}});
    const absl::Status status = WithTree(nullptr);
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    server_.ClearRules();
  }
}

TEST_F(ScriptedServerTest, ASilentServer) {
  server_.options().silent = true;
  EXPECT_FALSE(WithTree(nullptr).ok());
  EXPECT_GE(server_.Count(Command::kNegotiate), 1);
}

// --- Credits

TEST_F(ScriptedServerTest, OneCreditAtATime) {
  server_.options().most_credits = 1;
  EXPECT_EQ(ReadOnce(), absl::OkStatus());
}

TEST_F(ScriptedServerTest, WithoutLargeMtu) {
  server_.options().large_mtu = false;
  server_.options().max_read_bytes = 65536;
  server_.options().max_transact_bytes = 65536;
  EXPECT_EQ(ReadOnce(), absl::OkStatus());
  EXPECT_GE(server_.Count(Command::kRead), 16);
}

TEST_F(ScriptedServerTest, CompoundsMayBeAnsweredInPieces) {
  server_.options().splits_compounds = true;
  EXPECT_EQ(ReadOnce(), absl::OkStatus());
  EXPECT_EQ(WithTree([](std::shared_ptr<smb::Tree> tree) -> Task<void> {
              EXPECT_TRUE((co_await tree->Stat(u"dir\\file", Soon())).ok());
              EXPECT_FALSE((co_await tree->Stat(u"nosuch", Soon())).ok());
            }),
            absl::OkStatus());
}

// --- Sessions

TEST_F(ScriptedServerTest, AnExpiredSessionIsRenewed) {
  EXPECT_EQ(WithTree([&](std::shared_ptr<smb::Tree> tree) -> Task<void> {
              server_.ExpireSessions();
              EXPECT_EQ(co_await ReadFile(tree, "dir/file", 1 << 20, Soon()), absl::OkStatus());
            }),
            absl::OkStatus());
  EXPECT_EQ(server_.passwords().accepted(), 2);
  EXPECT_EQ(server_.Count(Command::kNegotiate), 1);
}

TEST_F(ScriptedServerTest, ADeletedSessionAndADeletedTree) {
  EXPECT_EQ(WithTree([&](std::shared_ptr<smb::Tree> tree) -> Task<void> {
              server_.DisconnectTrees("DATA");
              auto status = (co_await tree->Stat(u"who", Soon())).status();
              EXPECT_EQ(smb::wire::NtStatusOf(status), NtStatus::kNetworkNameDeleted);
              EXPECT_FALSE(tree->usable());
              server_.DeleteSessions();
              status = (co_await tree->Stat(u"who", Soon())).status();
              EXPECT_FALSE(status.ok());
            }),
            absl::OkStatus());
  EXPECT_EQ(server_.sessions(), 0);
}

TEST_F(ScriptedServerTest, PreviousSessionIdEndsTheOldSession) {
  EXPECT_EQ(WithTree([&](std::shared_ptr<smb::Tree> tree) -> Task<void> {
              smb::wire::CreateRequest create;
              create.desired_access = smb::wire::kAccessReadData;
              create.name = u"who";
              EXPECT_TRUE((co_await tree->Create(create, Soon())).ok());
              EXPECT_EQ(server_.opens(), 1);
              auto stream = co_await runtime::Loop::Current().network().Connect(
                  {lab_.host("t1").addresses().front(), 445}, Soon());
              auto connection =
                  co_await smb::Connection::Negotiate(*std::move(stream), "t1", options_, Soon());
              auto session = co_await smb::Session::Setup(
                  *connection, lab_.authenticators(), credential_, tree->session().id(), Soon());
              EXPECT_TRUE(session.ok()) << session.status();
              EXPECT_EQ(server_.opens(), 0);
              EXPECT_EQ(server_.sessions(), 1);
            }),
            absl::OkStatus());
}

TEST_F(ScriptedServerTest, ARestartForgetsEverything) {
  EXPECT_EQ(ReadOnce(), absl::OkStatus());
  lab_.Kill("t1");
  EXPECT_FALSE(ReadOnce().ok());
  EXPECT_EQ(server_.connections(), 0);
  EXPECT_EQ(server_.sessions(), 0);
  lab_.Start("t1");
  lab_.world().RunFor(absl::Milliseconds(10));
  EXPECT_EQ(ReadOnce(), absl::OkStatus());
}

// --- The real loop

TEST(ScriptedServerOnRealLoopTest, ServesOverLoopback) {
  runtime::RealLoop loop;
  ScriptedServer server("localhost");
  server.AddUser("user", "secret");
  server.AddShare("data").AddFile("file", 5 << 20);
  PasswordAuthenticators authenticators;
  loop.RunUntilDone([](ScriptedServer& on, PasswordAuthenticators& mechanism) -> Task<void> {
    runtime::TaskGroup serving;
    serving.Spawn(on.Serve({*runtime::IpAddress::Parse("127.0.0.1"), 0}));
    while (on.listening().empty()) (void)co_await runtime::Sleep(absl::Milliseconds(1), Soon());
    smb::Options options;
    options.port = on.listening().front().port;
    smb::SessionPool pool(options, mechanism, nullptr);
    smb::Credential credential;
    credential.user = "user";
    credential.password = Secret("secret");
    smb::ConnectPhase phase;
    auto tree = co_await pool.GetTree("127.0.0.1", "data", credential, &phase, Soon());
    EXPECT_TRUE(tree.ok()) << tree.status();
    if (!tree.ok()) co_return;
    smb::wire::CreateRequest create;
    create.desired_access = smb::wire::kAccessReadData;
    create.name = u"file";
    auto open = co_await (*tree)->Create(create, Soon());
    std::vector<uint8_t> bytes(5 << 20), expected(5 << 20);
    auto n = co_await (*tree)->Read(open->file_id, 0, absl::MakeSpan(bytes), Soon());
    EXPECT_TRUE(n.ok() && *n == bytes.size()) << n.status();
    FillContent(ContentSeed("file"), 0, absl::MakeSpan(expected));
    EXPECT_TRUE(bytes == expected);
    // A reset at the next request.
    on.AddRule({.command = Command::kEcho, .action = {}});
    on.CloseConnections(Closing::kReset);
    auto stat = co_await (*tree)->Stat(u"file", Soon());
    EXPECT_FALSE(stat.ok());
  }(server, authenticators));
  EXPECT_THAT(server.violations(), IsEmpty());
}

}  // namespace
}  // namespace dfscsi::testing
