#include "flow_state.h"

#include <algorithm>
#include <cstdlib>

#include "base/assert.h"

namespace twinstack::conformance {
namespace {

constexpr std::uint32_t kLongestStream = 1U << 26;

std::byte stream_byte(std::uint64_t position, std::uint64_t key) noexcept {
  return static_cast<std::byte>(((position + key) * 2654435761U) >> 13);
}

bool says_options(const SegmentSpec& spec) noexcept {
  return spec.mss.has_value() || spec.window_scale.has_value() || spec.sack_permitted || spec.timestamps.has_value() ||
         spec.absent != 0;
}

template <typename T>
T number(const std::optional<Match>& match) noexcept {
  return static_cast<T>(match->low);
}

std::uint32_t resolve(const RelativeMatch& number, std::uint32_t base) noexcept {
  return static_cast<std::uint32_t>(number.value.low) + (number.raw ? 0 : base);
}

}  // namespace

std::byte host_stream_byte(std::uint64_t position) noexcept { return stream_byte(position, 1); }
std::byte peer_stream_byte(std::uint64_t position) noexcept { return stream_byte(position, 1'000'003); }

bool FlowState::carries(const FlowKey& seen_by_peer) const noexcept {
  return seen_by_peer.local_port == key_.remote_port &&
         (key_.local_port == 0 || seen_by_peer.remote_port == key_.local_port);
}

FlowBase FlowState::host_base() const noexcept {
  return {.sender_initial = host_initial_,
          .receiver_initial = Seq(peer_->initial_seq),
          .sender_first_ts = host_first_ts_,
          .receiver_first_ts = 0};
}

FlowBase FlowState::peer_base() const noexcept {
  return {.sender_initial = Seq(peer_->initial_seq),
          .receiver_initial = host_initial_,
          .sender_first_ts = 0,
          .receiver_first_ts = host_first_ts_};
}

Seq FlowState::host_seq(const RelativeMatch& number) const noexcept {
  return Seq(resolve(number, host_initial_.raw()));
}

void FlowState::on_sent(const ReadPacket& packet) {
  const wire::Segment& segment = packet.head.segment;
  if (key_.local_port == 0) key_.local_port = packet.head.flow.remote_port;
  if (segment.options.has_timestamps) {
    if (!host_timestamps_) host_first_ts_ = segment.options.ts_val;
    host_last_ts_ = segment.options.ts_val;
  }
  const bool flag_counts = segment.has(wire::kSyn) || segment.has(wire::kFin);
  const Seq next = segment.seq + static_cast<std::uint32_t>(packet.payload.size()) + (flag_counts ? 1U : 0U);
  host_next_ = host_known_ ? max(host_next_, next) : next;
  if (segment.has(wire::kAck)) {
    host_ack_ = host_acks_ ? max(host_ack_, segment.ack) : segment.ack;
    host_edge_ = host_acks_ ? max(host_edge_, right_edge(segment)) : right_edge(segment);
    host_acks_ = true;
  }
  if (!segment.has(wire::kSyn) && !segment.has(wire::kRst)) host_data_timestamps_ = segment.options.has_timestamps;
  if (!segment.has(wire::kSyn)) return note_stream(packet);
  host_wscale_ = segment.options.has_window_scale && peer_->window_scale.has_value() ? segment.options.window_scale : 0;
  host_timestamps_ = segment.options.has_timestamps;
  if (!host_known_) host_initial_ = segment.seq;
  host_known_ = true;
}

void FlowState::note_stream(const ReadPacket& packet) {
  const wire::Segment& segment = packet.head.segment;
  if (segment.has(wire::kRst)) return;
  const auto size = static_cast<std::uint32_t>(packet.payload.size());
  if (segment.has(wire::kFin)) host_fin_ = segment.seq + size;
  const std::uint64_t begin = static_cast<std::uint32_t>(segment.seq - host_initial_) - 1;
  if (size == 0 || begin + size > kLongestStream) return;
  if (host_sent_.size() < begin + size) host_sent_.resize(begin + size);
  std::fill_n(host_sent_.begin() + static_cast<std::ptrdiff_t>(begin), size, true);
  while (host_bytes_ < host_sent_.size() && host_sent_[host_bytes_]) ++host_bytes_;
}

bool FlowState::end_sent() const noexcept {
  return host_fin_ == host_initial_ + 1U + static_cast<std::uint32_t>(host_bytes_);
}

bool FlowState::end_acknowledged() const noexcept {
  return std::ranges::any_of(peer_fins_, [&](Seq fin) { return fin + 1U == host_ack_; });
}

std::uint64_t FlowState::bytes_acknowledged() const noexcept {
  const auto numbers = static_cast<std::uint32_t>(host_ack_ - Seq(peer_->initial_seq));
  return numbers - (end_acknowledged() ? 2U : 1U);
}

SegmentSpec FlowState::next_of_peer(std::int64_t bytes, Time now) const {
  const auto exactly = [](std::int64_t number) { return RelativeMatch{.value = Match::exactly(number)}; };
  SegmentSpec spec{.flags = wire::kAck,
                   .seq = exactly(static_cast<std::uint32_t>(host_ack_ - Seq(peer_->initial_seq))),
                   .bytes = Match::exactly(bytes),
                   .ack = exactly(static_cast<std::int64_t>(host_bytes_) + (end_sent() ? 2 : 1)),
                   .window = Match::exactly(65535)};
  if (!peer_->timestamps || !host_timestamps_) return spec;
  const Seq newest = max(Seq(natural_timestamp(now)), Seq(peer_newest_ts_));
  spec.timestamps = {.value = exactly(newest.raw()), .echo = {}};
  return spec;
}

bool FlowState::begins_near(const FlowState& other) const noexcept {
  constexpr std::int64_t kNear = 1 << 20;  // ticks of 64 ns, as Linux has them, the fastest clock that is in use
  const bool both = this != &other && host_known_ && other.host_known_;
  return both && std::abs(std::int64_t{host_initial_ - other.host_initial_}) < kNear;
}

Seq FlowState::right_edge(const wire::Segment& segment) const noexcept {
  const unsigned shift = segment.has(wire::kSyn) ? 0 : host_wscale_;
  return segment.ack + (std::uint32_t{segment.window} << shift);
}

std::string FlowState::taken_back_by(const ReadPacket& packet) const {
  const wire::Segment& segment = packet.head.segment;
  // A window probe lies one before what the peer has acknowledged.
  if (segment.seq > host_next_) return "its sequence number lies beyond what was sent";
  if (host_acks_ && segment.ack < host_ack_) return "it acknowledges less than before";
  const std::uint32_t rounding = (1U << host_wscale_) - 1;
  if (host_acks_ && right_edge(segment) + rounding < host_edge_) return "its window has shrunk";
  const wire::TcpOptions& options = segment.options;
  if (host_data_timestamps_.value_or(options.has_timestamps) != options.has_timestamps) {
    return "timestamps have come or gone";
  }
  if (options.has_timestamps && Seq(options.ts_val) < Seq(host_last_ts_)) return "its clock has gone back";
  return {};
}

bool FlowState::is_host_stream(const ReadPacket& packet) const noexcept {
  std::uint64_t position = static_cast<std::uint32_t>(packet.head.segment.seq - host_initial_) - 1;
  return std::ranges::all_of(packet.payload, [&](std::byte byte) { return byte == host_stream_byte(position++); });
}

wire::Segment FlowState::make(const SegmentSpec& spec, Time now) {
  if (!peer_began_.has_value()) peer_began_ = now;
  wire::Segment segment;
  segment.flags = spec.flags;
  segment.seq = Seq(resolve(spec.seq, peer_->initial_seq));
  if (segment.has(wire::kAck)) segment.ack = Seq(resolve(spec.ack, host_initial_.raw()));
  segment.window = spec.window.has_value() ? number<std::uint16_t>(spec.window) : peer_->window;
  if (spec.urgent.has_value()) segment.urgent = number<std::uint16_t>(spec.urgent);
  segment.ecn = spec.ecn.value_or(wire::Ecn::kNotEct);
  if (segment.has(wire::kSyn) && !says_options(spec)) add_peer_options(segment);
  add_options(spec, segment);
  add_timestamps(spec, segment, now);
  add_sack(spec, segment);
  if (segment.has(wire::kFin)) peer_fins_.push_back(segment.seq + static_cast<std::uint32_t>(spec.bytes.low));
  if (segment.options.has_timestamps) {
    peer_newest_ts_ = max(Seq(peer_newest_ts_), Seq(segment.options.ts_val)).raw();
  }
  return segment;
}

void FlowState::add_peer_options(wire::Segment& segment) const noexcept {
  wire::TcpOptions& options = segment.options;
  options.has_mss = peer_->mss.has_value();
  options.mss = peer_->mss.value_or(0);
  options.has_window_scale = peer_->window_scale.has_value();
  options.window_scale = peer_->window_scale.value_or(0);
  options.sack_permitted = peer_->sack;
}

void FlowState::add_options(const SegmentSpec& spec, wire::Segment& segment) const noexcept {
  wire::TcpOptions& options = segment.options;
  if (spec.mss.has_value()) {
    options.has_mss = true;
    options.mss = number<std::uint16_t>(spec.mss);
  }
  if (spec.window_scale.has_value()) {
    options.has_window_scale = true;
    options.window_scale = number<std::uint8_t>(spec.window_scale);
  }
  options.sack_permitted = options.sack_permitted || spec.sack_permitted;
}

std::uint32_t FlowState::natural_timestamp(Time now) const noexcept {
  const Duration elapsed = now - peer_began_.value_or(now);
  return kPeerFirstTs +
         static_cast<std::uint32_t>(std::chrono::duration_cast<std::chrono::milliseconds>(elapsed).count());
}

// As RFC 7323 3.2: on a SYN when the peer offers them, later when both have. A script may say the numbers, or "no-ts".
void FlowState::add_timestamps(const SegmentSpec& spec, wire::Segment& segment, Time now) {
  const bool negotiated = peer_->timestamps && (segment.has(wire::kSyn) || host_timestamps_);
  const bool usual = negotiated && !segment.has(wire::kRst) && (spec.absent & kNoTimestamps) == 0;
  if (!usual && !spec.timestamps.has_value()) return;
  wire::TcpOptions& options = segment.options;
  options.has_timestamps = true;
  options.ts_val = natural_timestamp(now);
  options.ts_ecr = segment.has(wire::kAck) ? host_last_ts_ : 0;
  if (!spec.timestamps.has_value()) return;
  if (spec.timestamps->value.value.is_exact()) options.ts_val = resolve(spec.timestamps->value, 0);
  if (spec.timestamps->echo.value.is_exact()) options.ts_ecr = resolve(spec.timestamps->echo, host_first_ts_);
}

void FlowState::add_sack(const SegmentSpec& spec, wire::Segment& segment) const noexcept {
  for (const SackRange& range : spec.sack) {
    if (segment.options.sack_count == wire::kMaxSackBlocks) return;
    segment.options.sack[segment.options.sack_count++] = {host_initial_ + static_cast<std::uint32_t>(range.left),
                                                          host_initial_ + static_cast<std::uint32_t>(range.right)};
  }
}

std::vector<std::byte> FlowState::payload(const SegmentSpec& spec) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(spec.bytes.low));
  // The first byte of the stream follows the SYN.
  const bool syn = (spec.flags & wire::kSyn) != 0;
  auto position = static_cast<std::uint64_t>(spec.seq.value.low) - (syn ? 0 : 1);
  for (std::byte& byte : bytes) {
    byte = peer_stream_byte(position++);
    if (spec.foreign_bytes) byte ^= std::byte{0xff};
  }
  return bytes;
}

}  // namespace twinstack::conformance
