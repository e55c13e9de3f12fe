#include "node-agent/dfs/failure_class.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <string>
#include <vector>

#include "node-agent/smb/wire/nt_status.h"

namespace dfscsi::dfs {
namespace {

using smb::wire::NtStatus;
using smb::wire::ToStatus;
using Class = FailureClass;
using Action = FailureAction;
using Phase = AttemptPhase;

constexpr Phase kPhases[] = {Phase::kResolve,      Phase::kConnect,     Phase::kNegotiate,
                             Phase::kSessionSetup, Phase::kTreeConnect, Phase::kTargetRoot,
                             Phase::kReferral,     Phase::kOperation};
const std::vector<Phase> kConnecting = {Phase::kResolve, Phase::kConnect, Phase::kNegotiate,
                                        Phase::kSessionSetup, Phase::kTreeConnect};
const std::vector<Phase> kLive = {Phase::kTargetRoot, Phase::kReferral, Phase::kOperation};

// What one status means, for the phases where it means that.
struct Row {
  std::string name;
  std::vector<NtStatus> statuses;
  std::vector<Phase> phases;
  Failure want;
};

std::vector<Row> Rows() {
  const std::vector<NtStatus> down = {NtStatus::kBadNetworkPath,
                                      NtStatus::kServerUnavailable,
                                      NtStatus::kFileNotAvailable,
                                      NtStatus::kRequestNotAccepted,
                                      NtStatus::kNetworkBusy,
                                      NtStatus::kUnexpectedNetworkError,
                                      NtStatus::kIoTimeout,
                                      NtStatus::kNetworkShutdown,
                                      NtStatus::kConnectionDisconnected,
                                      NtStatus::kConnectionReset,
                                      NtStatus::kConnectionRefused,
                                      NtStatus::kConnectionAborted,
                                      NtStatus::kNetworkUnreachable,
                                      NtStatus::kHostUnreachable};
  const std::vector<NtStatus> refused = {
      NtStatus::kLogonFailure,       NtStatus::kWrongPassword,       NtStatus::kAccountRestriction,
      NtStatus::kInvalidLogonHours,  NtStatus::kInvalidWorkstation,  NtStatus::kPasswordExpired,
      NtStatus::kPasswordMustChange, NtStatus::kAccountDisabled,     NtStatus::kAccountExpired,
      NtStatus::kAccountLockedOut,   NtStatus::kLogonTypeNotGranted, NtStatus::kNoLogonServers,
      NtStatus::kNetworkAccessDenied};
  const std::vector<NtStatus> file = {
      NtStatus::kSharingViolation,    NtStatus::kDiskFull,         NtStatus::kQuotaExceeded,
      NtStatus::kObjectNameCollision, NtStatus::kDeletePending,    NtStatus::kFileClosed,
      NtStatus::kDirectoryNotEmpty,   NtStatus::kNotSameDevice,    NtStatus::kFileLockConflict,
      NtStatus::kMediaWriteProtected, NtStatus::kPrivilegeNotHeld, NtStatus::kUnsuccessful};
  const std::vector<NtStatus> not_there = {
      NtStatus::kObjectNameNotFound, NtStatus::kObjectPathNotFound,  NtStatus::kObjectNameInvalid,
      NtStatus::kObjectPathInvalid,  NtStatus::kObjectPathSyntaxBad, NtStatus::kNoSuchFile,
      NtStatus::kNotADirectory};
  const std::vector<NtStatus> no_dfs = {NtStatus::kFsDriverRequired, NtStatus::kDfsUnavailable,
                                        NtStatus::kNotFound, NtStatus::kInvalidParameter};
  return {
      {"H08_DownWhileConnecting", down, kConnecting, {Class::kUnavailable, Action::kNextTarget}},
      {"DownLater", down, kLive, {Class::kUnavailable, Action::kSameThenNext}},
      {"C08_NoSuchShare",
       {NtStatus::kBadNetworkName, NtStatus::kNetworkNameDeleted},
       kConnecting,
       {Class::kMissing, Action::kNextTarget}},
      {"C09_ShareClosedUnderUs",
       {NtStatus::kNetworkNameDeleted, NtStatus::kBadNetworkName},
       kLive,
       {Class::kSession, Action::kSameThenNext}},
      {"C07_F01_UserRefused", refused, kConnecting, {Class::kDenied, Action::kNextTarget}},
      {"UserRefusedLater", refused, kLive, {Class::kSemantics, Action::kReturn}},
      {"F01_AccessDeniedWhileConnecting",
       {NtStatus::kAccessDenied},
       kConnecting,
       {Class::kDenied, Action::kNextTarget}},
      {"AccessDeniedAtTheRootIsNoReasonToLeave",
       {NtStatus::kAccessDenied},
       {Phase::kTargetRoot},
       {Class::kNone, Action::kAccept}},
      {"F03_AccessDeniedOnAFile",
       {NtStatus::kAccessDenied},
       {Phase::kOperation, Phase::kReferral},
       {Class::kSemantics, Action::kReturn}},
      {"H08_BusyWhileConnecting",
       {NtStatus::kInsuffServerResources, NtStatus::kInsufficientResources},
       kConnecting,
       {Class::kThrottled, Action::kNextTarget}},
      {"ThrottlingIsBackOff",
       {NtStatus::kInsuffServerResources, NtStatus::kInsufficientResources},
       kLive,
       {Class::kThrottled, Action::kBackOff}},
      {"F08_SessionGone",
       {NtStatus::kUserSessionDeleted, NtStatus::kNetworkSessionExpired},
       kLive,
       {Class::kSession, Action::kSameTarget}},
      {"SessionGoneWhileConnecting",
       {NtStatus::kUserSessionDeleted, NtStatus::kNetworkSessionExpired},
       kConnecting,
       {Class::kSession, Action::kNextTarget}},
      {"PathNotCovered",
       {NtStatus::kPathNotCovered},
       kLive,
       {Class::kPathNotCovered, Action::kResolve}},
      {"A08_TheTargetsPathIsMissing",
       not_there,
       {Phase::kTargetRoot},
       {Class::kMissing, Action::kNextTarget}},
      {"A09_AFileIsMissing",
       not_there,
       {Phase::kOperation, Phase::kReferral},
       {Class::kSemantics, Action::kReturn}},
      {"FileSemantics", file, kLive, {Class::kSemantics, Action::kReturn}},
      {"FileSemanticsWhileConnecting",
       file,
       kConnecting,
       {Class::kUnavailable, Action::kNextTarget}},
      {"A01_A02_NoDfsHere", no_dfs, {Phase::kReferral}, {Class::kSemantics, Action::kReturn}},
  };
}

class RowTest : public testing::TestWithParam<Row> {};

TEST_P(RowTest, IsClassed) {
  for (const NtStatus status : GetParam().statuses) {
    for (const Phase phase : GetParam().phases) {
      EXPECT_EQ(Classify(ToStatus(status, "x"), phase, /*keys_proven=*/true), GetParam().want)
          << status << " at " << AttemptPhaseName(phase);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Failure, RowTest, testing::ValuesIn(Rows()),
                         [](const auto& info) { return info.param.name; });

// Our own codes, as smb/ and runtime/ document them.
struct OwnRow {
  std::string name;
  absl::StatusCode code;
  std::vector<Phase> phases;
  Failure want;
};

class OwnRowTest : public testing::TestWithParam<OwnRow> {};

TEST_P(OwnRowTest, IsClassed) {
  for (const Phase phase : GetParam().phases) {
    EXPECT_EQ(Classify(absl::Status(GetParam().code, "x"), phase, true), GetParam().want)
        << AttemptPhaseName(phase);
  }
}

INSTANTIATE_TEST_SUITE_P(Failure, OwnRowTest,
                         testing::ValuesIn<OwnRow>({
                             {"Ok",
                              absl::StatusCode::kOk,
                              {std::begin(kPhases), std::end(kPhases)},
                              {Class::kNone, Action::kAccept}},
                             {"C01_Refused",
                              absl::StatusCode::kUnavailable,
                              kConnecting,
                              {Class::kTransport, Action::kNextTarget}},
                             {"C35_LostBeforeSending",
                              absl::StatusCode::kUnavailable,
                              kLive,
                              {Class::kTransport, Action::kSameThenNext}},
                             {"C28_LostAfterSending",
                              absl::StatusCode::kAborted,
                              {Phase::kOperation},
                              {Class::kTransport, Action::kSameThenNext, true}},
                             {"LostAReferralThatDoesNoHarmTwice",
                              absl::StatusCode::kAborted,
                              {Phase::kTargetRoot, Phase::kReferral},
                              {Class::kTransport, Action::kSameThenNext}},
                             {"C06_SilentWhileConnecting",
                              absl::StatusCode::kDeadlineExceeded,
                              {Phase::kConnect, Phase::kNegotiate, Phase::kSessionSetup,
                               Phase::kTreeConnect, Phase::kTargetRoot, Phase::kReferral},
                              {Class::kTransport, Action::kNextTarget}},
                             {"TheCallersDeadline",
                              absl::StatusCode::kDeadlineExceeded,
                              {Phase::kOperation},
                              {Class::kCaller, Action::kReturn, true}},
                             {"C13_CancelledWhileConnecting",
                              absl::StatusCode::kCancelled,
                              kConnecting,
                              {Class::kCaller, Action::kReturn}},
                             {"C13_Cancelled",
                              absl::StatusCode::kCancelled,
                              {Phase::kOperation},
                              {Class::kCaller, Action::kReturn, true}},
                             {"A17_NoSuchHost",
                              absl::StatusCode::kNotFound,
                              {Phase::kResolve},
                              {Class::kMissing, Action::kNextTarget}},
                             {"C24_NoNameServer",
                              absl::StatusCode::kUnavailable,
                              {Phase::kResolve},
                              {Class::kTransport, Action::kNextTarget}},
                             {"C07_WrongPassword",
                              absl::StatusCode::kUnauthenticated,
                              {Phase::kSessionSetup},
                              {Class::kDenied, Action::kNextTarget}},
                             {"F11_MadeAGuest",
                              absl::StatusCode::kPermissionDenied,
                              {Phase::kSessionSetup},
                              {Class::kDenied, Action::kNextTarget}},
                             {"F10_NoCommonDialect",
                              absl::StatusCode::kFailedPrecondition,
                              {Phase::kNegotiate},
                              {Class::kBroken, Action::kNextTarget}},
                             {"F12_F13_BrokenPeer",
                              absl::StatusCode::kDataLoss,
                              {Phase::kNegotiate, Phase::kSessionSetup, Phase::kReferral},
                              {Class::kBroken, Action::kNextTarget}},
                             {"F12_BrokenPeerInAnOperation",
                              absl::StatusCode::kDataLoss,
                              {Phase::kOperation},
                              {Class::kBroken, Action::kNextTarget, true}},
                             {"AnyOtherOfOursInAnOperation",
                              absl::StatusCode::kInvalidArgument,
                              {Phase::kOperation},
                              {Class::kSemantics, Action::kReturn}},
                         }),
                         [](const auto& info) { return info.param.name; });

TEST(FailureTest, F16_AccessDeniedWithUnprovenKeysIsNotADeniedTarget) {
  for (const Phase phase : {Phase::kSessionSetup, Phase::kTreeConnect, Phase::kTargetRoot,
                            Phase::kReferral, Phase::kOperation}) {
    EXPECT_EQ(Classify(ToStatus(NtStatus::kAccessDenied, "x"), phase, /*keys_proven=*/false),
              (Failure{Class::kBroken, Action::kReturn}));
  }
  // A refused log-on is one, with or without keys.
  EXPECT_EQ(Classify(ToStatus(NtStatus::kLogonFailure, "x"), Phase::kSessionSetup, false),
            (Failure{Class::kDenied, Action::kNextTarget}));
}

// What holds for every status there is, named or not.
TEST(FailureTest, NoStatusEscapesTheTable) {
  std::vector<NtStatus> all = {static_cast<NtStatus>(0xC0ABCDEF),
                               static_cast<NtStatus>(0x8ABCDEF0)};
#define DFSCSI_NT_STATUS(name, text, value, error) all.push_back(NtStatus::name);
#include "node-agent/smb/wire/nt_status_table.inc"
#undef DFSCSI_NT_STATUS
  EXPECT_GT(all.size(), 90u);
  for (const NtStatus status : all) {
    if (smb::wire::IsSuccess(status)) continue;
    const absl::Status error = ToStatus(status, "x");
    for (const Phase phase : kPhases) {
      const Failure failure = Classify(error, phase, true);
      SCOPED_TRACE(testing::Message() << status << " at " << AttemptPhaseName(phase));
      EXPECT_NE(failure.failure, Class::kCaller);
      EXPECT_FALSE(failure.maybe_executed);  // The server answered.
      if (phase <= Phase::kTreeConnect) {
        // Nobody is let in: never the caller's problem while another target is left.
        EXPECT_EQ(failure.action, Action::kNextTarget);
        EXPECT_NE(failure.failure, Class::kSemantics);
      }
      if (failure.failure == Class::kSemantics) {
        EXPECT_EQ(failure.action, Action::kReturn);
      }
      if (failure.failure == Class::kThrottled && phase == Phase::kOperation) {
        EXPECT_EQ(failure.action, Action::kBackOff);
      }
    }
  }
}

TEST(FailureTest, WhatToSayWhenEveryTargetFailed) {
  struct Case {
    std::vector<Class> failures;
    Class want;
    int error;
  };
  for (const Case& c :
       std::vector<Case>{{{}, Class::kNone, 0},
                         {{Class::kDenied, Class::kDenied}, Class::kDenied, EACCES},  // F02
                         {{Class::kMissing, Class::kDenied}, Class::kDenied, EACCES},
                         {{Class::kMissing, Class::kMissing}, Class::kMissing, ENOENT},  // A09, A17
                         {{Class::kDenied, Class::kTransport}, Class::kTransport, EHOSTDOWN},
                         {{Class::kMissing, Class::kThrottled}, Class::kThrottled, EHOSTDOWN},
                         {{Class::kMissing, Class::kUnavailable}, Class::kUnavailable, EHOSTDOWN},
                         {{Class::kDenied, Class::kBroken}, Class::kBroken, EIO}}) {
    EXPECT_EQ(WorstOf(c.failures), c.want);
    EXPECT_EQ(ErrnoOf(WorstOf(c.failures)), c.error);
    EXPECT_EQ(WorthWaiting(WorstOf(c.failures)), c.error == EHOSTDOWN);
    const absl::StatusCode code = StatusOf(WorstOf(c.failures), "x").code();
    EXPECT_EQ(code == absl::StatusCode::kUnavailable, c.error == EHOSTDOWN);
    EXPECT_EQ(code == absl::StatusCode::kNotFound, c.error == ENOENT);
    EXPECT_EQ(code == absl::StatusCode::kPermissionDenied, c.error == EACCES);
  }
}

}  // namespace
}  // namespace dfscsi::dfs
