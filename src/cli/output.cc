#include "cli/output.h"

#include <fmt/format.h>

#include <cstdio>

#include "driver/control_client.h"

namespace twinstack::cli {

void complain(std::string_view what) { fmt::print(stderr, "twinstack: {}\n", what); }

namespace {

void print_json(const driver::Json& json) { print_text(driver::to_line(json) + '\n'); }

void print_mistake(std::string_view what, const driver::Json& result) {
  driver::Json line = {{"ok", false}, {"error", what}};
  line.update(result);
  print_json(line);
}

}  // namespace

int success(const Invocation& invocation, const driver::Json& result) {
  if (!invocation.json) return kSuccess;
  driver::Json line = {{"ok", true}};
  line.update(result);
  print_json(line);
  return kSuccess;
}

int failure(const Invocation& invocation, const Error& error) { return failure(invocation, error.message(), kFailure); }

int failure(const Invocation& invocation, std::string_view what, ExitCode code, const driver::Json& result) {
  if (invocation.json) print_mistake(what, result);
  complain(what);
  return code;
}

int stopped(const Stop& stop) {
  if (stop.json) print_mistake(stop.error, driver::Json::object());
  fmt::print(stop.exit_code == kSuccess ? stdout : stderr, "{}", stop.text);
  return stop.exit_code;
}

void print_text(std::string_view text) {
  // A reader that went away (`| head`) is no error worth a word; SIGPIPE ends us as it ends others.
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

Result<driver::Json> ask_service(const Invocation& invocation, const driver::Json& request) {
  ASSIGN_OR_RETURN(auto client, driver::ControlClient::connect(socket_path(invocation)));
  return client.ask(request);
}

}  // namespace twinstack::cli
