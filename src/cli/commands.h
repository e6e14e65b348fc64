// The commands: one function per sub-command, in a file of its own. Each prints its result to standard output and what
// went wrong to standard error, and returns the exit code (ExitCode in command_line.h). They block. Main thread.
#pragma once

#include "cli/command_line.h"

namespace twinstack::cli {

int run_service(const Invocation& invocation);
int run_program(const Invocation& invocation);  // returns only when the program could not be started: 126, 127 or 1
int run_list(const Invocation& invocation);
int run_move(const Invocation& invocation);  // offload and upload
int run_stats(const Invocation& invocation);
int run_churn(const Invocation& invocation);
int run_doctor(const Invocation& invocation);
int run_sim(const Invocation& invocation);

}  // namespace twinstack::cli
