// The moves themselves; what happens meanwhile (packets, events, time) is in mover_events.cc.
#include "driver/mover.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/log.h"
#include "handoff/offload.h"
#include "handoff/park.h"
#include "handoff/upload.h"

namespace twinstack::driver {
namespace {

using Stack = ManagedConnection::Stack;

// As long as Linux lets queues grow by itself (tcp_rmem: 32 MiB on newer kernels; tcp_wmem: 4 MiB), and what programs
// may ask for beyond; both go into chunks of the lane's share, of which one move takes no more than half of what is
// left.
constexpr std::uint32_t kReceiveQueueLimit = 32U << 20;
constexpr std::uint32_t kSendQueueLimit = 16U << 20;
constexpr std::size_t kReceiveRoom = kReceiveQueueLimit + (128U << 10);  // more may arrive after the check (QueueRoom)
// The engine's send queue may be longer than one that the kernel gave.
constexpr std::size_t kSendRoom = 72U << 20;
constexpr Duration kMinDrain = std::chrono::milliseconds(5);
constexpr Duration kMaxDrain = std::chrono::milliseconds(60);
constexpr Duration kRestInKernel = std::chrono::milliseconds(200);  // before the policy moves it again
constexpr Duration kUnresponsive = std::chrono::seconds(1);
constexpr Duration kShortCallDeadline = std::chrono::milliseconds(1);
constexpr Duration kLongestExpiry = std::chrono::seconds(5);      // of a connection whose peer stays silent: R23
constexpr Duration kFirstLook = std::chrono::milliseconds(5);     // whether what a return has lent is over
constexpr Duration kUploadRetry = std::chrono::milliseconds(10);  // doubles with every failure
constexpr Duration kMaxUploadRetry = std::chrono::seconds(1);
constexpr unsigned kMostChecks = 3;  // of one move, while the program goes on setting options

}  // namespace

Mover::Mover(MoverGround ground, std::function<void(ManagedConnection&)> closed)
    : ground_(std::move(ground)),
      closed_(std::move(closed)),
      receive_room_(std::make_unique_for_overwrite<std::byte[]>(kReceiveRoom)),
      send_room_(std::make_unique_for_overwrite<std::byte[]>(kSendRoom)) {
  tools_.limits.receive_queue_bytes = kReceiveQueueLimit;
  tools_.limits.send_queue_bytes = kSendQueueLimit;
  tools_.receive_room = {receive_room_.get(), kReceiveRoom};
  tools_.send_room = {send_room_.get(), kSendRoom};
  tools_.now = ground_.now;
  tools_.deliver_late = [this] { on_late_packets(); };
}

void Mover::add(ManagedConnection& conn) {
  const kernel::KernelConn& socket = *conn.move.kernel;
  by_cookie_[socket.cookie()] = &conn;
  for (Interface* interface : interfaces_) {
    if (interface->netns_cookie() != socket.netns_cookie()) continue;
    interface->watch(socket.flow());
    conn.is_reachable = true;
  }
}

void Mover::remove(ManagedConnection& conn) {
  if (!conn.move.kernel) return;
  const std::uint64_t cookie = conn.move.kernel->cookie();
  const auto known = by_cookie_.find(cookie);
  if (known == by_cookie_.end() || known->second != &conn) return;
  by_cookie_.erase(known);
  for (Interface* interface : interfaces_)
    if (interface->netns_cookie() == conn.move.kernel->netns_cookie()) interface->unwatch(conn.move.kernel->flow());
}

// Interface, next hop, lane and ring of a connection that is to be offloaded.
Result<> Mover::find_way(ManagedConnection& conn) {
  const kernel::KernelConn& socket = *conn.move.kernel;
  Error last{.code = ErrorCode::kNotEligible,
             .system_errno = 0,
             .what = "its network namespace has no interface of the service"};
  for (Interface* interface : interfaces_) {
    if (interface->netns_cookie() != socket.netns_cookie()) continue;
    const kernel::RouteHints hints = socket.route_hints();
    const auto hop = interface->hop_for({.local = socket.flow().local,
                                         .remote = socket.flow().remote,
                                         .scope_id = hints.scope_id,
                                         .mark = hints.mark,
                                         .bound_interface = hints.bound_interface,
                                         .traffic_class = 0});
    if (!hop) {
      last = hop.error();
      continue;
    }
    if (!*hop) return error(ErrorCode::kNotEligible, "the address of its next hop is being resolved");
    // The rings of two lanes know no order between them: as long as bytes of the last lane lie unread, it is kept.
    const auto& slot = conn.move.shared();
    const bool all_read = slot.rx_posted_bytes.load() == slot.rx_read_bytes.load();
    if (conn.interface != interface && conn.move.port != nullptr && !all_read) {
      interface->release_hop(**hop);
      last.what = "bytes that the lane of another interface received lie unread";
      continue;
    }
    if (conn.interface != interface || conn.move.port == nullptr || all_read) {
      const std::uint32_t lane = interface->lane_of(socket.flow());
      conn.move.port = &interface->port(lane);
    }
    conn.interface = interface;
    conn.move.path = interface;
    conn.move.hop_index = **hop;
    const auto& geometry = conn.session->arena().geometry();
    const std::uint32_t hint = conn.move.shared().ring_hint.load(std::memory_order_relaxed);
    conn.move.ring = conn.move.port->lane() + geometry.lane_count * (hint % conn.session->rings_per_lane());
    return {};
  }
  return std::unexpected(last);
}

Result<> Mover::offload(ManagedConnection& conn) {
  auto done = try_offload(conn);
  if (done || conn.stays) return done;
  const bool asked_again = conn.move.kernel->reason() != kernel::Reason::kNone;
  conn.reason = asked_again ? "" : done.error().message();
  return done;
}

// An option that the program sets meanwhile may be one that forbids the move or shows another way: all is looked at
// once more then, and not for ever, as there are programs that set one with each request.
Result<handoff::MoveReport> Mover::check_and_move(ManagedConnection& conn) {
  for (unsigned tries = 1;; ++tries) {
    // Before anything is reserved or stopped: most refusals are seen here.
    TRY(handoff::check(conn.move, tools_));
    TRY(find_way(conn));
    tools_.call_deadline = deadline_for(conn);
    auto moved = handoff::offload(conn.move, tools_);
    if (moved) return moved;
    conn.interface->release_hop(conn.move.hop_index);
    const bool again = moved.error().code == ErrorCode::kNotEligible && conn.move.options_changed();
    if (!again || tries == kMostChecks || !conn.move.kernel->is_untouched()) return moved;
  }
}

std::string Mover::why_not(const ManagedConnection& conn) {
  const auto eligible = conn.move.kernel->check_eligible(tools_.limits);
  return eligible ? "" : eligible.error().message();
}

Result<> Mover::try_offload(ManagedConnection& conn) {
  if (conn.upload_wanted)
    return error(ErrorCode::kNotEligible, "it is on its way back to the kernel: " + conn.return_cause);
  if (conn.in_engine()) return {};
  if (!conn.move.kernel) return error(ErrorCode::kNotEligible, conn.reason);
  if (conn.stays || conn.closing) return error(ErrorCode::kNotEligible, "it stays in the kernel: " + conn.reason);
  if (conn.move.gate().owner() != ipc::Owner::kKernel)
    return error(ErrorCode::kNotEligible, "the application has not released it");
  const auto moved = check_and_move(conn);
  counters_.held_dropped += std::exchange(conn.move.held_dropped, 0);
  if (!moved) {
    ++(moved.error().code == ErrorCode::kNotEligible ? counters_.offload_refused : counters_.offload_failed);
    note_timeout(conn, moved.error());
    // Somebody who holds the descriptor has kept the kernel from taking it back (P1, P4).
    if (!conn.move.kernel->is_untouched()) {
      reset_and_give_back(conn);
      note_broken(conn, moved.error());
    }
    settle_later(conn);  // of the packets that were injected as it was undone
    return std::unexpected(moved.error());
  }
  ++counters_.offloads;
  ++conn.offloads;
  offload_pauses_.add(moved->pause);
  conn.stack = Stack::kEngine;
  conn.parked = false;
  conn.upload_wanted = false;
  conn.reason.clear();
  by_hw_[conn.move.hw.raw()] = &conn;
  by_flow_.put(conn.interface, conn.move.kernel->flow(), conn);
  conn.grace_ticket = ground_.grace_periods.request();
  to_park_.push_back(conn.move.kernel->cookie());
  return {};
}

void Mover::upload(ManagedConnection& conn, const std::string& why, bool drain) {
  if (!conn.in_engine()) return;
  conn.return_cause = why;
  if (conn.stays) conn.reason = why;
  if (conn.stack == Stack::kDraining && drain) return;
  conn.upload_wanted = true;
  start_upload(conn, drain);
}

void Mover::start_upload(ManagedConnection& conn, bool drain) {
  if (!conn.parked) return;  // park() comes back here
  if (drain) {
    const auto state = query(conn);
    const engine::Reply reply = conn.move.port->call({.op = engine::CommandOp::kDrain, .id = conn.move.hw, .flag = 1});
    if (reply.status == engine::Status::kOk && reply.drained == 0) {
      const Duration rtt = std::chrono::microseconds(state ? state->min.srtt_us : 0);
      conn.drain_deadline = ground_.now() + std::clamp(rtt * 4, kMinDrain, kMaxDrain);
      conn.stack = Stack::kDraining;
      wait_draining(conn);
      return;
    }
  }
  finish_upload(conn);
}

void Mover::finish_upload(ManagedConnection& conn) {
  const std::uint64_t hw = conn.move.hw.raw();
  tools_.call_deadline = deadline_for(conn);
  const auto moved = handoff::upload(conn.move, tools_);
  counters_.held_dropped += std::exchange(conn.move.held_dropped, 0);
  if (!moved && conn.move.hw) {
    // The socket was parked only now, and the kernel has acknowledged what nobody has: trying again would find a socket
    // that is parked, and go on without those bytes.
    if (moved.error().code == ErrorCode::kBroken)
      give_up(conn, moved.error());
    else
      upload_failed(conn, moved.error());
    return;
  }
  by_hw_.erase(hw);
  left_engine(conn);
  if (!moved) {
    note_broken(conn, moved.error());
    return;
  }
  ++counters_.uploads;
  ++conn.uploads;
  counters_.held_frames += moved->held_frames;
  if (!moved->congestion_restored) ++counters_.congestion_not_restored;
  upload_pauses_.add(moved->pause);
  settle_later(conn);
  if (conn.closing) finish_close(conn);
}

// KernelConn::settle() is asked now and then.
void Mover::settle_later(const ManagedConnection& conn) {
  if (conn.move.kernel->is_settled()) return;
  const Time now = ground_.now();
  const std::uint64_t cookie = conn.move.kernel->cookie();
  std::erase_if(settling_, [cookie](const Settling& settling) { return settling.cookie == cookie; });
  settling_.push_back(
      {.cookie = cookie, .until = now + kLongestExpiry, .look_at = now + kFirstLook, .wait = 2 * kFirstLook});
  settle_at_ = std::min(settle_at_, now + kFirstLook);
}

void Mover::left_engine(ManagedConnection& conn) {
  by_flow_.erase(conn.interface, conn.move.kernel->flow());
  conn.interface->release_hop(conn.move.hop_index);
  conn.stack = Stack::kKernel;
  conn.last_return = std::exchange(conn.return_cause, {});
  conn.parked = false;
  conn.upload_wanted = false;
  conn.drain_deadline = kNever;
  conn.failed_uploads = 0;
  conn.upload_failure.clear();
  conn.orphan_since = kNever;
  conn.look = {};
  // Whoever asked for it must find it there.
  conn.not_before = std::max(conn.not_before, ground_.now() + kRestInKernel);
  if (returned_) returned_();
}

// A program that has let a data call stand is not waited for as long at each of its connections: the driver serves all
// others too. Never not at all: a program on the driver's core leaves its call only when the driver sleeps.
Duration Mover::deadline_for(const ManagedConnection& conn) const {
  const bool unresponsive = ground_.now() < conn.session->unresponsive_until;
  return unresponsive ? std::min(kShortCallDeadline, ground_.call_deadline) : ground_.call_deadline;
}

void Mover::note_timeout(ManagedConnection& conn, const Error& why) const {
  if (why.code == ErrorCode::kTimeout) conn.session->unresponsive_until = ground_.now() + kUnresponsive;
}

// The connection goes on in the engine; the return is tried again, ever more seldom: a program that holds a call open
// costs a deadline each time. What nobody has any more is not tried for ever.
void Mover::upload_failed(ManagedConnection& conn, const Error& why) {
  note_timeout(conn, why);
  ++counters_.upload_failed;
  ++conn.failed_uploads;
  conn.upload_failure = why.message();
  if (std::has_single_bit(conn.failed_uploads))
    spdlog::warn("sk:{} could not return to the kernel (attempt {}): {}", conn.move.kernel->cookie(),
                 conn.failed_uploads, why.message());
  const Time now = ground_.now();
  if (conn.closing && conn.orphan_since == kNever) conn.orphan_since = now;
  if (conn.closing && now - conn.orphan_since >= orphan_patience_) {
    give_up(conn, why);
    return;
  }
  conn.stack = Stack::kDraining;
  conn.drain_deadline = now + std::min(kUploadRetry * (1U << std::min(conn.failed_uploads - 1, 7U)), kMaxUploadRetry);
  wait_draining(conn);
}

void Mover::wait_draining(const ManagedConnection& conn) {
  const std::uint64_t cookie = conn.move.kernel->cookie();
  if (std::ranges::find(draining_, cookie) == draining_.end()) draining_.push_back(cookie);
}

void Mover::park(ManagedConnection& conn) {
  const auto parked = handoff::park(conn.move, tools_);
  if (!parked) {
    if (parked.error().code != ErrorCode::kBroken) {
      // Nothing was lost; the kernel socket may be in a gap, from which it can still be restored.
      spdlog::warn("sk:{} could not be parked: {}", conn.move.kernel->cookie(), parked.error().message());
      conn.parked = true;
      upload(conn, parked.error().message());
      return;
    }
    give_up(conn, parked.error());
    return;
  }
  conn.parked = true;
  if (conn.move.acknowledged_fin) {  // as when it comes to the engine
    conn.stays = true;
    if (!conn.upload_wanted) return upload(conn, engine::to_string(engine::Cause::kPeerFin), true);
  }
  if (conn.upload_wanted) start_upload(conn, true);
}

// Takes a connection out of the engine without returning its state.
void Mover::give_up(ManagedConnection& conn, const Error& why) {
  // What calls inside submit, and what lies in the ring, must be taken out while the id is good, or an honest program
  // would break the rules of the ring.
  if (!conn.move.gate().begin_move(ipc::Owner::kEngine, ipc::Owner::kToKernel, deadline_for(conn)))
    conn.move.gate().set_owner(ipc::Owner::kToKernel);
  (void)conn.move.port->call({.op = engine::CommandOp::kHold, .id = conn.move.hw});
  const engine::Reply last = conn.move.port->call({.op = engine::CommandOp::kExtract, .id = conn.move.hw});
  if (last.status == engine::Status::kOk) conn.move.engine_counters += ipc::counters_of(last.state);
  (void)conn.move.path->unsteer(conn.move.kernel->flow());
  (void)conn.move.port->call({.op = engine::CommandOp::kRelease, .id = conn.move.hw});
  by_hw_.erase(conn.move.hw.raw());
  conn.move.hw = engine::HwConnId();
  conn.move.shared().hw_conn_id.store(0, std::memory_order_release);
  left_engine(conn);
  reset_and_give_back(conn);
  note_broken(conn, why);  // last: it ends the connection's life here
}

// Ends a connection whose stream cannot be kept: better a reset than wrong bytes. Before any call of the program sees
// the kernel's socket, which is still in repair mode.
void Mover::reset_and_give_back(ManagedConnection& conn) {
  conn.move.kernel->reset();
  handoff::publish_counters(conn.move);
  conn.move.gate().set_owner(ipc::Owner::kKernel);
  handoff::notify_owner_changed(conn.move);
}

void Mover::note_broken(ManagedConnection& conn, const Error& why) {
  ++counters_.broken;
  conn.stays = true;
  conn.reason = why.message();
  spdlog::error("sk:{} is reset: {}", conn.move.kernel->cookie(), why.message());
  if (conn.closing) finish_close(conn);
}

void Mover::close(ManagedConnection& conn) {
  conn.closing = true;
  conn.stays = true;
  conn.move.program_gone = conn.session->ending;
  if (conn.in_engine())
    upload(conn, "closed by the program");
  else
    finish_close(conn);
}

void Mover::finish_close(ManagedConnection& conn) {
  if (conn.move.kernel) {
    const auto& slot = conn.move.shared();
    conn.move.kernel->prepare_close(slot.rx_posted_bytes.load() != slot.rx_read_bytes.load());
  }
  remove(conn);
  closed_(conn);
}

Result<ipc::HwConnState> Mover::query(const ManagedConnection& conn) const {
  if (!conn.move.hw) return error(ErrorCode::kNotFound, "the engine does not serve it");
  const engine::Reply reply = conn.move.port->call({.op = engine::CommandOp::kQuery, .id = conn.move.hw});
  if (reply.status != engine::Status::kOk) return error(ErrorCode::kNotFound, engine::to_string(reply.status));
  return reply.state;
}

}  // namespace twinstack::driver
