#include "engine_bench_peers.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/assert.h"
#include "wire/build.h"
#include "wire/packet.h"

namespace twinstack::engine::bench {
namespace {

constexpr std::uint32_t kBatch = 32;
// Answers in flight: an ACK comes 40 ms after the answer, as Linux's delayed ones, at a batch in 25 us.
constexpr std::size_t kMostUnacknowledged = std::size_t{1600} * kBatch;

std::uint32_t milliseconds_of(Time now) {
  return static_cast<std::uint32_t>(now.time_since_epoch().count() / 1'000'000);
}

// About the golden section, so that neighbours in time are far apart in memory, and every connection has its turn.
std::uint32_t stride_for(std::uint32_t connections) {
  auto stride = static_cast<std::uint32_t>(0.618 * connections) | 1U;
  while (std::gcd(stride, connections) != 1) ++stride;
  return stride;
}

std::uint32_t number_of(const FlowKey& server) {
  return std::uint32_t{server.remote.bytes[14]} << 16 | server.remote_port;
}

}  // namespace

Peers::Peers(std::uint32_t connections, Acks acks)
    : batch_(std::min(connections, kBatch)),
      stride_(stride_for(connections)),
      acks_(acks),
      rx_memory_(kFrames * kFrameBytes),
      tx_memory_(kFrames * kFrameBytes) {
  peers_.reserve(connections);
  for (std::uint32_t i = 0; i < connections; ++i) peers_.push_back({.seq = i * 3, .ack = i, .answer = i, .seen = i});
  // Half of the connections at most, so that the ACK is never one of its next request's.
  unacknowledged_.assign(std::min<std::size_t>(kMostUnacknowledged, std::size_t{connections / 2 / batch_} * batch_),
                         kNone);
  for (std::size_t i = 0; i < kFrames; ++i)
    views_.push_back(ByteView(rx_memory_).subspan(i * kFrameBytes, kFrameBytes));
  frames_.reserve(kFrames);
  sent_.reserve(kFrames);
}

tcp::MinTcp Peers::state_of(std::uint32_t i, Time now) const {
  tcp::MinTcp min = test::idle_state(test::flow_number(i), i, i * 3);
  min.ts_val = milliseconds_of(now);
  min.rcv_wnd = 1024;  // so little that the quick ACKs at the beginning are soon over
  return min;
}

void Peers::write_frame(std::uint32_t i, std::uint32_t payload_bytes, Time now) {
  ASSERT(frames_.size() < kFrames);
  Peer& peer = peers_[i];
  wire::Segment segment;
  segment.seq = Seq(peer.seq);
  segment.ack = Seq(peer.ack);
  segment.window = 512;
  segment.flags = wire::kAck | (payload_bytes > 0 ? wire::kPsh : 0);
  segment.options.has_timestamps = true;
  segment.options.ts_val = segment.options.ts_ecr = milliseconds_of(now);
  const std::span<std::byte> room = std::span(rx_memory_).subspan(frames_.size() * kFrameBytes, kFrameBytes);
  const std::uint32_t head = wire::write_headers(room, {}, reversed(test::flow_number(i)), segment, payload_bytes);
  wire::fill_checksum(room.first(head + payload_bytes));
  ByteView& view = views_[frames_.size()];
  view = room.first(head + payload_bytes);
  frames_.push_back({.parts = {&view, 1}, .length_bytes = head + payload_bytes});
  peer.seq += payload_bytes;
}

// Puts another into the ring instead of the one whose turn it is, and acknowledges that one's response.
bool Peers::acknowledge_oldest(std::uint32_t replacement, Time now) {
  std::uint32_t due = replacement;
  if (!unacknowledged_.empty()) {
    due = std::exchange(unacknowledged_[unacknowledged_at_], replacement);
    unacknowledged_at_ = (unacknowledged_at_ + 1) % unacknowledged_.size();
  }
  if (due == kNone) return false;
  peers_[due].ack = peers_[due].answer;
  write_frame(due, 0, now);
  return true;
}

bool Peers::acknowledge_more(Time now) {
  bool any = false;
  for (std::uint32_t k = 0; k < batch_; ++k)
    any |= acks_ == Acks::kAlone ? acknowledge_oldest(kNone, now) : acknowledge_without_request(now);
  batch_ends_.push_back(frames_.size());
  return any;
}

// The one whose next request would have come first, if it has not acknowledged all of its responses.
bool Peers::acknowledge_without_request(Time now) {
  Peer& peer = peers_[next_];
  if (!std::exchange(peer.owes_ack, false)) return false;
  write_frame(next_, 0, now);
  next_ = (next_ + stride_) % static_cast<std::uint32_t>(peers_.size());
  return true;
}

void Peers::ask(Time now) {
  for (std::uint32_t k = 0; k < batch_; ++k) {
    if (acks_ == Acks::kAlone) acknowledge_oldest(next_, now);
    write_frame(next_, kMessageBytes, now);
    peers_[next_].answer += kMessageBytes;
    if (acks_ == Acks::kWithNextRequest) peers_[next_].ack = peers_[next_].answer;
    peers_[next_].owes_ack = true;
    next_ = (next_ + stride_) % static_cast<std::uint32_t>(peers_.size());
    ++expected_;
  }
  batch_ends_.push_back(frames_.size());
}

void Peers::arrive() { arrived_ = batch_ends_[batches_arrived_++]; }

std::span<const nic::RxFrame> Peers::receive(std::size_t max_frames) {
  const std::size_t count = std::min(max_frames, arrived_ - received_);
  const auto frames = std::span(frames_).subspan(received_, count);
  received_ += count;
  return frames;
}

std::span<std::byte> Peers::allocate_tx() {
  if (sent_.size() == kFrames) return {};
  return std::span(tx_memory_).subspan(sent_.size() * kFrameBytes, kFrameBytes);
}

void Peers::commit_tx(std::uint32_t length_bytes) { sent_.push_back(length_bytes); }

void Peers::check_answers() {
  for (std::size_t i = 0; i < sent_.size(); ++i) {
    const ByteView frame = ByteView(tx_memory_).subspan(i * kFrameBytes, sent_[i]);
    wire::TcpPacket packet;
    const auto verdict = wire::parse_frame({&frame, 1}, sent_[i], wire::ChecksumMode::kVerify, packet);
    ASSERT(verdict == wire::ParseVerdict::kOk);
    if (packet.payload.empty()) continue;  // an ACK without delay, as a connection sends at its beginning
    ASSERT(packet.payload.size() == kMessageBytes);
    Peer& peer = peers_[number_of(reversed(packet.flow))];
    ASSERT(packet.segment.seq == Seq(peer.seen));
    peer.seen += kMessageBytes;
    --expected_;
  }
  ASSERT(expected_ == 0);
  forget_sent();
}

void Peers::forget_sent() {
  sent_.clear();
  frames_.clear();
  batch_ends_.clear();
  batches_arrived_ = 0;
  received_ = 0;
  arrived_ = 0;
}

}  // namespace twinstack::engine::bench
