// What all commands print in the same way. Standard output and standard error; main thread.
#pragma once

#include <string_view>

#include "base/result.h"
#include "cli/command_line.h"
#include "driver/view_json.h"

namespace twinstack::cli {

// "twinstack: WHAT" to standard error.
void complain(std::string_view what);
// complain() and the exit code of it.
int failure(const Error& error);

// One line of JSON to standard output.
void print_json(const driver::Json& json);
void print_text(std::string_view text);

// Asks the service of the invocation's socket.
Result<driver::Json> ask_service(const Invocation& invocation, const driver::Json& request);

}  // namespace twinstack::cli
