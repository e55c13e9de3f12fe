#include "node-agent/vfs/link_sights.h"

#include <gtest/gtest.h>

#include <new>

#include "node-agent/runtime/both_loops.h"
#include "node-agent/runtime/loop.h"

namespace dfscsi::vfs {
namespace {

using runtime::Deadline;
using runtime::Loop;
using runtime::Sleep;
using runtime::Task;

constexpr absl::Duration kActimeo = absl::Seconds(1);
constexpr state::NodeId kNode = 7;

// A target whose directory grows by each look, and which takes `delay` to say so.
struct Target {
  int looks = 0;
  absl::Duration delay;
  bool refuses = false;
  bool throws = false;

  static Task<absl::StatusOr<struct stat>> Ask(Target* target, Deadline deadline) {
    ++target->looks;
    struct stat seen = {};
    seen.st_size = target->looks;
    const absl::Status slept = co_await Sleep(target->delay, deadline);
    if (!slept.ok()) co_return slept;
    if (target->refuses) co_return absl::NotFoundError("no target");
    if (target->throws) throw std::bad_alloc();
    co_return seen;
  }
  LinkSights::Look look() {
    return [this](Deadline deadline) { return Ask(this, std::move(deadline)); };
  }
};

class LinkSightsTest : public ::testing::Test {
 public:
  void Run(Task<void> task) { any_.Run(std::move(task)); }
  static struct stat Unknown() {
    struct stat unknown = {};
    unknown.st_size = -1;
    return unknown;
  }

  struct Told {
    int64_t size;
    bool last_known;
    absl::Duration took;
  };
  Task<Told> Get(state::NodeId node = kNode) {
    const absl::Time before = Loop::Current().Now();
    const absl::StatusOr<LinkSights::Sight> sight =
        co_await sights_.Get(node, Unknown(), target_.look(), Deadline::Never());
    EXPECT_TRUE(sight.ok()) << sight.status();
    if (!sight.ok()) co_return Told{};
    co_return Told{sight->attributes.st_size, sight->last_known, Loop::Current().Now() - before};
  }

