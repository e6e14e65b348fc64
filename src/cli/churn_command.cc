// twinstack churn: orders the service to move everything back and forth, and may wait for the end.
#include <signal.h>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <ctime>

#include "cli/commands.h"
#include "cli/output.h"

namespace twinstack::cli {
namespace {

sigset_t ending_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  return signals;
}

// Waits for `duration_ms` or for a signal of ending_signals(), which must be blocked; true: the whole time passed.
bool wait_out(std::int64_t duration_ms) {
  const sigset_t signals = ending_signals();
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(duration_ms);
  for (;;) {
    const auto left = std::chrono::nanoseconds(end - std::chrono::steady_clock::now()).count();
    if (left <= 0) return true;
    const timespec limit{.tv_sec = left / 1'000'000'000, .tv_nsec = left % 1'000'000'000};
    if (::sigtimedwait(&signals, nullptr, &limit) > 0) return false;
    if (errno == EAGAIN) return true;
  }
}

}  // namespace

int run_churn(const Invocation& invocation) {
  const auto duration_ms = std::llround(invocation.churn_duration_s * 1000);
  const sigset_t signals = ending_signals();
  // From before the order, so that an interrupt cannot leave the churn behind.
  if (invocation.churn_wait) ::sigprocmask(SIG_BLOCK, &signals, nullptr);
  const Result<driver::Json> begun = ask_service(
      invocation, {{"cmd", "churn"}, {"interval_ms", invocation.churn_interval_ms}, {"duration_ms", duration_ms}});
  if (!begun.has_value()) return failure(invocation, begun.error());
  if (!invocation.churn_wait || wait_out(duration_ms)) return success(invocation, driver::Json::object());
  const Result<driver::Json> ended = ask_service(invocation, {{"cmd", "churn"}, {"duration_ms", 0}});
  if (!ended.has_value()) return failure(invocation, ended.error());
  return failure(invocation, "interrupted: the churn was ended", kFailure);
}

}  // namespace twinstack::cli
