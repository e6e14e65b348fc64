// MemoryLink: two Links joined by a wire in memory, with delay, bandwidth and a bounded queue. For tests and for the
// simulator: time is virtual, it moves by advance() on either end, so a run is the same each time.
//
//   auto wire = MemoryWire::make({.delay = 5ms, .bandwidth_bits_per_second = 100'000'000});
//   wire.a->commit_tx(n); wire.a->flush();
//   wire.b->advance(now + 5ms);
//   for (const RxFrame& frame : wire.b->receive(64)) ...
//
// A frame leaves with flush(), waits until the frames before it are on the wire, takes bytes / bandwidth to be sent and
// `delay` to arrive. A full queue drops at its tail (tx_dropped of the sender). Both ends belong to one thread.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "nic/link.h"

namespace twinstack::nic {

struct MemoryWireOptions {
  MacAddress mac_a{0x02, 0, 0, 0, 0, 0x0a};
  MacAddress mac_b{0x02, 0, 0, 0, 0, 0x0b};
  std::uint32_t mtu_bytes = 1500;               // up to 65535: then as large as a GSO super-packet
  Duration delay{0};                            // one way
  std::uint64_t bandwidth_bits_per_second = 0;  // 0: no limit
  std::size_t queue_frames = 1024;              // waiting to be sent, or arrived and not received, each way
  std::size_t tx_frames = 256;                  // that can be committed before flush()
  std::uint32_t part_bytes = 0;                 // received frames come in parts of this size, 0: in one. The first part
                                                // must hold all headers: at least 128
  ChecksumMode checksum = ChecksumMode::kVerify;
};

class MemoryLink final : public Link {
 public:
  std::span<const RxFrame> receive(std::size_t max_frames) override;
  void release() override;
  std::span<std::byte> allocate_tx() override;
  void commit_tx(std::uint32_t length_bytes) override;
  std::size_t tx_room() override;
  void flush() override;
  [[nodiscard]] int poll_fd() const override { return -1; }
  // When the next frame arrives here that has not arrived yet.
  [[nodiscard]] Time next_event() const override;
  // Moves the time of both ends. Never back: an earlier time changes nothing.
  void advance(Time now) override;
  [[nodiscard]] const LinkInfo& info() const override { return info_; }
  [[nodiscard]] LinkStats stats() const override { return stats_; }

  // Frames that have arrived and wait for receive().
  [[nodiscard]] std::size_t waiting() const;

 private:
  friend struct MemoryWire;
  using Buffer = std::vector<std::byte>;

  struct InFlight {
    Time sent;     // its last bit is on the wire
    Time arrives;  // at the other end
    Buffer bytes;
  };
  // One direction.
  struct Path {
    std::deque<InFlight> frames;  // ordered by `sent` and `arrives`
    Time free_at{};               // when the wire has sent all that was given to it
  };
  struct Shared {
    MemoryWireOptions options;
    Time now{};
    Path to_a;
    Path to_b;
    std::vector<Buffer> spare;  // buffers to be used again
  };

  MemoryLink(std::shared_ptr<Shared> shared, bool is_a);
  [[nodiscard]] Path& outgoing() const { return is_a_ ? shared_->to_b : shared_->to_a; }
  [[nodiscard]] Path& incoming() const { return is_a_ ? shared_->to_a : shared_->to_b; }
  [[nodiscard]] bool queue_is_full(const Path& path) const;
  void send(Buffer frame);
  Buffer take_buffer();
  void view(const Buffer& frame);

  std::shared_ptr<Shared> shared_;
  bool is_a_;
  LinkInfo info_;
  LinkStats stats_;

  std::vector<Buffer> received_;  // what the last receive() gave out
  std::vector<ByteView> parts_;
  std::vector<RxFrame> frames_;

  Buffer allocated_;  // empty when nothing is handed out
  std::vector<Buffer> committed_;
};

// The two ends; each may be moved to another owner.
struct MemoryWire {
  std::unique_ptr<MemoryLink> a;
  std::unique_ptr<MemoryLink> b;

  static MemoryWire make(const MemoryWireOptions& options = {});
};

}  // namespace twinstack::nic
