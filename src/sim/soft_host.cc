#include "sim/soft_host.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "base/assert.h"
#include "wire/build.h"

namespace twinstack::sim {
namespace {

constexpr std::size_t kLateRingPackets = 4096;
constexpr std::uint32_t kBacklog = 64;

stack::Family family_of(bool v6) { return v6 ? stack::Family::kV6 : stack::Family::kV4; }

}  // namespace

// The driver's handle: SoftKernelConn, and what SoftHost must know of it.
class SoftHostConn final : public kernel::KernelConn {
 public:
  SoftHostConn(SoftHost& host, SocketId id, MoveFaults& faults)
      : host_(host), id_(id), faults_(faults), inner_(host.stack_, id, [&host] { return host.now_; }) {
    host_.handles_[id_] = &inner_;
  }
  ~SoftHostConn() override {
    host_.handles_.erase(id_);
    host_.filtered_.erase(inner_.flow());
  }

  [[nodiscard]] std::uint64_t cookie() const noexcept override { return inner_.cookie(); }
  [[nodiscard]] std::uint64_t netns_cookie() const noexcept override { return inner_.netns_cookie(); }
  [[nodiscard]] const FlowKey& flow() const noexcept override { return inner_.flow(); }
  [[nodiscard]] int fd() const noexcept override { return inner_.fd(); }
  [[nodiscard]] kernel::Phase phase() const noexcept override { return inner_.phase(); }
  [[nodiscard]] bool is_untouched() const noexcept override {
    return inner_.phase() == kernel::Phase::kRunning && !host_.filtered_.contains(inner_.flow());
  }
  Result<> check_eligible(const kernel::Limits& limits) override { return inner_.check_eligible(limits); }
  [[nodiscard]] kernel::QueueSizes checked_queues() const noexcept override { return inner_.checked_queues(); }
  [[nodiscard]] kernel::Reason reason() const noexcept override { return inner_.reason(); }
  Result<> attach_late_filter() override {
    auto done = inner_.attach_late_filter();
    if (done) host_.filtered_[inner_.flow()] = this;
    return done;
  }
  Result<> detach_late_filter() override {
    inner_.fail.detach = faults_.meets(faults_.detach, EventKind::kFailDetach) ? 1 : 0;
    auto done = inner_.detach_late_filter();
    note_taken_back(done.has_value());
    return done;
  }
  Result<kernel::Snapshot> freeze(const kernel::QueueRoom& room) override {
    inner_.quirks.stale_bytes = static_cast<std::uint16_t>(host_.rng_.below(4) == 0 ? host_.rng_.below(3000) : 0);
    inner_.quirks.opens_after_snapshot = host_.rng_.below(8) == 0;
    inner_.quirks.marks_unsent = host_.rng_.below(4) == 0;
    inner_.quirks.loses_delayed_ack = host_.owes_ack(id_) && faults_.meets(faults_.lose_ack, EventKind::kLoseAck);
    return inner_.freeze(room);
  }
  Result<> thaw() override {
    inner_.fail.thaw = faults_.meets(faults_.thaw, EventKind::kFailThaw) ? 1 : 0;
    const bool detaches = inner_.fail.thaw == 0 && !faults_.meets(faults_.detach, EventKind::kFailDetach);
    inner_.fail.detach = detaches ? 0 : 1;
    auto done = inner_.thaw();
    inner_.fail.detach = 0;
    note_taken_back(done.has_value());
    return done;
  }
  Result<kernel::LateBytes> park(std::span<std::byte> room) override {
    bool purged = false;
    inner_.meanwhile = [this, &purged] { purged = take_in_kept(); };
    auto late = inner_.park(room);
    const bool breaks = !late && late.error().code == ErrorCode::kBroken;
    faults_.reset_cause = breaks && purged ? ResetCause::kPurged : ResetCause::kNone;
    if (late && !late->bytes.empty()) host_.on_late_bytes(id_, late->bytes.size());
    return late;
  }
  Result<kernel::RestoreReport> restore(const tcp::MinTcp& min, const kernel::RestoreQueues& queues) override {
    inner_.fail.restore = faults_.meets(faults_.restore, EventKind::kFailRestore) ? 1 : 0;
    inner_.quirks.restores_congestion = host_.has_congestion_hook_;
    auto restored = inner_.restore(min, queues);
    if (restored && !restored->congestion_restored) host_.on_congestion_forgotten(id_);
    return restored;
  }
  Result<kernel::ReleaseReport> release(std::span<const std::byte> unsent, bool probe) override {
    const bool takes_all = unsent.size() < 2 || !faults_.meets(faults_.part_release, EventKind::kPartRelease);
    if (!takes_all) faults_.reset_cause = ResetCause::kPartReleased;
    inner_.fail.release_takes = takes_all ? SIZE_MAX : unsent.size() / 2;
    auto released = inner_.release(unsent, probe);
    if (released) host_.filtered_.erase(inner_.flow());
    return released;
  }
  void prepare_close(bool unread) noexcept override {
    if (unread) host_.set_abortive(id_, host_.now_);
  }
  void reset() noexcept override {
    host_.on_driver_reset(id_);
    inner_.reset();
    host_.filtered_.erase(inner_.flow());
  }
  [[nodiscard]] tcp::InfoCounters past_counters() const noexcept override { return inner_.past_counters(); }
  Result<> expire() override { return inner_.expire(); }
  bool settle(bool in_any_case) override { return inner_.settle(in_any_case); }
  [[nodiscard]] bool is_settled() const noexcept override { return inner_.is_settled(); }
  Result<std::uint32_t> timestamp_clock() override { return inner_.timestamp_clock(); }
  Result<std::uint32_t> rcv_queue_seq() override { return inner_.rcv_queue_seq(); }
  Result<bool> stray_write_detected() override { return inner_.stray_write_detected(); }

