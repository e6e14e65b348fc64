#include "handoff/connection.h"

namespace twinstack::handoff {

const char* to_string(OffloadStep step) noexcept {
  switch (step) {
    case OffloadStep::kReserve:
      return "reserve";
    case OffloadStep::kOwn:
      return "own";
    case OffloadStep::kCheck:
      return "check";
    case OffloadStep::kFilter:
      return "filter";
    case OffloadStep::kSteer:
      return "steer";
    case OffloadStep::kFreeze:
      return "freeze";
    case OffloadStep::kInstall:
      return "install";
    case OffloadStep::kCommit:
      return "commit";
  }
  return "unknown";
}

const char* to_string(UploadStep step) noexcept {
  switch (step) {
    case UploadStep::kOwn:
      return "own";
    case UploadStep::kPark:
      return "park";
    case UploadStep::kHold:
      return "hold";
    case UploadStep::kExtract:
      return "extract";
    case UploadStep::kRestore:
      return "restore";
    case UploadStep::kRelease:
      return "release";
    case UploadStep::kCommit:
      return "commit";
  }
  return "unknown";
}

void notify_owner_changed(Connection& conn) {
  // Refused only when the completion ring is full: whoever drains it has everybody look (Session::take_in()).
  (void)conn.port->call({.op = engine::CommandOp::kNotify,
                         .session = conn.session,
                         .id = conn.hw,
                         .slot = conn.slot,
                         .tag = conn.tag,
                         .ring = conn.ring});
}

void publish_counters(const Connection& conn) noexcept {
  tcp::InfoCounters sum = conn.kernel->past_counters();
  sum += conn.engine_counters;
  ipc::store_counters(conn.shared().base, sum);
}

}  // namespace twinstack::handoff
