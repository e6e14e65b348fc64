#include "sim/interim_stack.h"

#include <algorithm>

#include "base/assert.h"
#include "wire/build.h"
#include "wire/packet.h"

namespace twinstack::sim {
namespace {

constexpr Duration kTimeWait = std::chrono::seconds(60);
constexpr std::size_t kLateRingFrames = 4096;
constexpr std::uint64_t kFirstCookie = 4711;

}  // namespace

// The driver's handle.
class InterimConn final : public kernel::KernelConn {
 public:
  InterimConn(InterimStack& stack, SocketId id) : stack_(stack), id_(id), flow_(socket().flow()) {
    ++socket().references;
  }
  ~InterimConn() override { stack_.drop_reference(id_, stack_.now_); }

  [[nodiscard]] std::uint64_t cookie() const noexcept override { return kFirstCookie + id_; }
  [[nodiscard]] std::uint64_t netns_cookie() const noexcept override { return 1; }
  [[nodiscard]] const FlowKey& flow() const noexcept override { return flow_; }
  [[nodiscard]] int fd() const noexcept override { return -1; }
  [[nodiscard]] kernel::Phase phase() const noexcept override { return socket().phase; }
  [[nodiscard]] bool is_untouched() const noexcept override {
    return socket().phase == kernel::Phase::kRunning && !socket().filter_on;
  }
  Result<> check_eligible(const kernel::Limits& limits) override { return socket().check(limits, reason_); }
  [[nodiscard]] kernel::QueueSizes checked_queues() const noexcept override { return socket().queue_sizes(); }
  [[nodiscard]] kernel::Reason reason() const noexcept override { return reason_; }
  Result<> attach_late_filter() override {
    socket().filter_on = true;
    return {};
  }
  Result<> detach_late_filter() override {
    socket().filter_on = false;
    return {};
  }
  Result<kernel::Snapshot> freeze(const kernel::QueueRoom& room) override {
    past_ += socket().counters();
    auto snapshot = socket().freeze(room, stack_.now_);
    stack_.touched(id_, stack_.now_);
    return snapshot;
  }
  Result<> thaw() override {
    socket().thaw(stack_.now_);
    stack_.touched(id_, stack_.now_);
    return {};
  }
  Result<kernel::LateBytes> park(std::span<std::byte> room) override {
    auto late = socket().park(room);
    stack_.touched(id_, stack_.now_);
    return late;
  }
  Result<kernel::RestoreReport> restore(const tcp::MinTcp& min, const kernel::RestoreQueues& queues) override {
    socket().restore(min, queues, stack_.now_);
    return kernel::RestoreReport{.congestion_restored = true};
  }
  Result<kernel::ReleaseReport> release(std::span<const std::byte> unsent, bool probe) override {
    const auto report = socket().release(unsent, probe, stack_.now_);
    stack_.touched(id_, stack_.now_);
    return report;
  }
  void prepare_close(bool unread) noexcept override { socket().abortive = socket().abortive || unread; }
  void reset() noexcept override {
    socket().reset(stack_.now_);
    stack_.touched(id_, stack_.now_);
  }
  [[nodiscard]] tcp::InfoCounters past_counters() const noexcept override { return past_; }
  Result<std::uint32_t> rcv_queue_seq() override { return 0U; }
  Result<bool> stray_write_detected() override { return false; }

 private:
  [[nodiscard]] InterimSocket& socket() const noexcept { return *stack_.sockets_[id_]; }

