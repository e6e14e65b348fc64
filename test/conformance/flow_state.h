// FlowState: what the runner knows of one connection on the wire, so that scripts can count from its beginning: ports,
// initial sequence numbers, first timestamps. Builds the peer's segments and reads the host's. No I/O.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "packet.h"
#include "script.h"
#include "segment_text.h"
#include "wire/flow.h"
#include "wire/segment.h"

namespace twinstack::conformance {

// Byte `position` of the stream that the host sends, and of the one that the peer sends.
[[nodiscard]] std::byte host_stream_byte(std::uint64_t position) noexcept;
[[nodiscard]] std::byte peer_stream_byte(std::uint64_t position) noexcept;

class FlowState {
 public:
  // `key` as the host sees it; its local port may be 0 until the host's first SYN tells it.
  FlowState(const Peer& peer, const FlowKey& key) noexcept : peer_(&peer), key_(key) {}

  [[nodiscard]] const FlowKey& key() const noexcept { return key_; }
  // The flow of a packet that the host has sent.
  [[nodiscard]] bool carries(const FlowKey& seen_by_peer) const noexcept;

  // `spec` as a segment of the peer, at `now`. What it leaves open comes from the peer and from what the host has sent.
  [[nodiscard]] wire::Segment make(const SegmentSpec& spec, Time now);
  // ... and its payload.
  [[nodiscard]] static std::vector<std::byte> payload(const SegmentSpec& spec);

  // The host has sent `packet`: learns from it.
  void on_sent(const ReadPacket& packet);
  // Whether it acknowledges what no segment before has. Before on_sent().
  [[nodiscard]] bool acknowledges_more(const ReadPacket& packet) const noexcept {
    return packet.head.segment.has(wire::kAck) && (!host_acks_ || packet.head.segment.ack > host_ack_);
  }
  // What an ACK takes back of what the host has told its peer; empty: nothing. Before on_sent().
  [[nodiscard]] std::string taken_back_by(const ReadPacket& packet) const;
  // Whether its payload is what the host's stream has there.
  [[nodiscard]] bool is_host_stream(const ReadPacket& packet) const noexcept;

  // Its SYN has been seen.
  [[nodiscard]] bool is_known() const noexcept { return host_known_; }
  // Of two connections: their initial sequence numbers are no further apart than a clock alone brings them in some 50
  // ms (RFC 6528).
  [[nodiscard]] bool begins_near(const FlowState& other) const noexcept;
  // What the peer has got of the host's stream without a hole, and whether its end.
  [[nodiscard]] std::uint64_t bytes_sent() const noexcept { return host_bytes_; }
  [[nodiscard]] bool end_sent() const noexcept;
  // What the host has acknowledged of the peer's stream, and whether its end.
  [[nodiscard]] std::uint64_t bytes_acknowledged() const noexcept;
  [[nodiscard]] bool end_acknowledged() const noexcept;
  // A segment of the peer's with the next of its bytes. It acknowledges all that the host has sent, and its window is
  // open.
  [[nodiscard]] SegmentSpec next_of_peer(std::int64_t bytes, Time now) const;

  [[nodiscard]] FlowBase host_base() const noexcept;
  [[nodiscard]] FlowBase peer_base() const noexcept;
  // A sequence number of the host's.
  [[nodiscard]] Seq host_seq(const RelativeMatch& number) const noexcept;

 private:
  static constexpr std::uint32_t kPeerFirstTs = 1000;  // milliseconds

  [[nodiscard]] Seq right_edge(const wire::Segment& segment) const noexcept;
  void note_stream(const ReadPacket& packet);
  [[nodiscard]] std::uint32_t natural_timestamp(Time now) const noexcept;
  void add_options(const SegmentSpec& spec, wire::Segment& segment) const noexcept;
  void add_peer_options(wire::Segment& segment) const noexcept;
  void add_timestamps(const SegmentSpec& spec, wire::Segment& segment, Time now);
  void add_sack(const SegmentSpec& spec, wire::Segment& segment) const noexcept;

  const Peer* peer_;
  FlowKey key_;
  Seq host_initial_;
  std::uint32_t host_first_ts_ = 0;
  std::uint32_t host_last_ts_ = 0;
  Seq host_next_;  // behind the last that it has sent
  Seq host_ack_;   // what it has acknowledged ...
  Seq host_edge_;  // ... and the right edge of its window
  std::uint8_t host_wscale_ = 0;
  bool host_known_ = false;                   // host_initial_ is
  bool host_acks_ = false;                    // host_ack_ and host_edge_ are
  bool host_timestamps_ = false;              // its SYN offered or agreed to them
  std::optional<bool> host_data_timestamps_;  // what follows its SYN carries them
  std::vector<bool> host_sent_;               // by position in its stream
  std::uint64_t host_bytes_ = 0;              // of these are there without a hole
  std::optional<Seq> host_fin_;
  std::optional<Time> peer_began_;
  std::uint32_t peer_newest_ts_ = kPeerFirstTs;
  std::vector<Seq> peer_fins_;
};

}  // namespace twinstack::conformance
