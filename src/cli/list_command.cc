// twinstack ls: the connections that the service knows.
#include <vector>

#include "cli/commands.h"
#include "cli/output.h"
#include "cli/table.h"
#include "driver/filter.h"

namespace twinstack::cli {
namespace {

Result<std::vector<driver::ConnectionView>> views_of(const driver::Json& reply) {
  const auto connections = reply.find("connections");
  if (connections == reply.end() || !connections->is_array())
    return error(ErrorCode::kProtocol, "the service's answer has no connections");
  std::vector<driver::ConnectionView> views;
  for (const driver::Json& one : *connections) {
    ASSIGN_OR_RETURN(driver::ConnectionView view, driver::connection_from_json(one));
    views.push_back(std::move(view));
  }
  return views;
}

}  // namespace

int run_list(const Invocation& invocation) {
  driver::Json request = {{"cmd", "ls"}};
  if (!invocation.filter.empty()) {
    // Here too, so that a wrong filter is a usage error whether or not a service runs.
    const auto filter = driver::parse_filter(invocation.filter);
    if (!filter.has_value()) return failure(invocation, filter.error().message(), kUsage);
    request["filter"] = invocation.filter;
  }
  const Result<driver::Json> reply = ask_service(invocation, request);
  if (!reply.has_value()) return failure(invocation, reply.error());
  if (invocation.json) return success(invocation, *reply);
  const auto views = views_of(*reply);
  if (!views.has_value()) return failure(invocation, views.error());
  print_text(connection_table(*views));
  return kSuccess;
}

}  // namespace twinstack::cli
