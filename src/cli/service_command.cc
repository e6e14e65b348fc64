// twinstack service: settles the options, looks whether the service can run here at all, and runs it.
#include <sys/utsname.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <iterator>
#include <memory>

#include "base/log.h"
#include "cli/commands.h"
#include "cli/output.h"
#include "cli/service_checks.h"
#include "cli/service_options.h"
#include "driver/service.h"

namespace twinstack::cli {
namespace {

Result<std::string> read_file(const std::string& path) {
  std::ifstream file(path);
  if (!file) return system_error("--config " + path);
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (file.bad()) return system_error("reading " + path, EIO);
  return text;
}

Result<ServiceSettings> settle(const Invocation& invocation) {
  ServiceArguments arguments = invocation.service;
  if (arguments.config.has_value()) {
    ASSIGN_OR_RETURN(const std::string text, read_file(*arguments.config));
    TRY(merge_config(arguments, text, *arguments.config));
  }
  return resolve(arguments, socket_path(invocation));
}

Result<> check(const driver::ServiceOptions& options) {
  utsname system{};
  if (::uname(&system) == 0) TRY(check_kernel_release(system.release));
  const bool other_netns =
      std::ranges::any_of(options.interfaces, [](const driver::InterfaceOption& one) { return !one.netns.empty(); });
  TRY(check_capabilities(kernel::own_privileges(), other_netns));
  return clear_stale_sockets(options.socket_path);
}

Result<> serve(const driver::ServiceOptions& options, UniqueFd turn) {
  ASSIGN_OR_RETURN(const std::unique_ptr<driver::Service> service, driver::Service::create(options));
  turn.reset();
  return service->run();
}

}  // namespace

int run_service(const Invocation& invocation) {
  const Result<ServiceSettings> settings = settle(invocation);
  if (!settings.has_value()) return failure(invocation, settings.error().message(), kUsage);
  UniqueFd turn = take_turn_to_start(settings->options.socket_path);
  const Result<> fit = check(settings->options);
  if (!fit.has_value()) return failure(invocation, fit.error());
  set_up_logging(settings->log_level);
  const Result<> served = serve(settings->options, std::move(turn));
  return served.has_value() ? kSuccess : failure(invocation, served.error());
}

}  // namespace twinstack::cli
