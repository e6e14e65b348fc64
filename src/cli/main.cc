// twinstack: the command. Reads the command line and hands it to one of the commands.
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/output.h"

namespace {

int dispatch(const twinstack::cli::Invocation& invocation) {
  using Command = twinstack::cli::Invocation::Command;
  switch (invocation.command) {
    case Command::kService:
      return twinstack::cli::run_service(invocation);
    case Command::kRun:
      return twinstack::cli::run_program(invocation);
    case Command::kList:
      return twinstack::cli::run_list(invocation);
    case Command::kOffload:
    case Command::kUpload:
      return twinstack::cli::run_move(invocation);
    case Command::kStats:
      return twinstack::cli::run_stats(invocation);
    case Command::kChurn:
      return twinstack::cli::run_churn(invocation);
    case Command::kDoctor:
      return twinstack::cli::run_doctor(invocation);
    case Command::kSim:
      return twinstack::cli::run_sim(invocation);
  }
  return twinstack::cli::kUsage;
}

}  // namespace

int main(int count, char** words) {
  const auto invocation = twinstack::cli::parse_command_line(std::vector<std::string>(words + 1, words + count));
  if (invocation.has_value()) return dispatch(*invocation);
  return twinstack::cli::stopped(invocation.error());
}
