// Freeze and thaw: the state out of the kernel, in as few system calls as will do.
#include <linux/inet_diag.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <string_view>

#include "base/assert.h"
#include "base/monotonic.h"
#include "kernel/linux_kernel_conn.h"
#include "kernel/peek.h"
#include "kernel/repair.h"
#include "kernel/sockopt.h"
#include "kernel/tcp_info.h"
#include "wire/seq.h"
#include "wire/tcp_options.h"

namespace twinstack::kernel {
namespace {

constexpr std::uint32_t kHeaderBytesV4 = 20 + 20;  // IP and TCP without options
constexpr std::uint32_t kHeaderBytesV6 = 40 + 20;
constexpr std::chrono::seconds kLongestLead(10);  // of a stamp over the clock
constexpr int kFlushAckStayInteractive = 2;       // TCP_QUICKACK: bit 0 alone decides what the mode is afterwards

std::uint16_t negotiated(const tcp_info& info) {
  unsigned options = 0;
  if ((info.tcpi_options & TCPI_OPT_TIMESTAMPS) != 0) options |= tcp::kOptTimestamps;
  if ((info.tcpi_options & TCPI_OPT_SACK) != 0) options |= tcp::kOptSack;
  if ((info.tcpi_options & TCPI_OPT_WSCALE) != 0) options |= tcp::kOptWindowScale;
  if ((info.tcpi_options & TCPI_OPT_ECN) != 0) options |= tcp::kOptEcn;
  return static_cast<std::uint16_t>(options);
}

void take_info(const tcp_info& info, tcp::MinTcp& min) {
  min.options = negotiated(info);
  min.advmss = static_cast<std::uint16_t>(info.tcpi_advmss);
  min.snd_wscale = info.tcpi_snd_wscale;
  min.rcv_wscale = info.tcpi_rcv_wscale;
  min.cwnd_segments = info.tcpi_snd_cwnd;
  min.ssthresh_segments = info.tcpi_snd_ssthresh;
  min.reordering_segments = info.tcpi_reordering;
  min.delivery_rate = info.tcpi_delivery_rate;
  min.delivery_app_limited = info.tcpi_delivery_rate_app_limited;
}

// By the path and what the peer takes. Not tcpi_snd_mss: after a restore that allows for timestamps even where none
// were negotiated (the kernel itself sends the right size).
void take_mss(const tcp_info& info, tcp::MinTcp& min) {
  const std::uint32_t headers = min.flow.is_v4() ? kHeaderBytesV4 : kHeaderBytesV6;
  const std::uint32_t path = info.tcpi_pmtu > headers ? info.tcpi_pmtu - headers : 0;
  min.mss = static_cast<std::uint16_t>(std::max(std::min<std::uint32_t>(min.mss_clamp, path), info.tcpi_snd_mss));
}

// R21: what the kernel sends is smaller than path and peer allow, by more than options (S10), and not for the peer's
// small window (Linux tcp_bound_to_half_wnd()): it searches, or goes on with what the engine has found.
void take_mss_found(const tcp_info& info, tcp::MinTcp& min) {
  const std::uint32_t options = (min.options & tcp::kOptTimestamps) != 0 ? wire::kTimestampBytes : 0;
  const std::uint32_t sends = info.tcpi_snd_mss + options;
  const bool for_the_window = info.tcpi_snd_mss >= min.max_window / 2;
  if (sends + wire::kTimestampBytes < min.mss && !for_the_window) min.mss_found = static_cast<std::uint16_t>(sends);
}

// R19, when the hook does not tell: how far a socket that paces may have stamped ahead of its clock. A packet carries
// the time at which its turn came, and each puts the next one's off by its bytes / rate, so what was sent last may lie
// ahead by the largest packet that Linux makes at that rate (tcp_tso_autosize()): no figure of TCP_INFO tells exactly,
// nor whether it paces (with the qdisc fq any congestion control does). Twice that, for a loss probe and for a rate
// that has grown since; bbr's grows by 2.9 in its start-up. (More than this was seen: a rate can grow by much in a
// short round trip.)
std::chrono::microseconds pacing_lead(const tcp_info& info, bool is_bbr) {
  constexpr std::uint64_t kUnlimited = ~std::uint64_t{0};
  constexpr std::uint64_t kMaxPacketBytes = 65536;  // GSO
  constexpr std::uint64_t kJiffyMs = 10;            // of HZ=100
  const std::uint64_t rate = info.tcpi_pacing_rate;
  if (rate == 0 || rate == kUnlimited) return {};
  const std::uint32_t round_trip_shift = info.tcpi_min_rtt == ~0U ? 0 : std::min(info.tcpi_min_rtt >> 9, 31U);
  const std::uint64_t by_rate = (rate >> 10) + (kMaxPacketBytes >> round_trip_shift);
  const std::uint64_t bytes = std::max(std::min(by_rate, kMaxPacketBytes), std::uint64_t{2} * info.tcpi_snd_mss);
  constexpr auto kMostUs = static_cast<std::uint64_t>(std::chrono::microseconds(kLongestLead).count());
  const std::uint64_t lead_us = std::min((is_bbr ? 4 : 2) * bytes * 1'000'000 / rate, kMostUs);
  const std::uint64_t quiet_ms = info.tcpi_last_data_sent > kJiffyMs ? info.tcpi_last_data_sent - kJiffyMs : 0;
  return std::chrono::microseconds(lead_us - std::min(lead_us, quiet_ms * 1000));
}

Result<tcp_repair_window> read_window(int fd) {
  return get_option<tcp_repair_window>(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, "TCP_REPAIR_WINDOW");
}

}  // namespace

Result<Snapshot> LinuxKernelConn::freeze(const QueueRoom& room) {
  ASSERT(phase_ == Phase::kRunning && checked_ && filter_on_);
  const int raw = socket_.get();
  reason_ = Reason::kNone;
  // F5: an ACK that the kernel delays would be lost in the move.
  const int quick = options_.quick_ack != 0 ? 1 : kFlushAckStayInteractive;
  TRY(set_option(raw, IPPROTO_TCP, TCP_QUICKACK, quick, "TCP_QUICKACK"));
  TRY(repair::set_mode(raw, repair::Mode::kOn));
  auto snapshot = take_snapshot(room);
  if (!snapshot.has_value()) {
    TRY(leave_repair());
    return snapshot;
  }
  frozen_ = snapshot->min;
  phase_ = Phase::kFrozen;
  checked_ = false;
  return snapshot;
}

Result<Snapshot> LinuxKernelConn::take_snapshot(const QueueRoom& room) {
  const int raw = socket_.get();
  // P2: repair mode lets the socket be bound to ports of others, and until it is parked it is not bound by us. What the
  // program has set, and not 0: a listener that is made anew on this port would find it in use.
  TRY(set_option(raw, SOL_SOCKET, SO_REUSEADDR, options_.reuse_address, "SO_REUSEADDR"));
  Snapshot snapshot;
  snapshot.min = template_;
  tcp::MinTcp& min = snapshot.min;
  // With an offset set, peeking would begin there.
  if (options_.peek_offset >= 0) TRY(set_option(raw, SOL_SOCKET, SO_PEEK_OFF, -1, "SO_PEEK_OFF"));
  ASSIGN_OR_RETURN(const tcp_info info, read_tcp_info(raw));
  TRY(check_still_eligible(info));
  take_info(info, min);
  frozen_counters_ = tcp::take_counters(info);
  take_estimates(info, min);
  take_measured_path(min);
  const std::uint64_t acked = restored_.bytes_acked + repeated_ack_.without(frozen_counters_).bytes_acked;
  min.bytes_acked = static_cast<std::uint32_t>(std::min<std::uint64_t>(acked, UINT32_MAX));
  if (template_.mss_clamp == 0) {
    ASSIGN_OR_RETURN(const int clamp, get_option(raw, IPPROTO_TCP, TCP_MAXSEG, "TCP_MAXSEG"));  // S5
    template_.mss_clamp = static_cast<std::uint16_t>(clamp);
    min.mss_clamp = template_.mss_clamp;
  }
  take_mss(info, min);
  ASSIGN_OR_RETURN(snapshot.unread, take_receive_queue(room.receive, min));
  ASSIGN_OR_RETURN(const std::uint32_t queued, queue_bytes(raw, SIOCOUTQ, "SIOCOUTQ"));
  if (queued > limited_.send_queue_bytes) return refuse(Reason::kSendQueueLimit);
  TRY(take_windows_and_close(min));
  take_mss_found(info, min);
  TRY(take_timestamp(info, min));  // after the last segment with data that the window let go
  snapshot.stamped_at = frozen_at_ = monotonic_now();
  ASSIGN_OR_RETURN(const std::span<const std::byte> unsent_and_unacked, take_send_queue(queued, room.send, min));
  const std::uint32_t sent = min.snd_nxt - min.snd_una;
  snapshot.unacked = unsent_and_unacked.first(sent);
  repeated_ack_.leave_out(frozen_counters_, min, snapshot.unacked);
  min.stalled_us = stalled_us(min);
  snapshot.unsent = unsent_and_unacked.subspan(sent);
  return snapshot;
}

// S6. The low bit says whether the clock counts microseconds; it is rounded up, so that our clock never goes back.
Result<> LinuxKernelConn::take_timestamp(const tcp_info& info, tcp::MinTcp& min) {
  if ((min.options & tcp::kOptTimestamps) == 0) return {};
  const int fd = socket_.get();
  const auto told = shared_.congestion != nullptr ? shared_.congestion->stamp_lead(fd, min.congestion.data())
                                                  : error(ErrorCode::kUnsupported, "no hook");
  if (told && *told > kLongestLead)
    return error(ErrorCode::kNotEligible, "SO_MAX_PACING_RATE still holds back what was sent, for more than 10 s");
  const auto lead = told ? std::chrono::ceil<std::chrono::microseconds>(*told)
                         : pacing_lead(info, std::string_view(min.congestion.data()).starts_with("bbr"));
  ASSIGN_OR_RETURN(const std::uint32_t value,
                   get_option<std::uint32_t>(fd, IPPROTO_TCP, TCP_TIMESTAMP, "TCP_TIMESTAMP"));
  if ((value & 1) != 0) {
    min.options |= tcp::kOptTsMicroseconds;
    min.ts_val = value + static_cast<std::uint32_t>(lead.count());
  } else {
    min.ts_val = value + 1 + static_cast<std::uint32_t>(std::chrono::ceil<std::chrono::milliseconds>(lead).count());
  }
  return {};
}

// Since it came back the kernel may have measured nothing but what it was taught (R10): what was known then is better.
void LinuxKernelConn::take_estimates(const tcp_info& info, tcp::MinTcp& min) const {
  min.srtt_us = info.tcpi_rtt;
  min.rttvar_us = info.tcpi_rttvar;
  min.rto_us = info.tcpi_rto;
  min.min_rtt_us = info.tcpi_min_rtt == ~0U ? 0 : info.tcpi_min_rtt;
  const bool measured = info.tcpi_rtt != 0 && (repeated_ack_.bytes() == 0 || !repeated_ack_.is_all(frozen_counters_));
  if (measured || restored_.srtt_us == 0) return;
  min.srtt_us = restored_.srtt_us;
  min.rttvar_us = restored_.rttvar_us;
  min.rto_us = restored_.rto_us;
  min.min_rtt_us = restored_.min_rtt_us;
}

// Before anything else is done to the congestion control. What does not tell begins anew.
void LinuxKernelConn::take_measured_path(tcp::MinTcp& min) const {
  const std::string_view name(min.congestion.data());
  if (name != "bbr" && name != "dctcp") return;
  const auto told = get_option<tcp_cc_info>(socket_.get(), IPPROTO_TCP, TCP_CC_INFO, "TCP_CC_INFO");
  if (!told.has_value()) return;
  if (name == "dctcp") {
    min.measured = {.dctcp_known = told->dctcp.dctcp_enabled,
                    .dctcp_ce_state = told->dctcp.dctcp_ce_state,
                    .dctcp_alpha = told->dctcp.dctcp_alpha};
    return;
  }
  const tcp_bbr_info& bbr = told->bbr;
  min.measured = {.bbr_bandwidth = std::uint64_t{bbr.bbr_bw_hi} << 32 | bbr.bbr_bw_lo,
                  .bbr_min_rtt_us = bbr.bbr_min_rtt,
                  .bbr_pacing_gain = static_cast<std::uint16_t>(bbr.bbr_pacing_gain),
                  .bbr_cwnd_gain = static_cast<std::uint16_t>(bbr.bbr_cwnd_gain)};
  // It has sent nothing since it came back: what was known then is better.
  if (min.measured.bbr_bandwidth == 0) min.measured = restored_.measured;
}

// Linux does not tell since when its timer runs. But what was out at the last return, and is out still, we know.
std::uint32_t LinuxKernelConn::stalled_us(const tcp::MinTcp& min) const {
  if (stalled_since_ == kNever || min.snd_una != restored_.snd_una || min.snd_nxt == min.snd_una) return 0;
  const auto since = std::chrono::duration_cast<std::chrono::microseconds>(monotonic_now() - stalled_since_);
  return static_cast<std::uint32_t>(std::min<std::int64_t>(since.count(), UINT32_MAX));
}

// What may have come up between the check and the filter.
Result<> LinuxKernelConn::check_still_eligible(const tcp_info& info) {
  TRY(check_live_state(info));
  if (info.tcpi_rcv_ooopack != out_of_order_.packets) return refuse(Reason::kOutOfOrder);
  return {};
}

// Peek, end and size belong together: nobody reads, so nothing has come in between when the size is what was peeked.
// When that does not become so, the peek hides bytes that would be lost: behind an urgent mark (S3), or before an
// offset (S12) that a system call past the socket layer has set since the check.
Result<std::span<const std::byte>> LinuxKernelConn::take_receive_queue(std::span<std::byte> room, tcp::MinTcp& min) {
  const int raw = socket_.get();
  TRY(repair::select_queue(raw, repair::Queue::kReceive));
  for (std::optional<std::uint32_t> before;;) {
    ASSIGN_OR_RETURN(const std::size_t bytes, peek_all(raw, room, "the receive queue"));
    ASSIGN_OR_RETURN(const std::uint32_t end, repair::queue_seq(raw));
    ASSIGN_OR_RETURN(const std::uint32_t unread, queue_bytes(raw, SIOCINQ, "SIOCINQ"));
    if (bytes == unread) {
      // `end` counts a FIN that has come in since the state was looked at, the size does not (S1).
      if (has_ended(raw)) return refuse(Reason::kNotEstablished);
      if (unread > limited_.receive_queue_bytes) return refuse(Reason::kReceiveQueueLimit);
      min.rcv_nxt = end;
      min.copied_seq = end - unread;
      return room.first(bytes);
    }
    if (before == end) return refuse(Reason::kUrgentData);
    before = end;
  }
}

// Returns [snd_una, write_seq), of which `waiting` was SIOCOUTQ. The kernel does not trim a segment of which a part was
// acknowledged, so the peek may begin before snd_una; and an ACK that was past the filter may move snd_una on between
// the calls. Counted from the end both are harmless. While the send queue is selected whatever has the kernel send (an
// ACK, its pacing, a packet of its own that has left the device) marks unsent bytes as sent that never leave (A3): what
// has really been sent is read before, when the closed window keeps it from more.
Result<std::span<const std::byte>> LinuxKernelConn::take_send_queue(std::uint32_t waiting, std::span<std::byte> room,
                                                                    tcp::MinTcp& min) {
  const int raw = socket_.get();
  ASSIGN_OR_RETURN(const std::uint32_t unsent, queue_bytes(raw, SIOCOUTQNSD, "SIOCOUTQNSD"));
  TRY(repair::select_queue(raw, repair::Queue::kSend));
  ASSIGN_OR_RETURN(min.write_seq, repair::queue_seq(raw));
  std::size_t peeked = 0;
  if (waiting > 0) {
    ASSIGN_OR_RETURN(peeked, peek_all(raw, room, "the send queue"));
  }
  TRY(repair::select_queue(raw, repair::Queue::kNone));
  const auto bytes = static_cast<std::uint32_t>(std::min<std::size_t>(waiting, peeked));
  min.snd_una = min.write_seq - bytes;
  min.snd_nxt = min.write_seq - std::min(unsent, bytes);
  marked_as_sent_ = 0;
  if (unsent > 0) {
    ASSIGN_OR_RETURN(const std::uint32_t left, queue_bytes(raw, SIOCOUTQNSD, "SIOCOUTQNSD"));
    marked_as_sent_ = unsent - std::min(unsent, left);
  }
  return room.subspan(peeked - bytes, bytes);
}

// R17: pacing, its timers and the loss probe would go on sending until the socket is parked. A closed window keeps them
// from it, and so does, against ACKs that were past the filter, a snd_wl1 that none of them reaches.
Result<> LinuxKernelConn::take_windows_and_close(tcp::MinTcp& min) {
  const int raw = socket_.get();
  ASSIGN_OR_RETURN(tcp_repair_window window, read_window(raw));
  min.snd_wl1 = window.snd_wl1;
  min.snd_wnd = window.snd_wnd;
  min.max_window = window.max_window;
  min.rcv_wnd = window.rcv_wnd;
  min.rcv_wup = window.rcv_wup;
  closed_snd_wnd_ = window.snd_wnd;
  closed_snd_wl1_ = window.snd_wl1;
  window.snd_wnd = 0;
  window.snd_wl1 = closed_to_wl1_ = min.rcv_nxt + window.rcv_wnd;
  TRY(set_option(raw, IPPROTO_TCP, TCP_REPAIR_WINDOW, window, "TCP_REPAIR_WINDOW"));
  window_closed_ = true;
  return {};
}

Result<> LinuxKernelConn::reopen_window() {
  const int raw = socket_.get();
  window_closed_ = false;
  ASSIGN_OR_RETURN(tcp_repair_window window, read_window(raw));
  if (window.snd_wl1 == closed_to_wl1_) window.snd_wnd = closed_snd_wnd_;                  // else a newer one has come
  window.snd_wl1 = min(Seq(closed_snd_wl1_), Seq(window.rcv_wup) + window.rcv_wnd).raw();  // R18
  return set_option(raw, IPPROTO_TCP, TCP_REPAIR_WINDOW, window, "TCP_REPAIR_WINDOW");
}

// Repair off, and what repair mode or the snapshot changed back as it was. No word to the peer, except that a probe
// asks for its window after ours was closed: the answer gets the kernel to send what it has meanwhile not sent.
Result<> LinuxKernelConn::leave_repair() {
  const int raw = socket_.get();
  const bool was_closed = window_closed_;
  if (was_closed) TRY(reopen_window());
  TRY(repair::set_mode(raw, was_closed ? repair::Mode::kOffWithProbe : repair::Mode::kOffSilent));
  if (options_.reuse_address != 0) {
    TRY(set_option(raw, SOL_SOCKET, SO_REUSEADDR, options_.reuse_address, "SO_REUSEADDR"));  // R9
  }
  if (options_.peek_offset >= 0) {
    TRY(set_option(raw, SOL_SOCKET, SO_PEEK_OFF, options_.peek_offset, "SO_PEEK_OFF"));
  }
  return {};
}

Result<> LinuxKernelConn::thaw() {
  ASSERT(phase_ == Phase::kFrozen);
  TRY(leave_repair());
  phase_ = Phase::kRunning;
  return detach_late_filter();
}

}  // namespace twinstack::kernel
