#include "engine/look_list.h"

#include <gtest/gtest.h>

#include <vector>

namespace twinstack::engine {
namespace {

using std::chrono::milliseconds;

constexpr Time kFirstLook = Time(std::chrono::hours(5));

struct Looks {
  std::vector<std::uint32_t> at(Time now) {
    std::vector<std::uint32_t> looked;
    list.advance(
        now, [&](std::uint32_t index) { asked.push_back(index); },
        [&](std::uint32_t index) { looked.push_back(index); });
    return looked;
  }

  LookList list;
  std::vector<std::uint32_t> asked;  // ahead
};

using Indices = std::vector<std::uint32_t>;

TEST(LookList, LooksAtEachOnceInTheirOrderAfterTheWait) {
  Looks looks;
  EXPECT_EQ(looks.list.next(), kNever);
  looks.list.add(7, kFirstLook);
  looks.list.add(3, kFirstLook);
  looks.list.add(5, kFirstLook + milliseconds(2));
  EXPECT_EQ(looks.list.next(), kFirstLook + LookList::kLookAfter);
  EXPECT_EQ(looks.at(kFirstLook + LookList::kLookAfter - Duration(1)), Indices{});
  EXPECT_EQ(looks.at(kFirstLook + LookList::kLookAfter), (Indices{7, 3}));
  EXPECT_EQ(looks.list.next(), kFirstLook + milliseconds(2) + LookList::kLookAfter);
  EXPECT_EQ(looks.at(kFirstLook + std::chrono::hours(1)), Indices{5});
  EXPECT_EQ(looks.list.next(), kNever);
}

TEST(LookList, AsksAheadForThoseThatCome) {
  Looks looks;
  for (std::uint32_t i = 0; i < 20; ++i) looks.list.add(i, kFirstLook);
  EXPECT_EQ(looks.at(kFirstLook + LookList::kLookAfter).size(), 20U);
  EXPECT_EQ(looks.asked, (Indices{8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19}));
}

// A look may put its connection back; that one is not due now.
TEST(LookList, WhoIsAddedByALookWaitsAgain) {
  LookList list;
  list.add(1, kFirstLook);
  int looked = 0;
  const auto advance = [&](Time now) {
    list.advance(
        now, [](std::uint32_t) {},
        [&](std::uint32_t index) {
          ++looked;
          list.add(index, now);
        });
  };
  advance(kFirstLook + LookList::kLookAfter);
  EXPECT_EQ(looked, 1);
  EXPECT_EQ(list.next(), kFirstLook + 2 * LookList::kLookAfter);
}

}  // namespace
}  // namespace twinstack::engine
