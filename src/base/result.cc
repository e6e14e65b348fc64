#include "base/result.h"

#include <cerrno>
#include <system_error>

namespace twinstack {

std::string Error::message() const {
  if (system_errno == 0) return what;
  return what + ": " + std::generic_category().message(system_errno);
}

std::unexpected<Error> system_error(std::string what, int error_number) {
  return std::unexpected(Error{ErrorCode::kSystem, error_number, std::move(what)});
}

std::unexpected<Error> system_error(std::string what) { return system_error(std::move(what), errno); }

std::unexpected<Error> error(ErrorCode code, std::string what) {
  return std::unexpected(Error{code, 0, std::move(what)});
}

}  // namespace twinstack
