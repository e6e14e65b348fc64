#include "flow_state.h"

#include <algorithm>

#include "base/assert.h"

namespace twinstack::conformance {
namespace {

constexpr std::uint32_t kPeerFirstTs = 1000;  // of our peer, milliseconds

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

void FlowState::on_sent(const ReadPacket& packet) noexcept {
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
  if (!segment.has(wire::kSyn)) return;
  host_wscale_ = segment.options.has_window_scale && peer_->window_scale.has_value() ? segment.options.window_scale : 0;
  host_timestamps_ = segment.options.has_timestamps;
  if (!host_known_) host_initial_ = segment.seq;
  host_known_ = true;
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

// As RFC 7323 3.2: on a SYN when the peer offers them, later when both have. A script may say the numbers, or "no-ts".
void FlowState::add_timestamps(const SegmentSpec& spec, wire::Segment& segment, Time now) {
  const bool negotiated = peer_->timestamps && (segment.has(wire::kSyn) || host_timestamps_);
  const bool usual = negotiated && !segment.has(wire::kRst) && (spec.absent & kNoTimestamps) == 0;
  if (!usual && !spec.timestamps.has_value()) return;
  const auto elapsed = std::chrono::duration_cast<std::chrono::milliseconds>(now - *peer_began_).count();
  wire::TcpOptions& options = segment.options;
  options.has_timestamps = true;
  options.ts_val = kPeerFirstTs + static_cast<std::uint32_t>(elapsed);
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
