#include "stack/soft_kernel_conn.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "base/assert.h"
#include "stack/socket_host.h"
#include "tcp/cold_state.h"
#include "tcp/flight.h"
#include "tcp/rate.h"
#include "tcp/timestamps.h"
#include "wire/tcp_options.h"

namespace twinstack::stack {

namespace {

using kernel::Phase;
using kernel::Reason;

// What a hung-up socket shows while it has no connection (A2).
constexpr std::uint32_t kGapEvents = POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM | POLLERR | POLLHUP | POLLRDHUP;
constexpr std::uint32_t kRtoAfterRestoreUs = 3'000'000;  // R5
constexpr std::uint32_t kRtoOfRestoredUs = 1'000'000;    // R5: of bytes that count as sent
constexpr std::uint32_t kInitialCwnd = 10;

bool take_failure(int& count) { return count > 0 && count-- > 0; }

std::unexpected<Error> refused(const char* what) { return error(ErrorCode::kSystem, std::string(what) + ": refused"); }

std::string_view name_of(const tcp::MinTcp& min) noexcept {
  return {min.congestion.data(), ::strnlen(min.congestion.data(), min.congestion.size())};
}

std::span<std::byte> copy_out(const ByteQueue& queue, std::uint32_t offset, std::span<std::byte> room,
                              std::uint32_t count) {
  queue.copy(offset, room.first(count));
  return room.first(count);
}

}  // namespace

SoftKernelConn::SoftKernelConn(SoftStack& stack, SocketId id, std::function<Time()> now)
    : stack_(stack), id_(id), now_(std::move(now)), cookie_(stack.cookie(id)) {
  const int retained = stack_.retain(id);
  ASSERT(retained == 0);
  flow_ = socket()->flow;
}

SoftKernelConn::~SoftKernelConn() { stack_.close(id_, now_()); }

Socket* SoftKernelConn::socket() const { return stack_.socket_of(id_); }

// The socket, while it has a connection.
Socket* SoftKernelConn::live() const {
  Socket* const found = socket();
  return found != nullptr && found->conn && !found->over ? found : nullptr;
}

// ---- May it move?

Result<> SoftKernelConn::refuse(Reason reason) {
  reason_ = reason;
  return error(ErrorCode::kNotEligible, std::string(kernel::reason_text(reason)));
}

// What the peer can change at any time.
Result<> SoftKernelConn::check_live_state(const Socket& socket) {
  if (SoftStack::state_of(socket) != State::kEstablished || socket.receive_shut) return refuse(Reason::kNotEstablished);
  if (socket.error != 0) return refuse(Reason::kErrorQueue);
  const tcp::ControlBlock& cb = socket.conn->cb;
  if (cb.recovery >= tcp::RecoveryState::kRecovery && !limits_.allow_loss_recovery) {
    return refuse(Reason::kLossRecovery);
  }
  if (tcp::has_out_of_order_data(cb)) return refuse(Reason::kOutOfOrder);
  return {};
}

Result<> SoftKernelConn::check_eligible(const kernel::Limits& limits) {
  ASSERT(phase_ == Phase::kRunning);
  checked_ = false;
  limits_ = limits;
  reason_ = Reason::kNone;
  if (!settle(false)) return refuse(Reason::kLossRecovery);
  if (take_failure(fail.check)) return refuse(Reason::kUrgentData);
  const Socket* const found = live();
  if (found == nullptr) return refuse(Reason::kNotEstablished);
  if (found->repair) return refuse(Reason::kRepairOn);
  TRY(check_live_state(*found));
  if (found->options.receive_inq) return refuse(Reason::kControlData);
  if (found->options.receive_low_water > 1) return refuse(Reason::kLowWater);
  tcp::MinTcp min;
  stack_.fill_settings(*found, min);
  if (std::ranges::find(limits.congestion_controls, name_of(min)) == limits.congestion_controls.end()) {
    return refuse(Reason::kCongestionControl);
  }
  checked_queues_ = {.unread_bytes = found->conn->receive.bytes.size(), .send_bytes = found->conn->send.size()};
  if (checked_queues_.unread_bytes > limits.receive_queue_bytes) return refuse(Reason::kReceiveQueueLimit);
  if (checked_queues_.send_bytes > limits.send_queue_bytes) return refuse(Reason::kSendQueueLimit);
  checked_ = true;
  return {};
}

Result<> SoftKernelConn::attach_late_filter() {
  if (take_failure(fail.attach)) return refused("attach the late filter");
  filter_on_ = true;
  stack_.set_late_filter(id_, true);
  return {};
}

Result<> SoftKernelConn::detach_late_filter() {
  if (take_failure(fail.detach)) return refused("detach the late filter");
  filter_on_ = false;
  stack_.set_late_filter(id_, false);
  return {};
}

// ---- Out

Result<kernel::Snapshot> SoftKernelConn::freeze(const kernel::QueueRoom& room) {
  ASSERT(phase_ == Phase::kRunning && checked_ && filter_on_);
  reason_ = Reason::kNone;
  if (take_failure(fail.freeze)) return std::unexpected(refuse(Reason::kUrgentData).error());
  Socket* const found = live();
  if (found == nullptr) return std::unexpected(refuse(Reason::kNotEstablished).error());
  TRY(check_live_state(*found));
  Connection& conn = *found->conn;
  if (conn.receive.bytes.size() > limits_.receive_queue_bytes) {
    return std::unexpected(refuse(Reason::kReceiveQueueLimit).error());
  }
  if (conn.send.size() > limits_.send_queue_bytes) return std::unexpected(refuse(Reason::kSendQueueLimit).error());
  if (conn.receive.bytes.size() >= room.receive.size() || conn.send.size() + quirks.stale_bytes >= room.send.size()) {
    return error(ErrorCode::kNoResource, "a queue exceeds the room");
  }
  if (tcp::owes_ack(conn.cb) && !quirks.loses_delayed_ack) tcp::acknowledge_now(conn.cb);  // F5
  tcp::set_draining(conn.cb, true, now_());  // R17: the window is closed to new data
  stack_.transmit(*found, now_());
  if (quirks.loses_delayed_ack) tcp::owe_nothing(conn.cb);
  kernel::Snapshot snapshot;
  take_min(*found, snapshot.min);
  take_queues(*found, room, snapshot);
  frozen_counters_ = counters_of(conn);
  repeated_ack_.leave_out(frozen_counters_, snapshot.min, snapshot.unacked);
  snapshot.stamped_at = frozen_at_ = now_();
  frozen_ = snapshot.min;
  found->repair = true;
  phase_ = Phase::kFrozen;
  checked_ = false;
  if (std::exchange(quirks.opens_after_snapshot, false)) {
    snapshot.min.snd_wnd = frozen_.snd_wnd = 0;
    tcp::set_draining(conn.cb, false, now_());
    stack_.transmit(*found, now_());
    tcp::set_draining(conn.cb, true, now_());
  }
  return snapshot;
}

void SoftKernelConn::take_min(const Socket& socket, tcp::MinTcp& min) const {
  const Connection& conn = *socket.conn;
  stack_.fill_settings(socket, min);
  min.flow = flow_;
  min.mss_clamp = conn.mss_clamp;
  min.advmss = conn.advmss;
  min.snd_buf_bytes = stack_.send_buffer(socket);
  min.rcv_buf_bytes = conn.receive.buffer_bytes();
  const std::uint32_t clamp = conn.receive.clamp_bytes();
  min.window_clamp_bytes = clamp < min.rcv_buf_bytes / 4 ? clamp : 0;
  tcp::extract(conn.cb, now_(), min);
  if (socket.options.receive_buffer_locked || min.window_clamp_bytes != 0) min.flags |= tcp::kFlagFixedReceiveBuffer;
  // What it sends, proved or not, as one sees it of Linux's (kernel/snapshot.cc, take_mss_found()).
  const std::uint32_t options = (min.options & tcp::kOptTimestamps) != 0 ? wire::kTimestampBytes : 0;
  if (tcp::is_searching_path(conn.cb)) min.mss_found = static_cast<std::uint16_t>(conn.cb.mss + options);
  if (quirks.forgets) min.ts_recent = 0;  // Linux does not tell
  min.delivery_rate = tcp::bytes_per_second(conn.delivery_rate, conn.cb.mss);
  min.delivery_app_limited = tcp::is_app_limited(conn.delivery_rate) ? 1 : 0;
  min.copied_seq = min.rcv_nxt - conn.receive.bytes.size();
  const std::uint64_t acked = restored_.bytes_acked + repeated_ack_.without(counters_of(conn)).bytes_acked;
  min.bytes_acked = static_cast<std::uint32_t>(std::min<std::uint64_t>(acked, UINT32_MAX));
  const bool measured = min.srtt_us != 0 && (repeated_ack_.bytes() == 0 || !repeated_ack_.is_all(counters_of(conn)));
  if (measured || restored_.srtt_us == 0) return;
  min.srtt_us = restored_.srtt_us;  // R10
  min.rttvar_us = restored_.rttvar_us;
  min.rto_us = restored_.rto_us;
  min.min_rtt_us = restored_.min_rtt_us;
}

void SoftKernelConn::take_queues(const Socket& socket, const kernel::QueueRoom& room,
                                 kernel::Snapshot& snapshot) const {
  const Connection& conn = *socket.conn;
  snapshot.unread = copy_out(conn.receive.bytes, 0, room.receive, conn.receive.bytes.size());
  std::ranges::fill(room.send.first(quirks.stale_bytes), std::byte{0xee});  // S8
  const std::span<std::byte> all = room.send.subspan(quirks.stale_bytes, conn.send.size());
  conn.send.copy(conn.send.una(), all);
  const std::uint32_t sent = snapshot.min.snd_nxt - snapshot.min.snd_una;
  snapshot.unacked = all.first(sent);
  snapshot.unsent = all.subspan(sent);
}

// Repair mode off. What the window was closed to goes on; `probe` asks the peer for its window.
void SoftKernelConn::leave_repair(Socket& socket, bool probe) {
  socket.repair = false;
  if (socket.over) return;
  tcp::ControlBlock& cb = socket.conn->cb;
  tcp::set_draining(cb, false, now_());
  if (probe) tcp::probe_now(cb);
}

Result<> SoftKernelConn::thaw() {
  ASSERT(phase_ == Phase::kFrozen);
  if (take_failure(fail.thaw)) return refused("thaw");
  phase_ = Phase::kRunning;
  if (Socket* const found = live(); found != nullptr) {
    tcp::ControlBlock& cb = found->conn->cb;
    leave_repair(*found, true);
    tcp::set_congestion(cb, cb.congestion_kind, now_());                         // R19: begins afresh
    if (quirks.marks_unsent) tcp::other_stack_silent(cb, cb.write_seq, now_());  // A3
    stack_.settle(*found, now_());
    stack_.deliver_wakes();
  } else if (Socket* const dead = socket(); dead != nullptr) {
    dead->repair = false;
  }
  return detach_late_filter();
}

// ---- The shell

// Bytes that packets past the filter have brought, and a FIN. A reset cannot be undone.
Result<kernel::LateBytes> SoftKernelConn::take_late_bytes(const Socket& socket, std::span<std::byte> room) const {
  const Connection& conn = *socket.conn;
  kernel::LateBytes late{
      .first_seq = frozen_.rcv_nxt, .bytes = {}, .snd_una = conn.cb.snd_una.raw(), .snd_nxt = conn.cb.snd_nxt.raw()};
  if (conn.cb.write_seq.raw() != frozen_.write_seq) {
    return error(ErrorCode::kBroken, "somebody wrote to the socket after the snapshot");
  }
  late.snd_una = max(conn.cb.snd_una, Seq(frozen_.snd_una)).raw();  // RepeatedAck::leave_out()
  const std::uint32_t known = frozen_.rcv_nxt - frozen_.copied_seq;
  late.fin = conn.cb.has(tcp::kFinReceived);  // the freeze refuses one
  const std::uint32_t more = conn.cb.rcv_nxt.raw() - frozen_.rcv_nxt - late.fin;
  if (known + more > conn.receive.bytes.size() || room.size() < more) {
    return error(ErrorCode::kBroken, "late bytes cannot be read back");
  }
  late.bytes = copy_out(conn.receive.bytes, known, room, more);
  return late;
}

Result<kernel::LateBytes> SoftKernelConn::park(std::span<std::byte> room) {
  ASSERT(phase_ == Phase::kFrozen);
  Socket* const found = live();
  if (found == nullptr) return error(ErrorCode::kBroken, "the connection has ended");
  const bool fails = take_failure(fail.park);
  if (fails && fail.park_leaves == Phase::kFrozen) return refused("park");
  ASSIGN_OR_RETURN(const kernel::LateBytes late, take_late_bytes(*found, room));
  tcp::InfoCounters stay = counters_of(*found->conn);
  stay.bytes_acked -= std::min<std::uint64_t>(stay.bytes_acked, late.snd_una - frozen_.snd_una);
  stay.bytes_received -= std::min<std::uint64_t>(stay.bytes_received, late.bytes.size());
  past_ += repeated_ack_.without(stay);
  repeated_ack_.end();
  meanwhile();
  const std::uint32_t looked_to = late.first_seq + static_cast<std::uint32_t>(late.bytes.size()) + late.fin;
  const bool purges = live() == nullptr || found->conn->cb.rcv_nxt.raw() != looked_to;
  phase_ = Phase::kGap;
  disconnect(*found);
  if (purges || take_failure(fail.purge))
    return error(ErrorCode::kBroken, "bytes were acknowledged after the last look");  // F2
  if (fails) return refused("park");
  tcp::MinTcp shell = frozen_;  // F4
  shell.snd_una = shell.snd_nxt = frozen_.write_seq;
  shell.rcv_nxt = shell.copied_seq = shell.rcv_wup = late.first_seq + static_cast<std::uint32_t>(late.bytes.size());
  shell.flags = static_cast<std::uint16_t>(shell.flags & ~tcp::kFlagKeepalive);
  TRY(establish(*found, shell));
  shell_rcv_nxt_ = shell.rcv_nxt;
  shell_write_seq_ = shell.write_seq;
  phase_ = Phase::kParked;
  stack_.deliver_wakes();
  return late;
}

// In repair mode: no FIN, no RST, queues purged. Until it is established again nobody has the flow (F3).
void SoftKernelConn::disconnect(Socket& socket) {
  stack_.timers_.cancel(socket);
  stack_.leave(socket);
  if (socket.conn) {
    socket.conn->cb.cold.reset();
    stack_.count_out_of_order(socket);
  }
  socket.conn.reset();
  socket.over = true;
  socket.error = 0;  // A2: ECONNABORTED, which the driver reads off at once
  stack_.wake(socket, kGapEvents);
}

// In place: the same socket has a connection again, and says nothing.
Result<> SoftKernelConn::establish(Socket& socket, const tcp::MinTcp& min) {
  if (stack_.find(flow_) != nullptr) return error(ErrorCode::kSystem, "connect in repair mode: the address is in use");
  auto conn = std::make_unique<Connection>();
  tcp::MinTcp fresh = min;
  fresh.bytes_acked = 0;  // R20: it takes no ACK that is older than its return
  TRY(tcp::install(conn->cb, fresh, now_()));
  tcp::run_whole_machine(conn->cb);
  tcp::owe_nothing(conn->cb);
  tcp::set_draining(conn->cb, true, now_());
  tcp::set_restart_after_idle(conn->cb, stack_.config_.tcp_slow_start_after_idle);
  conn->send.begin(conn->cb.snd_una);
  conn->established = now_();
  conn->advmss = min.advmss;
  conn->mss_clamp = min.mss_clamp;
  stack_.begin_path(*conn, flow_, min.mss_found, now_());
  if (!quirks.forgets) conn->delivery_rate = tcp::delivery_rate_of(min, conn->cb.mss);  // R10
  conn->receive.begin_restored(stack_.config_, min.rcv_buf_bytes, conn->cb, min.advmss, now_());
  if (socket.options.window_clamp != 0) conn->receive.set_clamp(socket.options.window_clamp, conn->cb);  // R9
  socket.conn = std::move(conn);
  socket.over = socket.receive_shut = socket.send_shut = socket.fin_received = false;
  socket.repair = true;
  socket.flow = flow_;
  if (socket.bucket == nullptr) stack_.join_port(socket, flow_.local_port);
  stack_.enter(socket);
  return {};
}

Result<bool> SoftKernelConn::stray_write_detected() {
  ASSERT(phase_ == Phase::kParked);
  const Socket* const found = live();
  if (found == nullptr) return true;
  const tcp::ControlBlock& cb = found->conn->cb;
  return cb.rcv_nxt.raw() != shell_rcv_nxt_ || cb.write_seq.raw() != shell_write_seq_;
}

Result<> SoftKernelConn::expire() {
  ASSERT(phase_ == Phase::kRunning);
  return expiry_.begin([this](int level, int name) { return option(level, name); },
                       [this](int level, int name, int value) { return set_option(level, name, value); }, now_());
}

bool SoftKernelConn::settle(bool in_any_case) {
  if (!expiry_.is_on()) return true;
  const Socket* const found = live();
  if (found == nullptr) return true;
  const Time now = now_();
  if (!in_any_case && !expiry_.is_news(now - tcp::age(found->conn->cb.last_receive, now))) return false;
  expiry_.end([this](int level, int name) { return option(level, name); },
              [this](int level, int name, int value) { return set_option(level, name, value); });
  return true;
}

Result<int> SoftKernelConn::option(int level, int name) {
  int value = 0;
  if (stack_.get_option(id_, level, name, &value, now_()) < 0) return refused("getsockopt");
  return value;
}

Result<> SoftKernelConn::set_option(int level, int name, int value) {
  if (stack_.set_option(id_, level, name, value, now_()) != 0) return refused("setsockopt");
  return {};
}

Result<std::uint32_t> SoftKernelConn::timestamp_clock() {
  const Socket* const found = live();
  if (found == nullptr) return refused("TCP_TIMESTAMP");
  return tcp::ts_clock(found->conn->cb, now_());
}

Result<std::uint32_t> SoftKernelConn::rcv_queue_seq() {
  ASSERT(phase_ != Phase::kRunning);
  const Socket* const found = live();
  if (found == nullptr) return refused("TCP_QUEUE_SEQ");
  return found->conn->cb.rcv_nxt.raw();
}

// ---- Back

// What a restore loses: the estimates (R5), the congestion control's own state, ts_recent, counters, right-sizing.
Result<kernel::RestoreReport> SoftKernelConn::restore(const tcp::MinTcp& min, const kernel::RestoreQueues& queues) {
  ASSERT(phase_ == Phase::kParked || phase_ == Phase::kGap);
  if (queues.unacked.size() != min.snd_nxt - min.snd_una || queues.unread.size() > min.rcv_nxt - min.copied_seq) {
    return error(ErrorCode::kInvalid, "the queues do not fit the sequence numbers");
  }
  Socket* const found = socket();
  if (found == nullptr) return refused("restore");
  const std::uint32_t buffer = found->conn ? found->conn->receive.buffer_bytes() : frozen_.rcv_buf_bytes;
  phase_ = Phase::kGap;
  disconnect(*found);
  if (take_failure(fail.restore)) return refused("restore");
  tcp::MinTcp held = min;
  held.write_seq = held.snd_nxt;
  held.stalled_us = 0;
  if (quirks.forgets) {
    held.srtt_us = held.rttvar_us = held.min_rtt_us = 0;
    held.rto_us = queues.unacked.size() == queues.acked_bytes ? kRtoAfterRestoreUs : kRtoOfRestoredUs;
    held.ts_recent = 0;
    held.measured = {};
    held.reordering_segments = 3;
  }
  held.rcv_buf_bytes = buffer;
  held.flags = static_cast<std::uint16_t>(held.flags & ~(tcp::kFlagKeepalive | tcp::kFlagMoreFollows));
  if (!quirks.restores_congestion || min.cwnd_segments == 0) {
    held.cwnd_segments = kInitialCwnd;
    held.ssthresh_segments = tcp::kInfiniteSsthresh;
  }
  const Duration away = now_() - frozen_at_;  // S6: the clock must not go back
  const bool microseconds = (min.options & tcp::kOptTsMicroseconds) != 0;
  const std::int64_t ticks = away.count() / (microseconds ? 1'000 : 1'000'000) + 1;
  held.ts_val = max(Seq(min.ts_val), Seq(frozen_.ts_val) + static_cast<std::uint32_t>(ticks)).raw();
  TRY(establish(*found, held));
  Connection& conn = *found->conn;
  if (queues.acked_bytes > 0) tcp::measure_by_echo(conn.cb, queues.acked_bytes);
  conn.receive.bytes.append(queues.unread);
  if (!queues.unacked.empty()) {
    conn.send.begin_chunk();
    conn.send.append(queues.unacked);
  }
  stack_.arm(*found, now_());
  unread_restored_ = !queues.unread.empty();
  repeated_ack_.expect(queues.acked_bytes, min.snd_una);
  restored_ = min;
  restored_.snd_una += queues.acked_bytes;
  phase_ = Phase::kRestored;
  stack_.deliver_wakes();
  return kernel::RestoreReport{.congestion_restored = quirks.restores_congestion && min.cwnd_segments != 0};
}

Result<kernel::ReleaseReport> SoftKernelConn::release(std::span<const std::byte> unsent, bool probe) {
  ASSERT(phase_ == Phase::kRestored);
  if (take_failure(fail.release)) return refused("release");
  Socket* const found = socket();
  if (found == nullptr) return refused("release");
  phase_ = Phase::kRunning;
  leave_repair(*found, probe);  // R11
  kernel::ReleaseReport report;
  if (found->over) {
    report.socket_error = std::exchange(found->error, 0);  // R12
  } else {
    const std::size_t taken = std::min(unsent.size(), fail.release_takes);
    if (taken > 0) {
      found->conn->send.begin_chunk();
      found->conn->send.append(unsent.first(taken));
      const bool more_follows = (restored_.flags & tcp::kFlagMoreFollows) != 0;
      tcp::on_queued(found->conn->cb, static_cast<std::uint32_t>(taken), more_follows);
    }
    report.unsent_taken_bytes = taken;
    stack_.apply_settings(*found, now_());  // keepalive again; sends
  }
  if (unread_restored_) stack_.wake(*found, POLLIN | POLLRDNORM);  // A5
  filter_on_ = false;
  stack_.set_late_filter(id_, false);
  stack_.deliver_wakes();
  return report;
}

void SoftKernelConn::reset() noexcept {
  Socket* const found = socket();
  if (found != nullptr) {
    if (phase_ == Phase::kFrozen) {
      past_ += repeated_ack_.without(frozen_counters_);
      repeated_ack_.end();
    }
    found->repair = false;
    found->late_filter = false;
    stack_.disconnect(*found, now_());  // as Linux: what is unread is in the engine, or was read there, and goes
    stack_.deliver_wakes();
  }
  filter_on_ = false;
  phase_ = Phase::kRunning;
}

// ---- Counters

tcp::InfoCounters SoftKernelConn::counters_of(const Connection& conn) const noexcept {
  const tcp::Counters& from = conn.counters;
  tcp::InfoCounters out{};
  out.bytes_acked = from.bytes_acked;
  out.bytes_received = from.bytes_received;
  out.bytes_sent = from.bytes_sent;
  out.bytes_retrans = from.bytes_retransmitted;
  out.segs_out = from.segs_out;
  out.segs_in = from.segs_in;
  out.data_segs_out = from.data_segs_out;
  out.data_segs_in = from.data_segs_in;
  out.total_retrans = from.segs_retransmitted;
  out.delivered = conn.cb.delivered;
  out.delivered_ce = conn.cb.delivered_ce;
  out.dsack_dups = from.dsack_dups;
  out.reord_seen = conn.cb.reord_seen;
  out.rcv_ooopack = from.out_of_order;
  return out;
}

tcp::InfoCounters SoftKernelConn::past_counters() const noexcept {
  if (phase_ != Phase::kFrozen) return repeated_ack_.in_advance(past_);
  tcp::InfoCounters sum = past_;
  sum += repeated_ack_.without(frozen_counters_);
  return sum;
}

}  // namespace twinstack::stack
