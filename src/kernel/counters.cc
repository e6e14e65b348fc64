// What the kernel has carried of a connection, over all its stays there. TCP_INFO begins anew at each disconnect.
#include <linux/tcp.h>

#include <algorithm>

#include "kernel/linux_kernel_conn.h"
#include "kernel/tcp_info.h"

namespace twinstack::kernel {
namespace {

constexpr std::uint8_t kFinWait2 = 5;  // TCP_FIN_WAIT2 and so on
constexpr std::uint8_t kTimeWait = 6;
constexpr std::uint8_t kCloseWait = 8;
constexpr std::uint8_t kLastAck = 9;
constexpr std::uint8_t kClosing = 11;

bool is_our_fin_acked(std::uint8_t state) { return state == kFinWait2 || state == kTimeWait; }

bool is_peers_fin_here(std::uint8_t state) {
  return state == kCloseWait || state == kLastAck || state == kClosing || state == kTimeWait;
}

}  // namespace

tcp::InfoCounters LinuxKernelConn::past_counters() const noexcept {
  if (phase_ != Phase::kFrozen) return repeated_ack_.in_advance(past_);
  tcp::InfoCounters sum = past_;
  sum += repeated_ack_.without(frozen_counters_);
  return sum;
}

StreamBytes LinuxKernelConn::stream_bytes() {
  StreamBytes bytes = past_stream_;
  const auto add = [&](const tcp::InfoCounters& counted, std::uint32_t in_flight) {
    const tcp::InfoCounters stay = repeated_ack_.without(counted);
    bytes.acked += stay.bytes_acked - acked_control(stay, in_flight);
    bytes.received += stay.bytes_received;
  };
  if (phase_ == Phase::kFrozen) add(frozen_counters_, frozen_.snd_nxt - frozen_.snd_una);
  if (phase_ != Phase::kRunning) return bytes;
  const auto info = read_tcp_info(socket_.get());
  if (!info) return bytes;
  tcp::InfoCounters stay = tcp::take_counters(*info);
  if (is_our_fin_acked(info->tcpi_state) && stay.bytes_acked > 0) --stay.bytes_acked;
  if (is_peers_fin_here(info->tcpi_state) && stay.bytes_received > 0) --stay.bytes_received;
  add(stay, 0);
  return bytes;
}

// The first stay counts our SYN as well, when it was us who opened. With `in_flight` the exact number this is seen in
// any case, with 0 as soon as all is acknowledged.
std::uint64_t LinuxKernelConn::acked_control(const tcp::InfoCounters& stay, std::uint32_t in_flight) const noexcept {
  if (has_left_) return 0;
  return stay.bytes_acked > stay.bytes_sent - stay.bytes_retrans - in_flight ? 1 : 0;
}

// What came after the snapshot is given to the engine, which counts it: see LateBytes. What was sent meanwhile is not.
void LinuxKernelConn::end_stay(const LateBytes& late) noexcept {
  tcp::InfoCounters stay = frozen_counters_;
  if (const auto info = read_tcp_info(socket_.get())) {
    stay = tcp::take_counters(*info);
    const std::uint64_t acked_since = late.snd_una - frozen_.snd_una;
    stay.bytes_acked -= std::min(stay.bytes_acked, acked_since);
    stay.bytes_received -= std::min<std::uint64_t>(stay.bytes_received, late.bytes.size());
  }
  leave(stay, late.snd_nxt - frozen_.snd_una);
}

void LinuxKernelConn::end_stay() noexcept {
  if (phase_ == Phase::kFrozen) leave(frozen_counters_, frozen_.snd_nxt - frozen_.snd_una);
  if (phase_ != Phase::kRunning) return;
  if (const auto info = read_tcp_info(socket_.get())) leave(tcp::take_counters(*info), 0);
}

void LinuxKernelConn::leave(const tcp::InfoCounters& counted, std::uint32_t in_flight) noexcept {
  const tcp::InfoCounters stay = repeated_ack_.without(counted);
  repeated_ack_.end();
  past_ += stay;
  past_stream_.acked += stay.bytes_acked - acked_control(stay, in_flight);
  past_stream_.received += stay.bytes_received;
  has_left_ = true;
}

}  // namespace twinstack::kernel