  // Data past the filter that takes its time, until the park, when somebody wants that (EventKind::kPurge). Otherwise
  // false.
  [[nodiscard]] bool keeps(Frame& frame) {
    constexpr std::size_t kMost = 2;
    constexpr std::size_t kHeaders = 14 + 40 + 40;  // more than an ACK has
    const kernel::Phase phase = inner_.phase();
    const bool may = faults_.purge > 0 && (phase == kernel::Phase::kRunning || phase == kernel::Phase::kFrozen);
    if (!may || kept_.size() >= kMost || frame.size() <= kHeaders) return false;
    kept_.push_back(std::move(frame));
    return true;
  }

 private:
  // True when the socket has acknowledged something of it.
  bool take_in_kept() {
    const stack::Connection* conn = host_.stack_.connection(id_);
    if (conn == nullptr || kept_.empty()) return false;
    const Seq before = conn->cb.rcv_nxt;
    give_kept();
    conn = host_.stack_.connection(id_);
    const bool purges = conn != nullptr && conn->cb.rcv_nxt != before;
    if (purges) (void)faults_.meets(faults_.purge, EventKind::kPurge);
    return purges;
  }
  void give_kept() {
    for (Frame& frame : std::exchange(kept_, {})) {
      host_.stack_.on_packet_past_filter(ByteView(frame).subspan(wire::kEthernetBytes), host_.now_);
      host_.pool_.give(std::move(frame));
    }
  }
  void note_taken_back(bool done) {
    if (done) {
      host_.filtered_.erase(inner_.flow());
      give_kept();
      if (inner_.phase() == kernel::Phase::kRunning) faults_.reset_cause = ResetCause::kNone;
    } else if (!is_untouched()) {
      faults_.reset_cause = ResetCause::kNotTakenBack;
    }
  }

