// What the command line asks of the service, and what the policy decides.
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <string>

#include "base/monotonic.h"
#include "driver/policy_traffic.h"
#include "driver/service_impl.h"

namespace twinstack::driver {
namespace {

constexpr Duration kPolicyInterval = PolicyLook::kSoon;
constexpr Duration kRefusalBackoff = std::chrono::seconds(1);
constexpr const char* kBulk =
    "bulk in one direction: the policy leaves it to the kernel, which needs less CPU for that";

const char* state_name(std::uint8_t state) {
  constexpr const char* kNames[] = {"UNKNOWN",   "ESTAB",  "SYN-SENT",   "SYN-RECV", "FIN-WAIT-1", "FIN-WAIT-2",
                                    "TIME-WAIT", "CLOSED", "CLOSE-WAIT", "LAST-ACK", "LISTEN",     "CLOSING"};
  return state < std::size(kNames) ? kNames[state] : kNames[0];
}

bool read_tcp_info(int fd, tcp_info& info) {
  info = {};
  socklen_t length = sizeof(info);
  return ::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) == 0;
}

const char* stack_name(ipc::Owner owner) {
  switch (owner) {
    case ipc::Owner::kEngine:
      return "engine";
    case ipc::Owner::kToEngine:
      return "to-engine";
    case ipc::Owner::kToKernel:
      return "to-kernel";
    case ipc::Owner::kKernel:
    case ipc::Owner::kFree:
      break;
  }
  return "kernel";
}

void fill_from_kernel(ConnectionView& view, int fd) {
  tcp_info info;
  if (read_tcp_info(fd, info)) {
    view.state = state_name(info.tcpi_state);
    view.rtt_us = info.tcpi_rtt;
    view.rttvar_us = info.tcpi_rttvar;
    view.rto_us = info.tcpi_rto;
    view.cwnd_segments = info.tcpi_snd_cwnd;
    view.ssthresh_segments = info.tcpi_snd_ssthresh;
    view.mss = info.tcpi_snd_mss;
    view.retransmits += info.tcpi_total_retrans;
  }
  int queued = 0;
  if (::ioctl(fd, SIOCINQ, &queued) == 0) view.receive_queue_bytes = static_cast<std::uint32_t>(queued);
  if (::ioctl(fd, SIOCOUTQ, &queued) == 0) view.send_queue_bytes = static_cast<std::uint32_t>(queued);
}

void fill_from_engine(ConnectionView& view, const ipc::HwConnState& state) {
  view.state = "ESTAB";
  view.rtt_us = state.min.srtt_us;
  view.rttvar_us = state.min.rttvar_us;
  view.rto_us = state.min.rto_us;
  view.cwnd_segments = state.min.cwnd_segments;
  view.ssthresh_segments = state.min.ssthresh_segments;
  view.mss = state.min.mss;
  view.retransmits += state.info.total_retrans;
  view.receive_queue_bytes = state.unread_bytes;
  view.send_queue_bytes = state.min.write_seq - state.min.snd_una;
  view.engine_bytes_sent += state.info.bytes_acked;
  view.engine_bytes_received += state.info.bytes_received;
}

// Of the stays that have ended; what the current one adds is filled in by the stack.
void fill_past(ConnectionView& view, const handoff::Connection& conn) {
  view.engine_bytes_sent = conn.engine_counters.bytes_acked;
  view.engine_bytes_received = conn.engine_counters.bytes_received;
  view.retransmits = conn.engine_counters.total_retrans + conn.kernel->past_counters().total_retrans;
}

}  // namespace

ConnectionView Service::Impl::view(const ManagedConnection& conn) {
  const Session& session = *conn.session;
  ConnectionView view;
  view.session = session.id();
  view.slot = conn.move.slot;
  view.tag = conn.move.tag;
  view.hw_conn_id = conn.move.hw.raw();
  view.pid = session.pid();
  view.uid = session.uid();
  view.program = session.program();
  view.program_fd = conn.program_fd;
  view.stack = stack_name(conn.move.gate().owner());
  view.last_return = conn.last_return;
  view.stays = conn.stays;
  view.offloads = conn.offloads;
  view.uploads = conn.uploads;
  if (conn.interface != nullptr) view.interface = conn.interface->name();
  if (!conn.move.kernel) return view;
  view.cookie = conn.move.kernel->cookie();
  view.flow = conn.move.kernel->flow();
  const kernel::StreamBytes kernel_bytes = conn.linux_conn->stream_bytes();
  view.kernel_bytes_sent = kernel_bytes.acked;
  view.kernel_bytes_received = kernel_bytes.received;
  fill_past(view, conn.move);
  const auto state = mover_->query(conn);
  if (state)
    fill_from_engine(view, *state);
  else
    fill_from_kernel(view, conn.move.kernel->fd());
  return view;
}

