// ASSERT: our own bugs, and only those. On in release too; prints and aborts. A bad packet, a bad ring entry or a
// refusal by the system is never an ASSERT (see result.h and the counted verdicts).
#pragma once

namespace twinstack {

[[noreturn]] void assert_failed(const char* expression, const char* file, int line) noexcept;

}  // namespace twinstack

#define ASSERT(expression) \
  (static_cast<bool>(expression) ? void(0) : ::twinstack::assert_failed(#expression, __FILE__, __LINE__))
