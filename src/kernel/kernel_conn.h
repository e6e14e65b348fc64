// KernelConn: one connection as the software stack keeps it (CONNT of the founding document), with the means to take
// its state out (freeze), to hold its place while the engine serves it (park), and to bring it back (restore, release).
// The driver alone calls it; the socket layer never does. `LinuxKernelConn` stands on the kernel's own socket; a
// portable stack can stand behind the same interface.
//
// Phases, and the call that leads on:
//
//   kRunning --freeze()--> kFrozen --park()--> kParked --restore()--> kRestored --release()--> kRunning
//      ^---------thaw()-------'                                 ^
//                          (park or restore failed midway) kGap -'restore() again
//
// Threads: one at a time per object; different objects may be used from different threads at once.
// Blocking: no call blocks. Memory: freeze() allocates nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "tcp/info_counters.h"
#include "tcp/min_tcp.h"
#include "wire/flow.h"

namespace twinstack::kernel {

// Why a connection may not move now. The text is what `twinstack ls` prints.
enum class Reason : std::uint8_t {
  kNone,
  kNotTcp,             // not a TCP socket over IP
  kMptcp,              // Multipath TCP
  kNotEstablished,     // any state but ESTABLISHED, or a FIN or an error waits
  kRepairOn,           // somebody else works on this socket in repair mode
  kUrgentData,         // urgent data is pending or its mark lies in the unread bytes
  kUlp,                // kTLS or another upper-layer protocol is attached
  kMd5,                // TCP MD5 signatures
  kAo,                 // TCP authentication option
  kZerocopy,           // SO_ZEROCOPY is on: completions may be outstanding
  kErrorQueue,         // an error or a message in the error queue waits
  kTimestamping,       // SO_TIMESTAMPING, SO_TIMESTAMP or SO_TIMESTAMPNS is on: control data, the error queue
  kControlData,        // TCP_INQ is on: control data with every recvmsg()
  kLowWater,           // SO_RCVLOWAT above 1, which the engine does not wait for
  kIpOptions,          // IPv4 options or IPv6 extension headers are sent
  kMinHops,            // IP_MINTTL or IPV6_MINHOPCOUNT: the engine does not look at hop limits
  kTransparent,        // IP_TRANSPARENT: the local address is not ours
  kSocketFilter,       // the program attached a filter of its own, which ours would replace
  kPacing,             // SO_MAX_PACING_RATE is set
  kCongestionControl,  // a congestion control that the engine has no like of
  kReceiveQueueLimit,  // more unread bytes than may travel
  kSendQueueLimit,     // more unacknowledged and unsent bytes than may travel
  kOutOfOrder,         // out-of-order data is (or may be) held by the kernel
  kLossRecovery,       // the kernel is repairing a loss
  kLoopback,           // both ends are on this host
  kNoRoute,            // no route, or one that does not leave through Ethernet (RouteTable)
};

// "urgent data is pending", in words for the user.
[[nodiscard]] std::string_view reason_text(Reason reason) noexcept;
// "urgent-data": stable, for JSON and filters.
[[nodiscard]] std::string_view reason_name(Reason reason) noexcept;

struct Limits {
  std::uint32_t receive_queue_bytes = 1U << 20;  // unread bytes that may travel
  std::uint32_t send_queue_bytes = 4U << 20;     // unacknowledged + unsent bytes that may travel
  bool allow_loss_recovery = false;  // also connections that repair a loss: their SACK scoreboard does not travel
  // Names of congestion controls whose connections may move.
  std::vector<std::string> congestion_controls = {"cubic", "reno", "bbr", "dctcp"};
};

struct QueueSizes {
  std::uint32_t unread_bytes = 0;
  std::uint32_t send_bytes = 0;  // unacknowledged and unsent
};

// Room of the caller for the queues of a snapshot. Reserve before the freeze: the byte limits of Limits plus 64 KB
// suffice. Each must exceed its queue by at least a byte.
struct QueueRoom {
  std::span<std::byte> receive;
  std::span<std::byte> send;
};

// What crosses to the engine. The views lie in the caller's QueueRoom, `unsent` right behind `unacked`; not at its
// start.
struct Snapshot {
  tcp::MinTcp min;
  std::span<const std::byte> unread;   // [copied_seq, rcv_nxt)
  std::span<const std::byte> unacked;  // [snd_una, snd_nxt)
  std::span<const std::byte> unsent;   // [snd_nxt, write_seq)
  Time stamped_at{};                   // when min.ts_val was the clock's value
};

// What the kernel took in after the snapshot, by packets that were already past the filter.
struct LateBytes {
  std::uint32_t first_seq = 0;       // of `bytes`: rcv_nxt of the snapshot
  std::span<const std::byte> bytes;  // acknowledged to the peer; lies in the caller's room; mostly empty
  bool fin = false;                  // behind them, acknowledged as well
  // As the kernel had them at last. Both may lie beyond those of the snapshot: a packet that was past the filter may
  // have acknowledged data and let more out. What lies before snd_nxt must count as sent, or its ACKs are discarded.
  std::uint32_t snd_una = 0;
  std::uint32_t snd_nxt = 0;
};

// The queues that go back into the kernel, as far as they are not read or written elsewhere.
struct RestoreQueues {
  std::span<const std::byte> unread;   // [copied_seq, rcv_nxt) of the MinTcp
  std::span<const std::byte> unacked;  // [snd_una, snd_nxt) of the MinTcp
  // So many at the front of `unacked` the peer has acknowledged already: a segment of their own, which the caller is
  // about to acknowledge once more, so that the kernel measures a round trip. They count once. Should the
  // acknowledgement not come, freeze() leaves them out.
  std::uint32_t acked_bytes = 0;
};

// Bytes of the stream, without SYN and FIN.
struct StreamBytes {
  std::uint64_t acked = 0;
  std::uint64_t received = 0;
};

struct RestoreReport {
  bool congestion_restored = false;  // cwnd and ssthresh are what MinTcp says
};

struct ReleaseReport {
  std::size_t unsent_taken_bytes = 0;  // of the bytes given; the rest must be written before anything newer
  int socket_error = 0;  // errno that writing took off the socket (ECONNRESET ...): the program must be told, once
};

// What a route lookup for the connection needs beside its addresses.
struct RouteHints {
  std::uint32_t scope_id = 0;         // interface index of a link-local address
  std::uint32_t mark = 0;             // SO_MARK
  std::uint32_t bound_interface = 0;  // SO_BINDTOIFINDEX
};

enum class Phase : std::uint8_t { kRunning, kFrozen, kParked, kGap, kRestored };

class KernelConn {
 public:
  KernelConn() = default;
  KernelConn(const KernelConn&) = delete;
  KernelConn& operator=(const KernelConn&) = delete;
  virtual ~KernelConn() = default;

