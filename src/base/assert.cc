#include "base/assert.h"

#include <cstdio>
#include <cstdlib>

namespace twinstack {

void assert_failed(const char* expression, const char* file, int line) noexcept {
  std::fprintf(stderr, "twinstack: %s:%d: assertion failed: %s\n", file, line, expression);
  std::abort();
}

}  // namespace twinstack