// Asks the kernel, which takes some 25 us: not for each connection that an order looks at.
std::string Service::Impl::reason_of(const ManagedConnection& conn) {
  if (conn.in_engine()) {
    if (conn.upload_failure.empty()) return conn.return_cause;
    return conn.return_cause + "; the kernel does not take it (attempt " + std::to_string(conn.failed_uploads) +
           "): " + conn.upload_failure;
  }
  if (conn.stays || conn.closing || !conn.move.kernel) return conn.reason;
  const std::string why = mover_->why_not(conn);
  return why.empty() ? conn.reason : why;
}

std::vector<ConnectionView> Service::Impl::connections(const ConnectionFilter& filter) {
  std::vector<ConnectionView> all;
  for (auto& [number, session] : sessions_) {
    for (auto& [slot, conn] : session->connections) {
      ConnectionView one = view(*conn);
      if (!filter(one)) continue;
      one.reason = reason_of(*conn);
      all.push_back(std::move(one));
    }
  }
  return all;
}

MoveOutcome Service::Impl::order(const ConnectionFilter& filter, bool to_engine) {
  std::vector<ManagedConnection*> chosen;
  for (auto& [number, session] : sessions_) {
    for (auto& [slot, conn] : session->connections)
      if (!conn->closing && filter(view(*conn))) chosen.push_back(conn.get());
  }
  MoveOutcome outcome{.matched = chosen.size(), .moved = 0, .already = 0, .refused = {}};
  for (ManagedConnection* conn : chosen) {
    if (conn->in_engine() == to_engine && !(to_engine && conn->upload_wanted)) {
      ++outcome.already;
      continue;
    }
    if (!to_engine) {
      mover_->upload(*conn, "by command");
      ++outcome.moved;
      continue;
    }
    const auto moved =
        stopping_ ? Result<>(error(ErrorCode::kNotEligible, "the service stops")) : mover_->offload(*conn);
    if (moved)
      ++outcome.moved;
    else
      outcome.refused.emplace_back(conn->move.kernel ? conn->move.kernel->cookie() : 0, moved.error().message());
  }
  return outcome;
}

MoveOutcome Service::Impl::offload(const ConnectionFilter& filter) { return order(filter, true); }
MoveOutcome Service::Impl::upload(const ConnectionFilter& filter) { return order(filter, false); }

void Service::Impl::churn(std::chrono::milliseconds interval, std::chrono::milliseconds duration) {
  const Time now = monotonic_now();
  churn_interval_ = interval;
  churn_end_ = now + duration;
  churn_to_engine_ = true;
  churn_due_ = duration.count() == 0 ? kNever : now;
}

void Service::Impl::churn_once(Time now) {
  for (auto& [number, session] : sessions_) {
    std::vector<ManagedConnection*> all;
    for (auto& [slot, conn] : session->connections)
      if (!conn->closing) all.push_back(conn.get());
    for (ManagedConnection* conn : all) {
      if (!churn_to_engine_)
        mover_->upload(*conn, "by command (churn)");
      else if (!conn->in_engine())
        (void)mover_->offload(*conn);
    }
  }
  churn_to_engine_ = !churn_to_engine_;
  churn_due_ = now >= churn_end_ ? kNever : now + churn_interval_;
}

// Whether a move pays for it (policy auto).
bool Service::Impl::pays(ManagedConnection& conn, Time now) {
  ++policy_looks_;
  tcp_info info;
  const bool read = read_tcp_info(conn.move.kernel->fd(), info);
  conn.look.looked(now, info.tcpi_segs_in);
  const Traffic traffic{.bytes_out = info.tcpi_bytes_sent,
                        .bytes_in = info.tcpi_bytes_received,
                        .data_segments_out = info.tcpi_data_segs_out,
                        .data_segments_in = info.tcpi_data_segs_in,
                        .segments_in = info.tcpi_segs_in,
                        .mss = info.tcpi_snd_mss};
  if (!read || !traffic.is_enough()) return false;
  if (!traffic.is_bulk()) return true;
  conn.reason = kBulk;
  return false;
}