  [[nodiscard]] virtual std::uint64_t cookie() const noexcept = 0;        // SO_COOKIE: the kernel connection id
  [[nodiscard]] virtual std::uint64_t netns_cookie() const noexcept = 0;  // SO_NETNS_COOKIE
  [[nodiscard]] virtual const FlowKey& flow() const noexcept = 0;
  [[nodiscard]] virtual int fd() const noexcept = 0;  // owned by this object
  [[nodiscard]] virtual Phase phase() const noexcept = 0;

  // May it move now? Error kNotEligible says why (reason() as well). Also reads what the program has set, which
  // freeze() does not read again: it comes before every freeze(), and the caller sees to it that no option was set in
  // between. What peer and program can change otherwise, freeze() checks again.
  virtual Result<> check_eligible(const Limits& limits) = 0;
  // As the last check_eligible() found them.
  [[nodiscard]] virtual QueueSizes checked_queues() const noexcept = 0;
  // Of the last check_eligible() or freeze() that said kNotEligible; kNone after one that did not.
  [[nodiscard]] virtual Reason reason() const noexcept = 0;

  // From here packets that reach the stack are not processed but handed to the late-packet ring. Idempotent.
  virtual Result<> attach_late_filter() = 0;
  virtual Result<> detach_late_filter() = 0;

