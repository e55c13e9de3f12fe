// Thousands of seeds (engine_simulation_seeds.h), and single behaviours by name.

#include "node-agent/testing/engine_simulation.h"

#include <gtest/gtest.h>
#include <linux/fuse.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "node-agent/testing/engine_simulation_seeds.h"

namespace dfscsi::simulation {
namespace {

TEST(EngineSimulationTest, FaultsInRandomCombination) {
  absl::Duration longest;
  int64_t visits = 0;
  const Seeds seeds = RunSeeds(500, Schedule::Draw, [&](Simulation& simulation) {
    longest = std::max(longest, simulation.oracle().longest_wait());
    visits += simulation.workload().visits();
  });
  printf("%llu seeds, %lld visits, the longest wait that was owed: %s\n",
         static_cast<unsigned long long>(seeds.ran), static_cast<long long>(visits),
         absl::FormatDuration(longest).c_str());
}

// --- Single behaviours. A world without faults of its own.

Schedule Calm(int mounts = 1) {
  Schedule schedule{.seed = 7};
  schedule.ttl_seconds = 2;
  schedule.mounts = mounts;
  schedule.applications = 6;
  schedule.longest_pause = absl::Milliseconds(300);
  schedule.smb.max_read_bytes = 1 << 20;
  schedule.fragmentation = 0.02;
  return schedule;
}

std::string ViolationOf(const Simulation& simulation) {
  const std::vector<std::string>& violations = simulation.oracle().violations();
  return violations.empty() ? "" : violations.front();
}

TEST(EngineSimulationTest, TheSameSeedIsTheSameWorld) {
  // Not the bytes: salts of log-ons are random. What happens, and when, is not.
  const auto course_of = [](uint64_t seed) {
    Simulation simulation(Schedule::Draw(seed));
    (void)simulation.Run();
    return std::pair(simulation.world().steps(), simulation.workload().visits());
  };
  for (uint64_t seed = 3; seed < 8; ++seed) EXPECT_EQ(course_of(seed), course_of(seed));
  EXPECT_NE(course_of(3), course_of(4));
}

// Interlink, nested links and plain ones: nothing happens to them.
TEST(EngineSimulationTest, AllLinksAreReadInACalmWorld) {
  Simulation simulation(Calm(2));
  EXPECT_TRUE(simulation.RunFor(absl::Seconds(10))) << ViolationOf(simulation);
  simulation.Finish();
  EXPECT_EQ(ViolationOf(simulation), "");
  EXPECT_EQ(simulation.node().counters().failovers, 0);
  EXPECT_GT(simulation.workload().visits(), 200);
}

// C32: a server that answers, late, is never failed over; nor are all of them.
TEST(EngineSimulationTest, SlowServersAreNotFailedOver) {
  Simulation simulation(Calm());
  ASSERT_TRUE(simulation.RunFor(absl::Seconds(2))) << ViolationOf(simulation);
  for (int i = 0; i < Lab::kServers; ++i) {
    simulation.lab().server(i).path().latency = absl::Milliseconds(250);
    simulation.lab().server(i).ApplyPath();
  }
  EXPECT_TRUE(simulation.RunFor(absl::Seconds(60))) << ViolationOf(simulation);
  EXPECT_EQ(simulation.node().counters().failovers, 0);
}

// Our own pause is not the servers' death, however long it is and however often it comes.
TEST(EngineSimulationTest, OwnStallsAreNotTheServersDeath) {
  Simulation simulation(Calm());
  for (int server = 0; server < Lab::kServers; ++server) {  // Something is always on its way.
    simulation.lab().server(server).path().latency = absl::Milliseconds(100);
    simulation.lab().server(server).ApplyPath();
  }
  for (int i = 0; i < 10; ++i) {
    ASSERT_TRUE(simulation.RunFor(absl::Seconds(2))) << ViolationOf(simulation);
    simulation.node().StallAgent(absl::Milliseconds(300) * (i + 1));
    ASSERT_TRUE(simulation.RunFor(absl::Milliseconds(300) * (i + 1))) << ViolationOf(simulation);
  }
  EXPECT_TRUE(simulation.RunFor(absl::Seconds(2))) << ViolationOf(simulation);
  EXPECT_EQ(simulation.node().counters().suspicions, 0);
  EXPECT_EQ(simulation.node().counters().failovers, 0);
}

// A server's answer takes 1.3 s, too long if we had watched all the time. We have not.
TEST(EngineSimulationTest, TimeThatWeDidNotRunIsNotAServersSilence) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    Schedule schedule = Calm();
    schedule.seed = seed;
    Simulation simulation(std::move(schedule));
    simulation.workload().set_calm();
    ASSERT_TRUE(simulation.RunFor(absl::Seconds(3))) << ViolationOf(simulation);
    for (int server = 0; server < Lab::kServers; ++server) {
      simulation.Apply(
          {.fault = Fault::kFreeze, .server = server, .lasts = absl::Milliseconds(1'300)});
    }
    ASSERT_TRUE(simulation.RunFor(absl::Milliseconds(100))) << ViolationOf(simulation);
    simulation.node().StallAgent(absl::Seconds(1));
    EXPECT_TRUE(simulation.RunFor(absl::Seconds(5))) << ViolationOf(simulation);
    EXPECT_EQ(simulation.node().counters().suspicions, 0) << "seed " << seed;
    EXPECT_EQ(simulation.node().counters().failovers, 0) << "seed " << seed;
  }
}

// Connections are being made when we stop for longer than one may take.
TEST(EngineSimulationTest, AConnectionOutlivesOurOwnStall) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    Schedule schedule = Calm();
    schedule.seed = seed;
    Simulation simulation(std::move(schedule));
    simulation.workload().set_calm();
    for (int server = 0; server < Lab::kServers; ++server) {
      simulation.lab().server(server).path().latency = absl::Milliseconds(5);
      simulation.lab().server(server).ApplyPath();
    }
    ASSERT_TRUE(simulation.RunFor(absl::Seconds(3))) << ViolationOf(simulation);
    for (int server = 0; server < Lab::kServers; ++server) {
      simulation.Apply({.fault = Fault::kReset, .server = server});
    }
    ASSERT_TRUE(simulation.RunFor(absl::Milliseconds(25))) << ViolationOf(simulation);
    simulation.node().StallAgent(absl::Seconds(6));
    EXPECT_TRUE(simulation.RunFor(absl::Seconds(12))) << ViolationOf(simulation);
    EXPECT_EQ(simulation.node().counters().suspicions, 0) << "seed " << seed;
    EXPECT_EQ(simulation.node().counters().failovers, 0) << "seed " << seed;
  }
}

// C01, C05: what one read waits of which the target dies, and of which it hangs.
TEST(EngineSimulationTest, ReadersMoveSoon) {
  struct Death {
    Fault fault;
    absl::Duration most;
  };
  constexpr int kT3 = 4;
  for (const Death& death :
       {Death{Fault::kKill, absl::Milliseconds(500)}, Death{Fault::kReset, absl::Milliseconds(500)},
        Death{Fault::kSilent, absl::Seconds(3)}, Death{Fault::kFreeze, absl::Seconds(3)},
        Death{Fault::kCut, absl::Seconds(3)}}) {
    for (uint64_t seed = 1; seed <= 3; ++seed) {
      SCOPED_TRACE(absl::StrCat("fault ", static_cast<int>(death.fault), ", seed ", seed));
      Schedule schedule = Calm();
      schedule.seed = seed;
      Simulation simulation(std::move(schedule));
      ASSERT_TRUE(simulation.RunFor(absl::Seconds(3))) << ViolationOf(simulation);
      const int64_t failovers = simulation.node().counters().failovers;
      simulation.workload().set_calm();
      simulation.oracle().WatchAnswers(FUSE_READ);
      simulation.Apply({.fault = death.fault, .server = kT3, .lasts = absl::Seconds(30)});
      EXPECT_TRUE(simulation.RunFor(absl::Seconds(5))) << ViolationOf(simulation);
      EXPECT_GT(simulation.oracle().watched_answers(), 50);
      EXPECT_LE(simulation.oracle().longest_watched(), death.most);
      if (death.fault != Fault::kReset) {
        EXPECT_GT(simulation.node().counters().failovers, failovers);
      }
    }
  }
}

TEST(EngineSimulationTest, DeadNamespaceServersAreNotFlooded) {
  Simulation simulation(Calm(2));
  ASSERT_TRUE(simulation.RunFor(absl::Seconds(1))) << ViolationOf(simulation);
  for (int i = 0; i < Lab::kRoots; ++i) {
    simulation.Apply({.fault = Fault::kKill, .server = i, .lasts = absl::Seconds(8)});
  }
  EXPECT_TRUE(simulation.RunFor(absl::Seconds(12))) << ViolationOf(simulation);
  simulation.Finish();
  EXPECT_EQ(ViolationOf(simulation), "");
}

TEST(EngineSimulationTest, AMountThatGoesLeavesNoOpensBehind) {
  Simulation simulation(Calm(2));
  for (uint64_t i = 0; i < 6; ++i) {
    ASSERT_TRUE(simulation.RunFor(absl::Milliseconds(1'137))) << ViolationOf(simulation);
    simulation.Apply({.fault = Fault::kUnmount, .lasts = absl::Milliseconds(50), .detail = i});
  }
  ASSERT_TRUE(simulation.RunFor(absl::Seconds(1))) << ViolationOf(simulation);
  simulation.Finish();
  EXPECT_EQ(ViolationOf(simulation), "");
}

TEST(EngineSimulationTest, CreditsThatShrinkHangNobody) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Schedule schedule = Calm();
    schedule.seed = seed;
    Simulation simulation(std::move(schedule));
    for (int i = 0; i < 4; ++i) {
      ASSERT_TRUE(simulation.RunFor(absl::Milliseconds(700))) << ViolationOf(simulation);
      for (int server = 0; server < Lab::kServers; ++server) {
        simulation.Apply(
            {.fault = Fault::kOneCredit, .server = server, .lasts = absl::Milliseconds(300)});
      }
    }
    const std::vector<Workload::Progress> before = simulation.workload().progress();
    EXPECT_TRUE(simulation.RunUntil([&] { return simulation.workload().AllGotOnSince(before); },
                                    absl::Seconds(20)))
        << "seed " << seed << ": " << ViolationOf(simulation);
    EXPECT_EQ(simulation.node().counters().lost_targets, 0) << "seed " << seed;
    EXPECT_EQ(simulation.node().counters().failovers, 0) << "seed " << seed;
  }
}

// A CREATE is interrupted while the server is at it; its handle, which comes later, is given back.
TEST(EngineSimulationTest, AHandleThatNobodyWaitsForIsClosed) {
  Schedule schedule = Calm();
  schedule.applications = 12;
  Simulation simulation(std::move(schedule));
  ASSERT_TRUE(simulation.RunFor(absl::Seconds(1))) << ViolationOf(simulation);
  for (int server = Lab::kRoots; server < Lab::kServers; ++server) {
    simulation.lab().server(server).scripted().AddRule(
        {.command = smb::wire::Command::kCreate, .action = {.delay = absl::Seconds(3)}});
  }
  ASSERT_TRUE(simulation.RunFor(absl::Seconds(60))) << ViolationOf(simulation);
  for (int server = Lab::kRoots; server < Lab::kServers; ++server) {
    simulation.lab().server(server).scripted().ClearRules();
  }
  simulation.Finish();
  EXPECT_EQ(ViolationOf(simulation), "");
}

TEST(EngineSimulationTest, RequestsOutliveTheirAgent) {
  Simulation simulation(Calm(2));
  for (int server = 0; server < Lab::kServers; ++server) {  // Something is always under way.
    simulation.lab().server(server).path().latency = absl::Milliseconds(8);
    simulation.lab().server(server).ApplyPath();
  }
  for (int i = 0; i < 60; ++i) {
    ASSERT_TRUE(simulation.RunFor(absl::Milliseconds(397 + 97 * (i % 7))))
        << ViolationOf(simulation);
    simulation.Apply({.fault = i % 4 == 0 ? Fault::kHandOver : Fault::kKillAgent,
                      .lasts = absl::Milliseconds(20)});
    ASSERT_TRUE(simulation.RunFor(absl::Milliseconds(200))) << ViolationOf(simulation);
  }
  simulation.Finish();
  EXPECT_EQ(ViolationOf(simulation), "");
}

}  // namespace
}  // namespace dfscsi::simulation