void Service::Impl::apply_policy(Time now) {
  const auto due = [](const ManagedConnection& conn) { return std::max(conn.not_before, conn.look.due()); };
  const auto may_move = [](const ManagedConnection& conn) {
    return !conn.in_engine() && !conn.stays && !conn.closing && conn.is_reachable;
  };
  Time next = kNever;
  for (auto& [number, session] : sessions_) {
    if (session->ending) continue;
    for (auto& [slot, entry] : session->connections) {
      ManagedConnection& conn = *entry;
      if (!may_move(conn)) continue;
      if (now >= due(conn) && (options_.policy != Policy::kAuto || pays(conn, now)) && !mover_->offload(conn))
        conn.not_before = now + kRefusalBackoff;
      if (may_move(conn)) next = std::min(next, due(conn));
    }
  }
  // Not for each connection by itself: one look goes over all.
  policy_due_ = next == kNever ? kNever : std::max(next, now + kPolicyInterval);
}

ServiceStats Service::Impl::stats() {
  ServiceStats out;
  out.sessions = sessions_.size();
  for (auto& [number, session] : sessions_) {
    for (auto& [slot, conn] : session->connections) {
      ++out.connections;
      if (conn->in_engine()) ++out.engine_connections;
    }
  }
  out.offload = mover_->offload_pauses().summary();
  out.upload = mover_->upload_pauses().summary();
  const MoverCounters& moves = mover_->counters();
  const auto late = late_filter_->stats();
  out.counters = {{"offloads", moves.offloads},
                  {"uploads", moves.uploads},
                  {"offload_refused", moves.offload_refused},
                  {"offload_failed", moves.offload_failed},
                  {"upload_failed", moves.upload_failed},
                  {"drain_deadlines", moves.drain_deadlines},
                  {"held_frames", moves.held_frames},
                  {"held_dropped", moves.held_dropped},
                  {"packets_dropped", moves.packets_dropped},
                  {"late_packets", moves.late_packets},
                  {"late_dropped", late.ring_full + late.too_long + late.unreadable},
                  {"stray_frames", moves.stray_frames},
                  {"icmp_too_big", moves.icmp_too_big},
                  {"broken_streams", moves.broken},
                  {"broken_sessions", broken_sessions_},
                  {"refused_sessions", refused_sessions_},
                  {"refused_registrations", refused_registrations_},
                  {"congestion_not_restored", moves.congestion_not_restored},
                  {"policy_looks", policy_looks_}};
  for (LaneRunner* lane : lanes_) {
    const std::string prefix = "lane" + std::to_string(lane->port().lane()) + "_";
    const engine::LaneCounters counters = lane->counters();
    for (std::size_t i = 0; i < counters.frames.size(); ++i)
      out.counters.emplace_back(prefix + "frames_" + std::string(wire::name(static_cast<wire::ParseVerdict>(i))),
                                counters.frames[i]);
    for (std::size_t i = 0; i < counters.segments.size(); ++i)
      out.counters.emplace_back(prefix + "segments_" + std::string(tcp::name(static_cast<tcp::Arrival>(i))),
                                counters.segments[i]);
    out.counters.emplace_back(prefix + "segments_out", counters.segments_out);
    out.counters.emplace_back(prefix + "held_frames", counters.held_frames);
    out.counters.emplace_back(prefix + "held_dropped", counters.held_dropped);
    out.counters.emplace_back(prefix + "held_repeated", counters.held_repeated);
    out.counters.emplace_back(prefix + "out_of_order_pruned", counters.out_of_order_pruned);
    out.counters.emplace_back(prefix + "unknown_flow", counters.unknown_flow);
    out.counters.emplace_back(prefix + "completion_full", counters.completion_full);
    out.counters.emplace_back(prefix + "submissions", counters.submissions);
    out.counters.emplace_back(prefix + "polls", counters.polls);
    const nic::LinkStats link = lane->link_stats();
    out.counters.emplace_back(prefix + "rx_dropped", link.rx_dropped);
    out.counters.emplace_back(prefix + "tx_dropped", link.tx_dropped);
  }
  for (auto& interface : interfaces_)
    out.interfaces.push_back({.name = interface->name(),
                              .mode = std::string(nic::name(interface->xdp().mode())),
                              .mode_reason = interface->xdp().mode_reason(),
                              .queues = static_cast<std::uint32_t>(interface->lanes().size())});
  return out;
}

}  // namespace twinstack::driver
