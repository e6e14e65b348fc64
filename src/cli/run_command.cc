// twinstack run: sets LD_PRELOAD and TWINSTACK_SOCKET and becomes the program. Never refuses because the program's
// connections will stay in the kernel; it says so.
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include "cli/commands.h"
#include "cli/output.h"
#include "cli/preload.h"
#include "driver/control_client.h"
#include "ipc/messages.h"

namespace twinstack::cli {
namespace {

// As the shell and env(1) have it.
constexpr int kCannotRun = 126;
constexpr int kNoSuchProgram = 127;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

void warn_if_it_stays_in_the_kernel(const std::string& program, const std::string& file, const std::string& socket) {
  const std::string_view why = explanation(reception_of(file));
  if (!why.empty()) return complain(fmt::format("warning: the connections of {} stay in the kernel: {}", program, why));
  const auto service = driver::ControlClient::connect(socket);
  if (!service.has_value())
    complain(fmt::format("warning: the connections stay in the kernel: {}", service.error().message()));
}

Result<> set_environment(const std::string& socket) {
  std::error_code failed;
  const std::string self = std::filesystem::read_symlink("/proc/self/exe", failed).string();
  ASSIGN_OR_RETURN(const std::string library, find_preload_library(self, environment(kPreloadVariable)));
  if (library.find_first_of(": ") != std::string::npos)
    return error(ErrorCode::kInvalid, fmt::format("LD_PRELOAD cannot name '{}': no blanks or colons in it", library));
  const std::string preload = preload_value(library, environment("LD_PRELOAD"));
  if (::setenv("LD_PRELOAD", preload.c_str(), 1) != 0) return system_error("setenv(LD_PRELOAD)");
  // Absolute: the program may change its directory.
  const std::string path = std::filesystem::absolute(socket, failed).string();
  if (failed) return error(ErrorCode::kInvalid, fmt::format("--socket {}: {}", socket, failed.message()));
  if (::setenv(ipc::kSocketPathVariable, path.c_str(), 1) != 0) return system_error("setenv(TWINSTACK_SOCKET)");
  return {};
}

}  // namespace

int run_program(const Invocation& invocation) {
  const std::string& program = invocation.program.front();
  const std::string socket = socket_path(invocation);
  const Result<std::string> file = find_program(program, environment("PATH"));
  if (!file.has_value()) {
    complain(file.error().message());
    return kNoSuchProgram;
  }
  const Result<> ready = set_environment(socket);
  if (!ready.has_value()) return failure(invocation, ready.error());
  warn_if_it_stays_in_the_kernel(program, *file, socket);
  std::vector<char*> words;
  for (const std::string& word : invocation.program) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  ::execvp(program.c_str(), words.data());
  const int why = errno;
  complain(system_error("starting " + program, why).error().message());
  return why == ENOENT ? kNoSuchProgram : kCannotRun;
}

}  // namespace twinstack::cli
