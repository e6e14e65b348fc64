// The wire between Linux, the engine and packetdrill. Moves: adopt_moves.cc; the program's calls: adopt_calls.cc.
#include "adopt_form.h"

#include <netinet/in.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/monotonic.h"
#include "kernel/linux_kernel_conn.h"
#include "wire/packet.h"

namespace twinstack::packetdrill {

namespace {

constexpr std::size_t kLateRingBytes = 256U << 10;
// While real time counts: how long to sleep before calls that wait are tried again, as Linux wakes nobody here.
constexpr Duration kRealSlice = std::chrono::milliseconds(2);

Result<wire::TcpPacket> parse(const ByteView& packet) {
  wire::TcpPacket parsed;
  const auto verdict = wire::parse_ip_packet({&packet, 1}, static_cast<std::uint32_t>(packet.size()),
                                             wire::ChecksumMode::kAcceptPartial, parsed);
  if (verdict == wire::ParseVerdict::kOk) return parsed;
  return error(ErrorCode::kInvalid, std::string(wire::name(verdict)));
}

}  // namespace

Result<std::unique_ptr<Form>> AdoptForm::make(const Flags& flags, const VirtualClock& clock, Observer& observer) {
  ASSIGN_OR_RETURN(Tun tun, Tun::open(flags));
  ASSIGN_OR_RETURN(Egress egress, Egress::open(kTunName));
  ASSIGN_OR_RETURN(auto filter, kernel::LateFilter::load(kLateRingBytes));
  auto hook = kernel::CongestionHook::load();
  std::unique_ptr<AdoptForm> made(new AdoptForm(flags, clock, observer, std::move(tun), std::move(egress),
                                                std::move(filter), hook ? std::move(*hook) : nullptr));
  TRY(made->make_engine());
  return std::unique_ptr<Form>(std::move(made));
}

AdoptForm::AdoptForm(const Flags& flags, const VirtualClock& clock, Observer& observer, Tun tun, Egress egress,
                     std::unique_ptr<kernel::LateFilter> filter, std::unique_ptr<kernel::CongestionHook> hook)
    : clock_(clock),
      observer_(observer),
      flags_(flags),
      tun_(std::move(tun)),
      egress_(std::move(egress)),
      filter_(std::move(filter)),
      hook_(std::move(hook)) {}

Result<> AdoptForm::make_engine() {
  moving::EngineSide::Hooks hooks{
      .to_kernel = [this](ByteView packet) { to_linux(packet); },
      .to_wire = [this](ByteView packet) { observer_.packet_out(packet); },
      .wake = [this](int fd, std::uint32_t events) { observer_.wake(fd, events); },
      .send_limits = [this](const moving::EngineConn& conn) { return send_limits(sockets_[conn.fd()]); },
      .to_software = [this](moving::EngineConn& conn,
                            const std::string& cause) { bring_back(sockets_[conn.fd()], cause, true); },
      .deliver_late = [this] { deliver_late(); },
      .takes_more = [this] { return egress_.takes_more(); }};
  ASSIGN_OR_RETURN(engine_,
                   moving::EngineSide::make({.mtu = flags_.mtu, .checksum = wire::ChecksumMode::kAcceptPartial},
                                            clock_.now(), std::move(hooks)));
  return {};
}

AdoptForm::~AdoptForm() = default;

// ---- Who gets a packet

void AdoptForm::packet_in(ByteView ip_packet) {
  const auto packet = parse(ip_packet);
  if (packet && engine_->steers(packet->flow)) {
    engine_->packet_in(ip_packet);
    return work();
  }
  if (packet) note_received(*packet);
  to_linux(ip_packet);
  look_at_connecting();
}

void AdoptForm::to_linux(ByteView packet) {
  linux_is_busy_ = true;
  (void)tun_.write(packet);  // refused: as a bad packet is dropped
  from_linux();
}

void AdoptForm::from_linux() {
  note_time();
  std::vector<std::byte> packet;
  while (tun_.read(packet)) {
    note_sent(packet);
    observer_.packet_out(packet);
  }
}

void AdoptForm::work(bool swallow_ack) {
  engine_->work(swallow_ack);
  from_linux();
}

void AdoptForm::deliver_late() {
  (void)filter_->poll([this](const kernel::LatePacket& late) {
    std::vector<std::byte> packet(late.ip_header.begin(), late.ip_header.end());
    packet.insert(packet.end(), late.tcp.begin(), late.tcp.end());
    engine_->give_late(late.cookie, packet);
  });
}

// ---- What the handshake on the wire tells

AdoptForm::Seen& AdoptForm::seen(const FlowKey& flow) {
  const auto found = std::ranges::find(seen_, flow, &Seen::flow);
  if (found != seen_.end()) return *found;
  seen_.emplace_back().flow = flow;
  return seen_.back();
}

void AdoptForm::note_sent(ByteView packet) {
  const auto parsed = parse(packet);
  if (!parsed) return;
  Seen& flow = seen(reversed(parsed->flow));
  if (parsed->segment.has(wire::kSyn)) {
    flow.repeated = std::exchange(flow.asked, true);
    flow.syn_sent = clock_.now();
  }
  if (!parsed->segment.options.has_timestamps) return;
  flow.times.last_ts_val = parsed->segment.options.ts_val;
  flow.times.last_sent = clock_.now();
}

void AdoptForm::note_received(const wire::TcpPacket& packet) {
  Seen& flow = seen(packet.flow);
  if (!flow.asked || flow.repeated || flow.times.round_trip || !packet.segment.has(wire::kAck)) return;
  flow.times.round_trip = clock_.now() - flow.syn_sent;
}

// ---- Time

Time AdoptForm::next_deadline() { return engine_->next_deadline(); }

void AdoptForm::on_time() {
  work();
  look_at_connecting();
}

Duration AdoptForm::pass(Duration span) {
  if (!linux_is_busy_) return span;
  const Time begun = monotonic_now();
  const Duration slice = std::min(span, kRealSlice);
  tun_.wait(slice);
  // A sleep that lasted longer than it should does not count: virtual time is exact.
  return std::clamp<Duration>(monotonic_now() - begun, Duration::zero(), slice);
}

void AdoptForm::note_time() {
  timespec ts{};
  ::clock_gettime(CLOCK_REALTIME, &ts);
  times_.push_back({Time(std::chrono::seconds(ts.tv_sec) + std::chrono::nanoseconds(ts.tv_nsec)), clock_.now()});
}

// What Linux has stamped at `real` happened before the next time that was noted: that is, at its virtual time.
Time AdoptForm::to_virtual(Time real) const {
  const auto next = std::ranges::lower_bound(times_, real, {}, &TimePair::real);
  return next == times_.end() ? clock_.now() : next->virtual_time;
}

std::string AdoptForm::summary() const {
  std::string line =
      "adopt offloads=" + std::to_string(counts_.offloads) + " uploads=" + std::to_string(counts_.uploads);
  for (const std::string& why : counts_.refusals) line += " stayed=\"" + why + "\"";
  for (const std::string& why : counts_.causes) line += " back=\"" + why + "\"";
  return line;
}

}  // namespace twinstack::packetdrill