  // Stops the kernel's sending of new data and takes the snapshot. Any error leaves the connection as it was but for
  // what thaw() names (the filter stays): kNotEligible when something came up since the check, or a queue exceeds the
  // limits of the check; kNoResource when it exceeds the room. REQUIRES: phase kRunning, check_eligible() before, late
  // filter attached.
  virtual Result<Snapshot> freeze(const QueueRoom& room) = 0;
  // Undoes freeze(): the connection runs in the kernel as before, the filter is gone. What may differ: the congestion
  // control starts afresh with the window that it had (R19), and unsent bytes may count as sent until a timer of the
  // kernel repairs that (A3). Packets that the filter caught
  // meanwhile are the caller's to inject. REQUIRES: phase kFrozen.
  virtual Result<> thaw() = 0;

  // The place of the connection is held by an empty shell: ports, descriptor, cookie, epoll registrations. Off the
  // critical path: after the engine runs, and after wait_grace_period(). kBroken: the kernel took bytes in that it no
  // longer has; the connection must be reset. Any other error: phase kFrozen (nothing done) or kGap (closed silently;
  // restore() works). REQUIRES: phase kFrozen, `room` at least the receive room of the freeze.
  virtual Result<LateBytes> park(std::span<std::byte> room) = 0;

  // Puts the state back, held: nothing is sent and, with the filter on, nothing is received. On error phase kGap, and
  // restore() may be called again. REQUIRES: phase kParked or kGap.
  virtual Result<RestoreReport> restore(const tcp::MinTcp& min, const RestoreQueues& queues) = 0;
  // Lets the restored connection run: sending allowed, a window probe to the peer when `probe`, `unsent` written as far
  // as it fits, filter off. On error the phase is kRestored (nothing done) or kRunning (the connection must be reset).
  // REQUIRES: phase kRestored.
  virtual Result<ReleaseReport> release(std::span<const std::byte> unsent, bool probe = true) = 0;

  // The peer has been silent for as long as the program lets it: the connection ends with ETIMEDOUT at the kernel's
  // next timer, a retransmission timeout or two seconds of keepalive from now, unless the peer is heard of (expiry.h).
  // REQUIRES: phase kRunning.
  virtual Result<> expire() = 0;
  // So many packets of at most one page are injected next: what they take of a buffer that the program has fixed is
  // lent to it (receive_room.h). Refused: some may be dropped, and the peer sends them again. REQUIRES: not parked.
  virtual Result<> make_room(std::uint32_t /*packets*/) { return {}; }
  // Takes back what a return has put on the socket for a while: expire() when the peer was heard of since or
  // `in_any_case`, make_room() when the program has read and the window is its own buffer's again. True: nothing is
  // left of it. The caller asks now and then until then. REQUIRES: phase kRunning.
  virtual bool settle(bool in_any_case) = 0;
  [[nodiscard]] virtual bool is_settled() const noexcept = 0;

  // Running, with no filter of ours on: as a failed offload leaves it, unless a holder of the descriptor interfered.
  [[nodiscard]] virtual bool is_untouched() const noexcept { return phase() == Phase::kRunning; }
  // As of the last check.
  [[nodiscard]] virtual RouteHints route_hints() const noexcept { return {}; }
  // The driver's reference goes, after the program's: the last close must neither linger nor, when the program left
  // `unread` bytes that are not in the kernel's queue, be taken for an orderly one.
  virtual void prepare_close(bool /*unread*/) noexcept {}

  // Ends a connection whose stream cannot be kept: with a RST to its peer, or in silence when somebody has pointed the
  // socket elsewhere meanwhile. In any phase.
  virtual void reset() noexcept = 0;

  // What TCP_INFO had counted in the stays in the kernel that have ended; a freeze ends one, and its thaw undoes that.
  // Exact from the park on: until then what happens past the freeze is missing.
  [[nodiscard]] virtual tcp::InfoCounters past_counters() const noexcept = 0;

  // Our TSval at this instant, or up to one unit less. REQUIRES: a connection with timestamps.
  virtual Result<std::uint32_t> timestamp_clock() = 0;

  // The kernel's rcv_nxt now. REQUIRES: phase is not kRunning.
  virtual Result<std::uint32_t> rcv_queue_seq() = 0;
  // Somebody wrote to or received on the parked shell past us: its sequence numbers are not those that park() set.
  // REQUIRES: phase kParked.
  virtual Result<bool> stray_write_detected() = 0;
};

}  // namespace twinstack::kernel
