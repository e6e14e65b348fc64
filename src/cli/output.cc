#include "cli/output.h"

#include <fmt/format.h>

#include <cstdio>

#include "driver/control_client.h"

namespace twinstack::cli {

void complain(std::string_view what) { fmt::print(stderr, "twinstack: {}\n", what); }

int failure(const Error& error) {
  complain(error.message());
  return kFailure;
}

void print_json(const driver::Json& json) { print_text(driver::to_line(json) + '\n'); }

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
