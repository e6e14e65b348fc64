// Result<T>: the outcome of something that the system, or a limit of ours, can refuse. Carries what was tried, so that
// the message at the end says what to mend. No exception crosses a module.
#pragma once

#include <cstdint>
#include <expected>
#include <string>
#include <utility>

namespace twinstack {

enum class ErrorCode : std::uint8_t {
  kSystem,       // a system call failed; `system_errno` says how
  kInvalid,      // the caller's input is wrong
  kNotEligible,  // the connection may not move (the reason is in `what`)
  kNoResource,   // no slot, no chunk, no memory; nothing was changed
  kTimeout,      // a deadline passed; nothing was changed
  kNotFound,     // no such connection, interface, namespace ...
  kUnsupported,  // this kernel or device cannot do it
  kBroken,       // the stream cannot be kept; the connection must be reset
  kProtocol,     // the other process broke the protocol of the rings or messages
};

struct Error {
  ErrorCode code = ErrorCode::kSystem;
  int system_errno = 0;  // 0 when no system call was involved
  std::string what;      // what was tried, in words for the user

  // "setsockopt(TCP_REPAIR): Operation not permitted"
  [[nodiscard]] std::string message() const;
};

template <typename T = void>
using Result = std::expected<T, Error>;

// The error of a system call that just failed; reads errno.
[[nodiscard]] std::unexpected<Error> system_error(std::string what);
[[nodiscard]] std::unexpected<Error> system_error(std::string what, int error_number);
[[nodiscard]] std::unexpected<Error> error(ErrorCode code, std::string what);

}  // namespace twinstack

#define TS_CONCAT_INNER(a, b) a##b
#define TS_CONCAT(a, b) TS_CONCAT_INNER(a, b)

// TRY(expr): hands the error of a Result<> to the caller.
#define TRY(expression)                                                       \
  do {                                                                        \
    if (auto try_result = (expression); !try_result.has_value()) [[unlikely]] \
      return std::unexpected(std::move(try_result.error()));                  \
  } while (false)

// ASSIGN_OR_RETURN(auto x, expr): the value of a Result<T>, or hands its error to the caller.
#define ASSIGN_OR_RETURN(declaration, expression) \
  ASSIGN_OR_RETURN_INNER(TS_CONCAT(ts_result_, __LINE__), declaration, expression)
#define ASSIGN_OR_RETURN_INNER(name, declaration, expression) \
  auto name = (expression);                                   \
  if (!name.has_value()) [[unlikely]]                         \
    return std::unexpected(std::move(name.error()));          \
  declaration = std::move(*name)