  runtime::AnyLoop any_{runtime::LoopKind::kSimulated};
  Target target_;
  LinkSights sights_{kActimeo};
};

TEST_F(LinkSightsTest, ATargetThatAnswersIsAskedOncePerActimeo) {
  Run([](LinkSightsTest* t) -> Task<void> {
    EXPECT_FALSE(t->sights_.TryGet(kNode).has_value());
    for (const int size : {1, 1}) EXPECT_EQ((co_await t->Get()).size, size);
    EXPECT_EQ(t->target_.looks, 1);
    (void)co_await Sleep(kActimeo, Deadline::Never());
    EXPECT_EQ(t->sights_.TryGet(kNode)->attributes.st_size, 1);
    // Who asks first is told what was seen before, and begins the look that tells who asks next.
    t->target_.delay = absl::Milliseconds(10);
    Told told = co_await t->Get();
    EXPECT_EQ(told.size, 1);
    EXPECT_FALSE(told.last_known);
    EXPECT_EQ(told.took, absl::ZeroDuration());
    (void)co_await Sleep(t->target_.delay * 2, Deadline::Never());
    told = co_await t->Get();
    EXPECT_EQ(told.size, 2);
    EXPECT_FALSE(told.last_known);
    EXPECT_EQ(t->target_.looks, 2);
  }(this));
}

TEST_F(LinkSightsTest, WhatIsToldIsBelievedForWhatIsLeftOfActimeo) {
  Run([](LinkSightsTest* t) -> Task<void> {
    const auto left = [t]() -> Task<absl::Duration> {
      const auto sight =
          co_await t->sights_.Get(kNode, Unknown(), t->target_.look(), Deadline::Never());
      EXPECT_EQ(t->sights_.TryGet(kNode)->left, sight->left);
      co_return sight->left;
    };
    EXPECT_EQ(co_await left(), kActimeo);
    (void)co_await Sleep(kActimeo / 4, Deadline::Never());
    EXPECT_EQ(co_await left(), kActimeo * 3 / 4);
    // What was seen before that is told, and is not to be believed any longer.
    t->target_.delay = absl::Milliseconds(10);
    (void)co_await Sleep(kActimeo, Deadline::Never());
    EXPECT_EQ(co_await left(), absl::ZeroDuration());
    (void)co_await Sleep(t->target_.delay * 2, Deadline::Never());
    EXPECT_EQ(co_await left(), kActimeo - t->target_.delay);
  }(this));
}

TEST_F(LinkSightsTest, WhatWasSeenBeforeAChangeIsAskedForAgain) {
  Run([](LinkSightsTest* t) -> Task<void> {
    t->target_.delay = absl::Milliseconds(100);
    EXPECT_EQ((co_await t->Get()).size, 1);
    t->sights_.NoteChange(kNode);
    Told told = co_await t->Get();
    EXPECT_EQ(told.size, 2);
    EXPECT_FALSE(told.last_known);
    // A look that was under way may have come before the change.
    (void)co_await Sleep(kActimeo * 2, Deadline::Never());
    EXPECT_EQ((co_await t->Get()).size, 2);
    (void)co_await Sleep(t->target_.delay / 2, Deadline::Never());
    t->sights_.NoteChange(kNode);
    told = co_await t->Get();
    EXPECT_EQ(told.size, 4);
    EXPECT_EQ(told.took, t->target_.delay * 3 / 2);
    // Nobody is held up for long by a target that died meanwhile.
    t->target_.delay = absl::Hours(1);
    t->sights_.NoteChange(kNode);
    EXPECT_EQ((co_await t->Get()).took, LinkSights::kLongWait);
  }(this));
}

TEST_F(LinkSightsTest, WhoAsksWhileTheTargetIsSilentIsToldWhatWasLastSeen) {
  Run([](LinkSightsTest* t) -> Task<void> {
    EXPECT_EQ((co_await t->Get()).size, 1);
    t->target_.delay = absl::Hours(1);
    // Nobody waits at all, however long it stays silent, and there is one look at most.
    Told told;
    for (int second = 0; second < 60; ++second) {
      (void)co_await Sleep(absl::Seconds(1), Deadline::Never());
      told = co_await t->Get();
      EXPECT_EQ(told.last_known, second > 0) << second;
      EXPECT_EQ(told.size, 1);
      EXPECT_EQ(told.took, absl::ZeroDuration()) << second;
    }
    EXPECT_LE(t->target_.looks, 2 + absl::Seconds(61) / LinkSights::kLookFor);
    // Its return shows itself to the second who asks.
    t->target_.delay = absl::ZeroDuration();
    (void)co_await Sleep(LinkSights::kLookFor + LinkSights::kLongestPause, Deadline::Never());
    (void)co_await t->Get();
    (void)co_await Sleep(absl::Milliseconds(1), Deadline::Never());
    told = co_await t->Get();
    EXPECT_FALSE(told.last_known);
    EXPECT_EQ(told.size, t->target_.looks);
  }(this));
}

// A dead root is looked at by everybody who walks: ever less often, and often again once it is
// back.
TEST_F(LinkSightsTest, LooksThatEndInAnErrorBecomeRare) {
  Run([](LinkSightsTest* t) -> Task<void> {
    EXPECT_EQ((co_await t->Get()).size, 1);
    t->target_.refuses = true;
    (void)co_await Sleep(kActimeo, Deadline::Never());
    constexpr absl::Duration kEvery = absl::Milliseconds(10);
    for (absl::Duration at; at < absl::Minutes(1); at += kEvery) {
      (void)co_await t->Get();
      (void)co_await Sleep(kEvery, Deadline::Never());
    }
    EXPECT_LE(t->target_.looks, 5 + absl::Minutes(1) / LinkSights::kLongestPause);
    EXPECT_GE(t->target_.looks, absl::Minutes(1) / LinkSights::kLongestPause);
    t->target_.refuses = false;
    for (absl::Duration at; at < LinkSights::kLongestPause * 2; at += kEvery) {
      (void)co_await t->Get();
      (void)co_await Sleep(kEvery, Deadline::Never());
    }
    const int before = t->target_.looks;
    EXPECT_FALSE((co_await t->Get()).last_known);
    (void)co_await Sleep(kActimeo, Deadline::Never());
    (void)co_await t->Get();
    (void)co_await Sleep(kEvery, Deadline::Never());
    EXPECT_GE(t->target_.looks, before + 1);
  }(this));
}

TEST_F(LinkSightsTest, ATargetThatWasNeverSeenIsWaitedForOnce) {
  Run([](LinkSightsTest* t) -> Task<void> {
    t->target_.delay = absl::Hours(1);
    Told told = co_await t->Get();
    EXPECT_EQ(told.size, -1);
    EXPECT_LE(told.took, LinkSights::kLongWait + absl::Milliseconds(1));
    told = co_await t->Get();
    EXPECT_EQ(told.size, -1);
    EXPECT_LE(told.took, absl::Milliseconds(1));
  }(this));
}

TEST_F(LinkSightsTest, WhoListsManyLinksOfADeadServerWaitsForTheFirst) {
  Run([](LinkSightsTest* t) -> Task<void> {
    constexpr state::NodeId kSeen = 20, kAll = 40;  // The others were never seen.
    for (state::NodeId node = 1; node <= kSeen; ++node) (void)co_await t->Get(node);
    t->target_.delay = absl::Hours(1);
    (void)co_await Sleep(LinkSights::kRecent * 2, Deadline::Never());
    absl::Time before = Loop::Current().Now();
    for (state::NodeId node = 1; node <= kSeen; ++node) {
      EXPECT_TRUE((co_await t->Get(node)).last_known == (node == 1)) << node;
    }
    EXPECT_LE(Loop::Current().Now() - before, LinkSights::kShortWait + absl::Milliseconds(1));
    before = Loop::Current().Now();
    for (state::NodeId node = kSeen + 1; node <= kAll; ++node) (void)co_await t->Get(node);
    EXPECT_LE(Loop::Current().Now() - before,
              (kAll - kSeen) * (LinkSights::kShortWait + absl::Milliseconds(1)));
    // And at last for none.
    (void)co_await Sleep(LinkSights::kHurry * 2, Deadline::Never());
    before = Loop::Current().Now();
    for (state::NodeId node = 1; node <= kAll; ++node) (void)co_await t->Get(node);
    EXPECT_EQ(Loop::Current().Now(), before);
  }(this));
}

// Who looks once an hour is not told what was there an hour ago; nor is anybody without a cache.
TEST_F(LinkSightsTest, ATargetThatWasNotSeenForLongIsWaitedForAMoment) {
  Run([](LinkSightsTest* t) -> Task<void> {
    EXPECT_EQ((co_await t->Get()).size, 1);
    t->target_.delay = LinkSights::kShortWait / 2;
    (void)co_await Sleep(LinkSights::kRecent * 2, Deadline::Never());
    const Told told = co_await t->Get();
    EXPECT_EQ(told.size, 2);
    EXPECT_FALSE(told.last_known);
  }(this));
}

TEST(LinkSightsWithoutActimeoTest, WhatATargetSaysNowIsWaitedFor) {
  runtime::AnyLoop any{runtime::LoopKind::kSimulated};
  Target target{.delay = LinkSights::kShortWait / 2};
  LinkSights sights{absl::ZeroDuration()};
  any.Run([](Target* asked, LinkSights* seen) -> Task<void> {
    for (int look = 1; look < 4; ++look) {
      const auto sight = co_await seen->Get(kNode, {}, asked->look(), Deadline::Never());
      EXPECT_EQ(sight->attributes.st_size, look);
      (void)co_await Sleep(absl::Milliseconds(1), Deadline::Never());
    }
  }(&target, &sights));
}

TEST_F(LinkSightsTest, AnErrorIsAnsweredByWhatWasLastSeen) {
  for (bool Target::* const how : {&Target::refuses, &Target::throws}) {
    target_ = Target{};
    target_.*how = true;
    sights_.Forget(kNode);
    Run([](LinkSightsTest* t) -> Task<void> {
      const Told told = co_await t->Get();
      EXPECT_TRUE(told.last_known);
      EXPECT_EQ(told.size, -1);
    }(this));
  }
}

TEST_F(LinkSightsTest, ManyWhoAskAtOnceWaitForOneLook) {
  Run([](LinkSightsTest* t) -> Task<void> {
    t->target_.delay = absl::Milliseconds(20);
    runtime::TaskGroup group;
    for (int i = 0; i < 5; ++i) {
      group.Spawn(
          [](LinkSightsTest* test) -> Task<void> { EXPECT_EQ((co_await test->Get()).size, 1); }(t));
    }
    EXPECT_TRUE((co_await group.WaitUntilEmpty(Deadline::Never())).ok());
    EXPECT_EQ(t->target_.looks, 1);
  }(this));
}

TEST_F(LinkSightsTest, WhoIsInterruptedLeavesTheLookToOthers) {
  Run([](LinkSightsTest* t) -> Task<void> {
    t->target_.delay = absl::Milliseconds(200);
    runtime::CancelSource cancel;
    runtime::TaskGroup group;
    group.Spawn([](LinkSightsTest* test, runtime::CancelSource* source) -> Task<void> {
      const absl::StatusOr<LinkSights::Sight> sight =
          co_await test->sights_.Get(kNode, Unknown(), test->target_.look(), source->deadline());
      EXPECT_TRUE(absl::IsCancelled(sight.status())) << sight.status();
    }(t, &cancel));
    (void)co_await Sleep(absl::Milliseconds(100), Deadline::Never());
    cancel.Cancel();
    EXPECT_TRUE((co_await group.WaitUntilEmpty(Deadline::Never())).ok());
    EXPECT_EQ((co_await t->Get()).size, 1);
    EXPECT_EQ(t->target_.looks, 1);
  }(this));
}

TEST_F(LinkSightsTest, ANodeThatIsGoneLeavesNothing) {
  Run([](LinkSightsTest* t) -> Task<void> {
    t->target_.delay = absl::Hours(1);
    (void)co_await t->Get();
    EXPECT_EQ(t->sights_.size(), 1u);
    t->sights_.Forget(kNode);
    EXPECT_EQ(t->sights_.size(), 0u);
  }(this));
}

}  // namespace
}  // namespace dfscsi::vfs
