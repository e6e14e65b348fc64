#include "sim/event.h"

#include <gtest/gtest.h>

#include "sim/coverage.h"
#include "sim/plan.h"

namespace twinstack::sim {
namespace {

TEST(Events, EveryKindHasANameOfItsOwn) {
  for (std::size_t kind = 0; kind < kEventKinds; ++kind) {
    const auto one = static_cast<EventKind>(kind);
    ASSERT_FALSE(name(one).empty()) << kind;
    EXPECT_EQ(event_kind(name(one)), one);
  }
  EXPECT_FALSE(event_kind("rain"));
}

TEST(Events, ListsOfFaultsAreReadAsTheyAreWritten) {
  for (const char* list : {"all", "none", "loss", "loss,reorder", "all,-driver-death", "all,-loss,-fail-inject"}) {
    std::string wrong;
    const auto set = parse_faults(list, wrong);
    ASSERT_TRUE(set) << list;
    EXPECT_EQ(to_list(*set), list);
  }
  std::string wrong;
  EXPECT_FALSE(parse_faults("loss,rain", wrong));
  EXPECT_EQ(wrong, "rain");
  EXPECT_FALSE(parse_faults("open", wrong)) << "no fault";
  for (const char* list :
       {"", "loss,", ",loss", "loss,none", "none,loss", "loss,all", "-loss", "all,-all", "all,--loss"})
    EXPECT_FALSE(parse_faults(list, wrong)) << list;
}

TEST(Plan, TheSameSeedGivesTheSameEvents) {
  Options options;
  options.seed = 42;
  const Shape shape = make_shape(options);
  const auto one = make_events(options, shape);
  const auto two = make_events(options, shape);
  ASSERT_EQ(one.size(), two.size());
  for (std::size_t i = 0; i < one.size(); ++i) EXPECT_EQ(describe(one[i]), describe(two[i]));
  options.seed = 43;
  EXPECT_NE(describe(make_events(options, make_shape(options)).back()), describe(one.back()));
}

// found_test.cc lives on it.
TEST(Plan, WithoutLaterFaultsASeedMeansWhatItMeant) {
  for (std::uint64_t seed = 1; seed <= 30; ++seed) {
    Options options;
    options.seed = seed;
    const auto all = make_events(options, make_shape(options));
    for (std::size_t kind = 0; kind < kEventKinds; ++kind)
      if (generation(static_cast<EventKind>(kind)) > 0) options.faults.on[kind] = false;
    const Shape shape = make_shape(options);
    for (const stack::Config& host : shape.hosts) EXPECT_EQ(host.tcp_mtu_probing, stack::Config{}.tcp_mtu_probing);
    const auto before = make_events(options, shape);
    std::size_t at = 0;
    for (Event event : all) {
      if (generation(event.kind) > 0) continue;
      ASSERT_LT(at, before.size());
      event.number = before[at].number;
      EXPECT_EQ(describe(event), describe(before[at])) << "seed " << seed;
      EXPECT_EQ(event.seed, before[at++].seed);
    }
    EXPECT_EQ(at, before.size());
  }
}

TEST(Plan, HostsDifferInHowTheyLookForSizes) {
  std::array<int, 3> hosts{};
  Options options;
  for (options.seed = 1; options.seed <= 50; ++options.seed)
    for (const stack::Config& host : make_shape(options).hosts) ++hosts.at(host.tcp_mtu_probing);
  for (const int count : hosts) EXPECT_GT(count, 20);
}

TEST(Plan, OnlyKeepsNumbers) {
  Options options;
  options.only = std::set<std::uint32_t>{2, 5, 9};
  const auto events = make_events(options, make_shape(options));
  ASSERT_EQ(events.size(), 3U);
  EXPECT_EQ(events[0].number, 2U);
  EXPECT_EQ(events[2].number, 9U);
}

TEST(Plan, WithoutFaultsThereAreNone) {
  Options options;
  options.faults = FaultSet::none();
  for (const Event& event : make_events(options, make_shape(options))) EXPECT_FALSE(is_fault(event.kind));
}

TEST(CoverageTable, ShowsWhatWasNotTried) {
  Coverage coverage;
  coverage.hit(Situation::kParked, TcpState::kLoss, EventKind::kLoss);
  Coverage more;
  more.hit(Situation::kParked, TcpState::kLoss, EventKind::kLoss);
  coverage.add(more);
  EXPECT_EQ(coverage.at(static_cast<std::size_t>(Situation::kParked), static_cast<std::size_t>(EventKind::kLoss)), 2U);
  EXPECT_EQ(coverage.empty_cells(), Coverage().empty_cells() - 1);
  const std::string table = coverage.table();
  EXPECT_NE(table.find("loss"), std::string::npos);
  EXPECT_NE(table.find("b:restore"), std::string::npos);
  EXPECT_NE(coverage.state_table().find("fin-sent"), std::string::npos);
}

}  // namespace
}  // namespace twinstack::sim
