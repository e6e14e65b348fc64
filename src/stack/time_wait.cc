// TIME-WAIT as a small record (RFC 9293 3.6.1, 3.10.7.4; RFC 1337, RFC 6191), and the FIN-WAIT-2 of a connection that
// nobody reads any more. The rules are those of Linux's tcp_timewait_state_process().
#include <cerrno>

#include "stack/stack.h"
#include "tcp/timestamps.h"
#include "tcp/window.h"

namespace twinstack::stack {

namespace {

// A new connection begins beyond all that the old one may have sent (as Linux).
constexpr std::uint32_t kBeyondOldWindow = 65535 + 2;
std::uint32_t segment_length(const wire::TcpPacket& packet) noexcept {
  const wire::Segment& segment = packet.segment;
  return packet.payload.size() + (segment.has(wire::kSyn) ? 1U : 0U) + (segment.has(wire::kFin) ? 1U : 0U);
}

// RFC 7323 5.3 R1; a reset passes once the stamp is a minute old (as Linux tcp_paws_reject()).
bool paws_rejects(const TimeWait& wait, const wire::Segment& segment, Time now) noexcept {
  if (!wait.has_ts_recent || !segment.options.has_timestamps) return false;
  if (!tcp::is_older_stamp(segment.options.ts_val, wait.ts_recent)) return false;
  const Duration age = now - wait.ts_recent_stamp;
  if (age >= tcp::kTsRecentLasts) return false;
  return !(segment.has(wire::kRst) && age >= std::chrono::seconds(60));
}

void note_stamp(TimeWait& wait, const wire::Segment& segment, Time now) noexcept {
  if (!segment.options.has_timestamps || (wait.options & tcp::kOptTimestamps) == 0) return;
  wait.ts_recent = segment.options.ts_val;
  wait.ts_recent_stamp = now;
  wait.has_ts_recent = true;
}

// Linux tcp_in_window().
bool in_window(const TimeWait& wait, Seq seq, Seq end) noexcept {
  const Seq right = wait.rcv_nxt + wait.rcv_wnd;
  if (seq == wait.rcv_nxt) return true;
  if (end > wait.rcv_nxt && seq < right) return true;
  return seq == right && seq == end;
}

// RFC 9293 3.10.7.4, RFC 6191: a SYN that cannot be of the old connection.
bool begins_anew(const TimeWait& wait, const wire::Segment& segment) noexcept {
  if (!segment.has(wire::kSyn) || segment.has(wire::kRst | wire::kAck)) return false;
  if (segment.seq > wait.rcv_nxt) return true;
  return wait.has_ts_recent && segment.options.has_timestamps &&
         static_cast<std::int32_t>(wait.ts_recent - segment.options.ts_val) < 0;
}

wire::Segment answer_of(const TimeWait& wait, Time now) noexcept {
  wire::Segment segment;
  segment.seq = wait.snd_nxt;
  segment.ack = wait.rcv_nxt;
  segment.flags = wire::kAck;
  segment.window = static_cast<std::uint16_t>(wait.rcv_wnd >> wait.rcv_wscale);
  if ((wait.options & tcp::kOptTimestamps) != 0) {
    const std::int64_t unit_ns = (wait.options & tcp::kOptTsMicroseconds) != 0 ? 1'000 : 1'000'000;
    segment.options.has_timestamps = true;
    segment.options.ts_val = wait.ts_offset + static_cast<std::uint32_t>(now.time_since_epoch().count() / unit_ns);
    segment.options.ts_ecr = wait.ts_recent;
  }
  return segment;
}

}  // namespace

// The connection is over for the program; its flow is kept from the next for a while.
void SoftStack::enter_time_wait(Socket& socket, bool fin_wait_2, Duration length, Time now) {
  if (time_waits_.size() >= config_.tcp_max_tw_buckets) {
    ++stats_.time_wait_overflow;
    return finish(socket);
  }
  const tcp::ControlBlock& cb = socket.conn->cb;
  TimeWait& wait = time_waits_.emplace_front();
  wait.self = time_waits_.begin();
  wait.flow = socket.flow;
  wait.reuse_address = socket.reuse_address;
  wait.snd_nxt = cb.snd_nxt;
  wait.rcv_nxt = cb.rcv_nxt;
  wait.rcv_wnd = tcp::offered_window(cb);
  wait.rcv_wscale = cb.rcv_wscale;
  wait.options = cb.options;
  wait.ts_offset = cb.ts_offset;
  wait.ts_recent = cb.ts_recent;
  wait.has_ts_recent = cb.has(tcp::kTsRecentValid);
  wait.ts_recent_stamp = now;
  wait.last_answer = now - std::chrono::hours(1);
  wait.fin_wait_2 = fin_wait_2;
  leave(socket);
  enter(wait);
  join_port(wait, wait.flow.local_port);
  timers_.set(wait, now + length);
  finish(socket);
}

void SoftStack::drop_time_wait(TimeWait& wait) {
  timers_.cancel(wait);
  leave(wait);
  leave_port(wait);
  time_waits_.erase(wait.self);
}

// A new connection takes the flow over.
void SoftStack::take_over(TimeWait& wait, tcp::InitialNumbers& numbers) {
  numbers.iss = wait.snd_nxt + kBeyondOldWindow;
  ++stats_.time_wait_recycled;
  drop_time_wait(wait);
}

// An answer to what is not in the window, at most one in the interval (RFC 5961 7): data and FIN are exempt, they come
// from no loop of ACKs.
void SoftStack::answer_time_wait(TimeWait& wait, const wire::TcpPacket& packet, Time now) {
  const bool exempt = segment_length(packet) > 0 && !packet.segment.has(wire::kSyn);
  const Duration interval = std::chrono::milliseconds(config_.tcp_invalid_ratelimit_ms);
  if (!exempt) {
    if (now - wait.last_answer < interval) return;
    wait.last_answer = now;
  }
  send_segment(wait.flow, nullptr, answer_of(wait, now), nullptr, 0);
}

// An orphan in FIN-WAIT-2: only the peer's FIN is wanted.
void SoftStack::arrive_in_fin_wait_2(TimeWait& wait, const wire::TcpPacket& packet, Time now) {
  const wire::Segment& segment = packet.segment;
  const Seq end = segment.seq + segment_length(packet);
  if (paws_rejects(wait, segment, now) || !in_window(wait, segment.seq, end)) {
    return answer_time_wait(wait, packet, now);
  }
  if (segment.has(wire::kRst)) return drop_time_wait(wait);
  const bool syn = segment.has(wire::kSyn) && segment.seq >= wait.rcv_nxt;
  if (!syn && (!segment.has(wire::kAck) || end <= wait.rcv_nxt || end == segment.seq)) return;
  if (syn || !segment.has(wire::kFin) || end != wait.rcv_nxt + 1) {
    ++stats_.abort_on_data;
    send_reset_for(packet);
    return drop_time_wait(wait);
  }
  wait.fin_wait_2 = false;
  wait.rcv_nxt = end;
  note_stamp(wait, segment, now);
  timers_.set(wait, now + std::chrono::seconds(config_.tcp_timewait_s));
  send_segment(wait.flow, nullptr, answer_of(wait, now), nullptr, 0);
}

void SoftStack::arrive_at_time_wait(TimeWait& wait, const wire::TcpPacket& packet, Time now) {
  if (wait.fin_wait_2) return arrive_in_fin_wait_2(wait, packet, now);
  const wire::Segment& segment = packet.segment;
  const bool too_old = paws_rejects(wait, segment, now);
  const Duration length = std::chrono::seconds(config_.tcp_timewait_s);
  const bool empty = segment_length(packet) == 0;
  if (!too_old && segment.seq == wait.rcv_nxt && (empty || segment.has(wire::kRst))) {
    if (segment.has(wire::kRst)) {
      if (config_.tcp_rfc1337) return;
      ++stats_.time_wait_killed;  // RFC 1337's hazard, as Linux by default
      return drop_time_wait(wait);
    }
    timers_.set(wait, now + length);
    return note_stamp(wait, segment, now);
  }
  if (!too_old && begins_anew(wait, segment)) {
    if (Socket* const listener = find_listener(wait.flow); listener != nullptr) {
      tcp::InitialNumbers numbers = tcp::initial_numbers(secret_, wait.flow, now);
      take_over(wait, numbers);
      return arrive_at_listener(*listener, packet, &numbers, now);
    }
  }
  if (segment.has(wire::kRst)) return;
  if (too_old || segment.has(wire::kAck)) timers_.set(wait, now + length);
  answer_time_wait(wait, packet, now);
}

}  // namespace twinstack::stack
