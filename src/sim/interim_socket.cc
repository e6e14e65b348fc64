// Packets, timers and the program's calls; what the driver does to a socket is in interim_move.cc.
#include "sim/interim_socket.h"

#include <cerrno>

#include <algorithm>

#include "base/assert.h"
#include "wire/build.h"

namespace twinstack::sim {

using kernel::Phase;
using tcp::TcpState;

namespace {

constexpr Duration kFinTimeout = std::chrono::seconds(60);  // Linux tcp_fin_timeout, of a socket that nobody has

}  // namespace

class InterimSocket::Host final : public tcp::Host {
 public:
  explicit Host(InterimSocket& socket) : tcp::Host(socket.counters_), socket_(socket) {}
  std::uint32_t deliver(const Payload& payload) override {
    payload.for_each([this](ByteView piece) { socket_.unread_.append(piece); });
    return payload.size();
  }
  std::uint32_t receive_space() override {
    const std::size_t half = socket_.min_.rcv_buf_bytes / 2;
    return static_cast<std::uint32_t>(half - std::min(half, socket_.unread_.size()));
  }

 private:
  InterimSocket& socket_;
};

InterimSocket::InterimSocket(const tcp::MinTcp& state, FramePool& pool, const std::function<void(Frame)>& send,
                             Time now)
    : min_(state), pool_(pool), send_(send) {
  ASSERT(tcp::install(cb_, state, now).has_value());
  tcp::run_whole_machine(cb_);
  cb_.clear(tcp::kAckOwed | tcp::kAckNow);  // as after a handshake
}

// R20: since a restore Linux takes no acknowledgement older than what it has had acknowledged since.
bool InterimSocket::is_too_old(const wire::Segment& segment) const {
  return is_restored_ && segment.has(wire::kAck) && segment.ack < restored_una_;
}

void InterimSocket::receive(const wire::TcpPacket& packet, Time now) {
  if (dead_ || (phase != Phase::kRunning && phase != Phase::kFrozen)) {
    if (!dead_) ++met_nobody;
    return;
  }
  const wire::Segment& segment = packet.segment;
  if (is_too_old(segment)) return;
  // R16, F2: past the filter the kernel still receives. A reset then leaves nothing that a shell would keep; the peer
  // says it again to the engine.
  if (phase == Phase::kFrozen && segment.has(wire::kRst)) return;
  if (phase == Phase::kFrozen && segment.has(wire::kFin)) owes_late_end_ = true;
  if (orphan_ && !packet.payload.empty() && segment.seq + packet.payload.size() > cb_.rcv_nxt) {
    send_reset();  // as Linux: data for nobody
    fail(ECONNRESET);
    return;
  }
  Host host(*this);
  const Seq una = cb_.snd_una;
  const tcp::Arrival arrival = tcp::on_segment(cb_, segment, packet.payload, host, now);
  take_acknowledged(una);
  if (arrival == tcp::Arrival::kReset) {
    fail(ECONNRESET);
    return;
  }
  transmit(now);
}

// The FIN counts in sequence space and lies in no buffer.
void InterimSocket::take_acknowledged(Seq una_before) { sent_.drop(bytes_between(una_before, cb_.snd_una)); }

void InterimSocket::fail(int error_number) {
  dead_ = true;
  error = error_number;
  sent_.clear();
}

void InterimSocket::on_time(Time now) {
  if (dead_ || (phase != Phase::kRunning && phase != Phase::kFrozen)) return;
  if (orphan_ && tcp::tcp_state(cb_) == TcpState::kFinWait2 && now - orphan_since_ > kFinTimeout) {
    fail(0);
    return;
  }
  Host host(*this);
  if (tcp::on_timer(cb_, host, now) == tcp::TimerVerdict::kToSoftware && phase == Phase::kRunning) {
    fail(ETIMEDOUT);
    return;
  }
  transmit(now);
}

Time InterimSocket::next_deadline(Time now) const {
  if (dead_ || (phase != Phase::kRunning && phase != Phase::kFrozen)) return kNever;
  Time next = tcp::next_deadline(cb_, now);
  if (orphan_ && tcp::tcp_state(cb_) == TcpState::kFinWait2)
    next = std::min(next, orphan_since_ + kFinTimeout + Duration(1));
  return next;
}

void InterimSocket::transmit(Time now) {
  if (dead_) return;
  Host host(*this);
  tcp::SegmentPlan plan;
  while (tcp::poll_transmit(cb_, host, now, plan)) {
    const std::size_t from = plan.payload_bytes == 0 ? 0 : bytes_between(cb_.snd_una, plan.segment.seq);
    send_segment(plan.segment, sent_.view().subspan(from, plan.payload_bytes));
  }
}

void InterimSocket::send_segment(const wire::Segment& segment, ByteView payload) {
  Frame frame = pool_.take(wire::header_bytes(min_.flow, segment) + payload.size());
  const std::uint32_t head =
      wire::write_headers(frame, {}, min_.flow, segment, static_cast<std::uint32_t>(payload.size()));
  wire::InternetSum sum;
  wire::copy_and_sum(std::span(frame).subspan(head), payload, sum);
  wire::fill_checksum(frame, sum);
  send_(std::move(frame));
}

void InterimSocket::send_reset() {
  wire::Segment segment;
  segment.seq = cb_.snd_nxt;
  segment.ack = cb_.rcv_nxt;
  segment.flags = wire::kRst | wire::kAck;
  send_segment(segment, {});
}

Moved InterimSocket::write(ByteView bytes, bool more, Time now) {
  if (error != 0) return -std::exchange(error, 0);
  if (dead_ || cb_.has(tcp::kFinQueued)) return -EPIPE;
  ASSERT(phase == Phase::kRunning);
  const std::size_t room = min_.snd_buf_bytes - std::min<std::size_t>(min_.snd_buf_bytes, sent_.size());
  const std::size_t count = std::min(room, bytes.size());
  if (count == 0) return bytes.empty() ? 0 : -EAGAIN;
  sent_.append(bytes.first(count));
  tcp::on_queued(cb_, static_cast<std::uint32_t>(count), more && count == bytes.size());
  transmit(now);
  return static_cast<Moved>(count);
}

Moved InterimSocket::read(std::span<std::byte> room, Time now) {
  ASSERT(phase == Phase::kRunning || dead_);
  const std::size_t count = std::min(room.size(), unread_.size());
  if (count == 0) {
    if (error != 0) return -std::exchange(error, 0);
    return dead_ || cb_.has(tcp::kFinReceived) ? 0 : -EAGAIN;
  }
  std::copy_n(unread_.view().begin(), count, room.begin());
  unread_.drop(count);
  if (dead_) return static_cast<Moved>(count);
  Host host(*this);
  tcp::on_read(cb_, host, now);
  transmit(now);
  return static_cast<Moved>(count);
}

int InterimSocket::shutdown_send(Time now) {
  if (dead_) return -ENOTCONN;
  if (cb_.has(tcp::kFinQueued)) return 0;
  tcp::on_close(cb_);
  transmit(now);
  return 0;
}

void InterimSocket::set_flags(std::uint16_t flags, Time now) {
  min_.flags = flags;
  if (dead_) return;
  tcp::set_flags(cb_, flags, now);
  transmit(now);
}

unsigned InterimSocket::readiness() const {
  unsigned ready = 0;
  if (!unread_.empty() || dead_ || cb_.has(tcp::kFinReceived)) ready |= kReadable;
  if (dead_ || sent_.size() * 3 < std::size_t{min_.snd_buf_bytes} * 2) ready |= kWritable;
  if (dead_) ready |= kFailed;
  return ready;
}

void InterimSocket::close(Time now) {
  if (dead_) return;
  if (abortive || !unread_.empty()) {
    send_reset();
    fail(ECONNRESET);
    return;
  }
  orphan_ = true;
  orphan_since_ = now;
  (void)shutdown_send(now);
}

bool InterimSocket::is_over(Time /*now*/) const {
  if (dead_) return true;
  const TcpState state = tcp::tcp_state(cb_);
  return orphan_ && (state == TcpState::kTimeWait || state == TcpState::kClosed);
}

SocketView InterimSocket::view() const {
  const bool established = !dead_ && !cb_.has(tcp::kFinQueued | tcp::kFinReceived);
  return {.cb = dead_ || (phase != Phase::kRunning && phase != Phase::kFrozen) ? nullptr : &cb_,
          .phase = phase,
          .filter_on = filter_on,
          .is_established = established,
          .unread_bytes = unread_.size(),
          .send_queue_bytes = sent_.size()};
}

}  // namespace twinstack::sim
