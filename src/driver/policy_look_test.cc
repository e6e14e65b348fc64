#include "driver/policy_look.h"

#include <gtest/gtest.h>

namespace twinstack::driver {
namespace {

using std::chrono::milliseconds;

constexpr Time kStart{std::chrono::hours(1)};

TEST(PolicyLook, IsDueAtOnceThenEverMoreSeldomWhileNothingComes) {
  PolicyLook look;
  EXPECT_LE(look.due(), kStart);
  Time now = kStart;
  for (const int expected : {100, 200, 400, 800, 1600, 3000, 3000}) {
    look.looked(now, 0);
    EXPECT_EQ(look.due() - now, milliseconds(expected));
    now = look.due();
  }
}

TEST(PolicyLook, IsDueSoonAgainWhenTrafficWasSeen) {
  PolicyLook look;
  for (int i = 0; i < 10; ++i) look.looked(kStart, 5);
  EXPECT_EQ(look.due() - kStart, PolicyLook::kSeldom);
  look.looked(kStart, 6);
  EXPECT_EQ(look.due() - kStart, PolicyLook::kSoon);
}

}  // namespace
}  // namespace twinstack::driver