  InterimStack& stack_;
  SocketId id_;
  FlowKey flow_;
  kernel::Reason reason_ = kernel::Reason::kNone;
  tcp::InfoCounters past_{};
};

InterimStack::InterimStack(FramePool& pool, std::function<void(Frame)> send, std::uint64_t seed)
    : pool_(pool), send_(std::move(send)), rng_(seed) {}

InterimStack::~InterimStack() = default;

SocketId InterimStack::adopt(const tcp::MinTcp& state, Time now) {
  now_ = std::max(now_, now);
  const auto id = static_cast<SocketId>(sockets_.size());
  sockets_.push_back(std::make_unique<InterimSocket>(state, pool_, send_, now));
  by_flow_[state.flow] = id;
  live_.push_back(id);
  deadline_known_ = false;
  return id;
}

std::unique_ptr<kernel::KernelConn> InterimStack::kernel_conn(SocketId socket) {
  return std::make_unique<InterimConn>(*this, socket);
}

// The filter stands before the socket, the softirq before the filter; what has passed it is not asked again.
void InterimStack::receive(Frame frame, Time now) {
  now_ = std::max(now_, now);
  FrameHead head;
  if (!read_head(frame, head)) {
    pool_.give(std::move(frame));
    return;
  }
  const auto found = by_flow_.find(head.flow);
  if (found != by_flow_.end() && sockets_[found->second]->filter_on) {
    if (late_.is_full || late_.records.size() >= kLateRingFrames)
      ++late_.dropped;
    else
      late_.records.push_back({.cookie = kFirstCookie + found->second, .frame = std::move(frame)});
    return;
  }
  constexpr auto kLongest = static_cast<std::uint32_t>(kLongestSoftirq.count());
  const Duration lag(rng_.below(8) == 0 ? rng_.below(kLongest) : 0);
  if (lag == Duration(0) && softirq_.empty()) {
    process(frame, now_);
    pool_.give(std::move(frame));
    return;
  }
  const Time due = std::max(now_ + lag, softirq_.empty() ? now_ : softirq_.back().due);
  softirq_.push_back({.frame = std::move(frame), .due = due});
}

void InterimStack::process(const Frame& frame, Time now) {
  wire::TcpPacket packet;
  const ByteView part(frame);
  const auto verdict =
      wire::parse_frame({&part, 1}, static_cast<std::uint32_t>(frame.size()), wire::ChecksumMode::kVerify, packet);
  if (verdict != wire::ParseVerdict::kOk) return;
  const auto found = by_flow_.find(packet.flow);
  if (found == by_flow_.end()) {
    answer_nobody(packet, now);
    return;
  }
  InterimSocket& socket = *sockets_[found->second];
  socket.receive(packet, now);
  met_nobody_ += std::exchange(socket.met_nobody, 0);
  touched(found->second, now);
}

void InterimStack::answer(const FlowKey& flow, const wire::Segment& segment) {
  Frame frame = pool_.take(wire::header_bytes(flow, segment));
  wire::write_headers(frame, {}, flow, segment, 0);
  wire::fill_checksum(frame);
  send_(std::move(frame));
}

// TIME-WAIT acknowledges; what belongs to nothing draws a reset (RFC 9293 3.10.7.1).
void InterimStack::answer_nobody(const wire::TcpPacket& packet, Time now) {
  const wire::Segment& segment = packet.segment;
  if (segment.has(wire::kRst)) return;
  wire::Segment reply;
  const auto waits = time_wait_.find(packet.flow);
  if (waits != time_wait_.end() && waits->second.until > now) {
    if (!segment.has(wire::kFin) && packet.payload.empty()) return;
    reply.seq = waits->second.snd_nxt;
    reply.ack = waits->second.rcv_nxt;
    reply.window = waits->second.window;
    reply.flags = wire::kAck;
  } else {
    reply.seq = segment.ack;
    reply.flags = wire::kRst;
  }
  answer(packet.flow, reply);
}

void InterimStack::touched(SocketId socket, Time now) {
  deadline_known_ = false;
  on_ready(socket);
  if (sockets_[socket]->references == 0 && sockets_[socket]->is_over(now)) forget(socket, now);
}

void InterimStack::forget(SocketId id, Time now) {
  const InterimSocket& socket = *sockets_[id];
  const auto known = by_flow_.find(socket.flow());
  if (known == by_flow_.end() || known->second != id) return;
  if (const SocketView view = socket.view(); view.cb != nullptr)
    time_wait_[socket.flow()] = {.snd_nxt = view.cb->snd_nxt,
                                .rcv_nxt = view.cb->rcv_nxt,
                                .window = static_cast<std::uint16_t>(view.cb->rcv_wnd >> view.cb->rcv_wscale),
                                .until = now + kTimeWait};
  by_flow_.erase(known);
  std::erase(live_, id);
}

void InterimStack::drop_reference(SocketId id, Time now) {
  InterimSocket& socket = *sockets_[id];
  ASSERT(socket.references > 0);
  if (--socket.references > 0) return;
  socket.close(now);
  touched(id, now);
}

void InterimStack::on_time(Time now) {
  now_ = std::max(now_, now);
  while (!softirq_.empty() && softirq_.front().due <= now_) {
    Frame frame = std::move(softirq_.front().frame);
    softirq_.pop_front();
    process(frame, now_);
    pool_.give(std::move(frame));
  }
  if (next_deadline(now_) > now_) return;
  for (std::size_t i = 0; i < live_.size(); ++i) {
    const SocketId id = live_[i];
    if (sockets_[id]->next_deadline(now_) > now_) continue;
    sockets_[id]->on_time(now_);
    touched(id, now_);
  }
}

Time InterimStack::next_deadline(Time now) {
  if (!deadline_known_) {
    deadline_ = kNever;
    for (const SocketId id : live_) deadline_ = std::min(deadline_, sockets_[id]->next_deadline(now));
    deadline_known_ = true;
  }
  return softirq_.empty() ? deadline_ : std::min(deadline_, softirq_.front().due);
}

Moved InterimStack::send(SocketId socket, std::span<const std::byte> bytes, bool more, Time now) {
  now_ = std::max(now_, now);
  const Moved done = sockets_[socket]->write(bytes, more, now_);
  deadline_known_ = false;
  return done;
}

Moved InterimStack::receive(SocketId socket, std::span<std::byte> room, Time now) {
  now_ = std::max(now_, now);
  const Moved done = sockets_[socket]->read(room, now_);
  deadline_known_ = false;
  return done;
}

int InterimStack::shutdown_send(SocketId socket, Time now) {
  now_ = std::max(now_, now);
  deadline_known_ = false;
  return sockets_[socket]->shutdown_send(now_);
}

void InterimStack::set_abortive(SocketId socket) { sockets_[socket]->abortive = true; }

void InterimStack::close(SocketId socket, Time now) {
  now_ = std::max(now_, now);
  drop_reference(socket, now_);
}

void InterimStack::set_flags(SocketId socket, std::uint16_t flags, Time now) {
  now_ = std::max(now_, now);
  sockets_[socket]->set_flags(flags, now_);
  deadline_known_ = false;
}

unsigned InterimStack::readiness(SocketId socket) const { return sockets_[socket]->readiness(); }

SocketView InterimStack::view(SocketId socket) const { return sockets_[socket]->view(); }

std::size_t InterimStack::open_sockets() const { return by_flow_.size(); }

// As late.bpf.c lays it out: IP header, then TCP.
Result<std::size_t> InterimStack::LateRing::poll(const std::function<void(const kernel::LatePacket&)>& callback) {
  std::size_t taken = 0;
  while (!records.empty()) {
    const Record record = std::move(records.front());
    records.pop_front();
    FrameHead head;
    ASSERT(read_head(record.frame, head));
    const ByteView ip = ByteView(record.frame).subspan(wire::kEthernetBytes);
    const std::size_t header_bytes = head.tcp_offset - wire::kEthernetBytes;
    callback({.cookie = record.cookie, .ip_header = ip.first(header_bytes), .tcp = ip.subspan(header_bytes)});
    ++taken;
  }
  return taken;
}

}  // namespace twinstack::sim
