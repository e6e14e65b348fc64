// What all commands print in the same way, without -j and with it. Standard output and standard error; main thread.
#pragma once

#include <string_view>

#include "base/result.h"
#include "cli/command_line.h"
#include "driver/view_json.h"

namespace twinstack::cli {

// "twinstack: WHAT" to standard error.
void complain(std::string_view what);

// How commands end; each returns the exit code. With -j one line of JSON goes to standard output whatever happens:
// {"ok":true, ...} with exit status 0, else {"ok":false,"error":"...", ...}. `result`: what the command has to tell, an
// object.
int success(const Invocation& invocation, const driver::Json& result);
int failure(const Invocation& invocation, const Error& error);
int failure(const Invocation& invocation, std::string_view what, ExitCode code,
            const driver::Json& result = driver::Json::object());
int stopped(const Stop& stop);

void print_text(std::string_view text);

// Asks the service of the invocation's socket.
Result<driver::Json> ask_service(const Invocation& invocation, const driver::Json& request);

}  // namespace twinstack::cli