  SoftHost& host_;
  SocketId id_;
  MoveFaults& faults_;
  std::vector<Frame> kept_;
  stack::SoftKernelConn inner_;
};

SoftHost::SoftHost(stack::Config config, FramePool& pool, std::function<void(Frame)> send, std::uint64_t seed)
    : config_(std::move(config)), pool_(pool), send_(std::move(send)), rng_(seed), stack_(config_, *this, this) {}

SoftHost::~SoftHost() = default;

std::unique_ptr<kernel::KernelConn> SoftHost::kernel_conn(SocketId socket, MoveFaults& faults) {
  return std::make_unique<SoftHostConn>(*this, socket, faults);
}

// ---- Packets

void SoftHost::transmit(ByteView packet) {
  Frame frame = pool_.take(wire::kEthernetBytes + packet.size());
  std::fill_n(frame.begin(), wire::kEthernetBytes, std::byte{0});
  const bool v4 = (packet[0] >> 4) == std::byte{4};
  frame[12] = std::byte{static_cast<unsigned char>(v4 ? 0x08 : 0x86)};
  frame[13] = std::byte{static_cast<unsigned char>(v4 ? 0x00 : 0xdd)};
  std::memcpy(frame.data() + wire::kEthernetBytes, packet.data(), packet.size());
  send_(std::move(frame));
}

void SoftHost::wake(stack::SocketId id, std::uint32_t /*events*/) {
  if (std::ranges::find(listeners_, id) != listeners_.end())
    accept_ready_ = true;
  else
    on_ready(id);
}

// The filter stands before the socket; what has passed it, and waits in the softirq queue, is not asked again.
void SoftHost::receive(Frame frame, Time now) {
  advance(now);
  FrameHead head;
  if (frame.size() <= wire::kEthernetBytes) return;
  const auto filter = read_head(frame, head) ? filtered_.find(head.flow) : filtered_.end();
  const bool is_filtered = filter != filtered_.end();
  if (is_filtered && filter->second->keeps(frame)) return;
  constexpr auto kLongest = static_cast<std::uint32_t>(kLongestSoftirq.count());
  const Duration lag(!is_filtered && rng_.below(8) == 0 ? rng_.below(kLongest) : 0);
  if (is_filtered || (lag == Duration(0) && softirq_.empty())) {
    stack_.on_ip_packet(ByteView(frame).subspan(wire::kEthernetBytes), now_);
    if (is_filtered) take_late();
    pool_.give(std::move(frame));
    return;
  }
  const Time due = std::max(now_ + lag, softirq_.empty() ? now_ : softirq_.back().due);
  softirq_.push_back({.frame = std::move(frame), .due = due});
}

void SoftHost::take_late() {
  for (stack::LatePacket& packet : stack_.take_late_packets()) {
    if (late_.is_full || late_.packets.size() >= kLateRingPackets)
      ++late_.dropped;
    else
      late_.packets.push_back(std::move(packet));
  }
}

void SoftHost::on_time(Time now) {
  advance(now);
  while (!softirq_.empty() && softirq_.front().due <= now_) {
    Frame frame = std::move(softirq_.front().frame);
    softirq_.pop_front();
    FrameHead head;
    const ByteView packet = ByteView(frame).subspan(wire::kEthernetBytes);
    if (read_head(frame, head))
      stack_.on_packet_past_filter(packet, now_);
    else
      stack_.on_ip_packet(packet, now_);
    pool_.give(std::move(frame));
  }
  if (stack_.next_deadline() <= now_) stack_.on_timer(now_);
}

Time SoftHost::next_deadline() {
  const Time next = stack_.next_deadline();
  return softirq_.empty() ? next : std::min(next, softirq_.front().due);
}

// As late.bpf.c lays it out: IP header, then TCP.
Result<std::size_t> SoftHost::LateRing::poll(const std::function<void(const kernel::LatePacket&)>& callback) {
  std::size_t taken = 0;
  for (; !packets.empty(); ++taken) {
    const stack::LatePacket packet = std::move(packets.front());
    packets.pop_front();
    const bool v4 = (packet.bytes[0] >> 4) == std::byte{4};
    const std::size_t header_bytes = v4 ? (std::to_integer<std::size_t>(packet.bytes[0]) & 0xf) * 4 : 40;
    const ByteView whole(packet.bytes);
    callback({.cookie = packet.cookie, .ip_header = whole.first(header_bytes), .tcp = whole.subspan(header_bytes)});
  }
  return taken;
}

bool SoftHost::owes_ack(SocketId socket) const {
  const stack::Connection* conn = stack_.connection(socket);
  return conn != nullptr && tcp::owes_ack(conn->cb);
}

// ---- Sockets

SocketId SoftHost::listen(std::uint16_t port, bool v6, Time now) {
  advance(now);
  const SocketId id = stack_.socket(family_of(v6));
  if (v6) ASSERT(stack_.set_option(id, IPPROTO_IPV6, IPV6_V6ONLY, 1, now_) == 0);
  ASSERT(stack_.bind(id, {.ip = v6 ? stack::any_v6() : stack::any_v4(), .port = port}) == 0);
  ASSERT(stack_.listen(id, kBacklog, now_) == 0);
  listeners_.push_back(id);
  return id;
}

SocketId SoftHost::accept(SocketId listener, FlowKey& flow, Time now) {
  advance(now);
  stack::Address peer;
  const SocketId id = stack_.accept(listener, &peer, now_);
  if (id < 0) return id;
  stack::Address local;
  ASSERT(stack_.local_address(id, local) == 0);
  flow = {.local = local.ip, .remote = peer.ip, .local_port = local.port, .remote_port = peer.port};
  return id;
}

SocketId SoftHost::connect(const FlowKey& flow, Time now) {
  advance(now);
  const SocketId id = stack_.socket(family_of(!flow.is_v4()));
  ASSERT(stack_.bind(id, {.ip = flow.local, .port = flow.local_port}) == 0);
  const int done = stack_.connect(id, {.ip = flow.remote, .port = flow.remote_port}, now_);
  ASSERT(done == 0 || done == -EINPROGRESS);
  return id;
}

int SoftHost::connected(SocketId socket, Time now) {
  advance(now);
  const std::uint32_t events = stack_.poll(socket);
  if ((events & (POLLOUT | POLLERR | POLLHUP)) == 0) return -EAGAIN;
  int failure = 0;
  (void)stack_.get_option(socket, SOL_SOCKET, SO_ERROR, &failure, now_);
  return -failure;
}

Moved SoftHost::send(SocketId socket, std::span<const std::byte> bytes, bool more, Time now) {
  advance(now);
  return stack_.send(socket, bytes, more ? MSG_MORE : 0, now_);
}

Moved SoftHost::receive(SocketId socket, std::span<std::byte> room, Time now) {
  advance(now);
  return stack_.recv(socket, room, 0, now_);
}

int SoftHost::shutdown_send(SocketId socket, Time now) {
  advance(now);
  return stack_.shutdown(socket, SHUT_WR, now_);
}

void SoftHost::set_abortive(SocketId socket, Time now) {
  advance(now);
  const linger how{.l_onoff = 1, .l_linger = 0};
  (void)stack_.set_option(socket, SOL_SOCKET, SO_LINGER, std::as_bytes(std::span(&how, 1)), now_);
}

void SoftHost::close(SocketId socket, Time now) {
  advance(now);
  (void)stack_.close(socket, now_);
}

void SoftHost::set_flags(SocketId socket, std::uint16_t flags, Time now) {
  advance(now);
  (void)stack_.set_option(socket, IPPROTO_TCP, TCP_NODELAY, (flags & tcp::kFlagNoDelay) != 0 ? 1 : 0, now_);
  (void)stack_.set_option(socket, IPPROTO_TCP, TCP_CORK, (flags & tcp::kFlagCork) != 0 ? 1 : 0, now_);
  (void)stack_.set_option(socket, SOL_SOCKET, SO_KEEPALIVE, (flags & tcp::kFlagKeepalive) != 0 ? 1 : 0, now_);
}

SocketView SoftHost::view(SocketId socket) const {
  SocketView view;
  const auto handle = handles_.find(socket);
  if (handle != handles_.end()) view.phase = handle->second->phase();
  const stack::Connection* conn = stack_.connection(socket);
  const stack::State state = stack_.state(socket);
  if (conn == nullptr || state == stack::State::kClosed || state == stack::State::kTimeWait) return view;
  if (view.phase == kernel::Phase::kRunning || view.phase == kernel::Phase::kFrozen) view.cb = &conn->cb;
  view.unread_bytes = static_cast<std::size_t>(std::max<std::int64_t>(stack_.unread_bytes(socket), 0));
  view.send_queue_bytes = static_cast<std::size_t>(std::max<std::int64_t>(stack_.unacknowledged_bytes(socket), 0));
  return view;
}

}  // namespace twinstack::sim
