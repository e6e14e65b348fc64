#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>

#include "base/assert.h"
#include "base/result.h"
#include "base/rng.h"
#include "base/unique_fd.h"

namespace twinstack {
namespace {

Result<int> half(int value) {
  if (value % 2 != 0) return error(ErrorCode::kInvalid, "odd");
  return value / 2;
}

Result<int> quarter(int value) {
  ASSIGN_OR_RETURN(const int halved, half(value));
  TRY(half(halved));
  return halved / 2;
}

TEST(Result, HandsErrorsUpAndValuesThrough) {
  EXPECT_EQ(*quarter(8), 2);
  EXPECT_EQ(quarter(3).error().code, ErrorCode::kInvalid);
  EXPECT_EQ(quarter(6).error().message(), "odd");
}

TEST(Result, SystemErrorSaysWhatWasTriedAndWhy) {
  EXPECT_EQ(system_error("open(/x)", ENOENT).error().message(), "open(/x): No such file or directory");
}

TEST(UniqueFd, ClosesAtTheEnd) {
  const int raw = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  EXPECT_GE(raw, 0);
  {
    UniqueFd first(raw);
    UniqueFd second(std::move(first));
    EXPECT_FALSE(first);  // NOLINT(bugprone-use-after-move): moved-from is empty by contract
    EXPECT_EQ(second.get(), raw);
  }
  EXPECT_EQ(::fcntl(raw, F_GETFD), -1);
}

TEST(Rng, SameSeedSameSequence) {
  Rng a(42);
  Rng b(42);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(a.next(), b.next());
  for (int i = 0; i < 1000; ++i) EXPECT_LT(a.below(7), 7U);
}

TEST(AssertDeathTest, AbortsWithTheExpression) { EXPECT_DEATH(ASSERT(1 == 2), "1 == 2"); }

}  // namespace
}  // namespace twinstack
