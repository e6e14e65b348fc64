// Peers: the link of a lane and, in one, the peers at its other end. They write their requests before the clock of the
// benchmark runs and look at the answers after it, so that nothing of them is measured. Frames lie in fixed buffers of
// 2 KiB, as in the memory of an AF_XDP socket. One thread.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/test_support.h"
#include "nic/link.h"

namespace twinstack::engine::bench {

inline constexpr std::uint32_t kMessageBytes = 64;

// How a peer acknowledges the response to its last request.
enum class Acks : std::uint8_t { kWithNextRequest, kAlone };

class Peers final : public nic::Link {
 public:
  Peers(std::uint32_t connections, Acks acks);

  // Of connection `i`, as the server installs it at `now`.
  [[nodiscard]] tcp::MinTcp state_of(std::uint32_t i, Time now) const;
  // Requests that arrive together.
  [[nodiscard]] std::uint32_t batch() const noexcept { return batch_; }
  // Writes the next batch of frames, of connections far apart from each other in all tables.
  void ask(Time now);
  // Writes ACKs of responses that have none yet, a batch of them; whether there were any.
  bool acknowledge_more(Time now);
  // Its frames have arrived: receive() gives them out.
  void arrive();
  [[nodiscard]] bool has_frames() const noexcept { return received_ < arrived_; }
  // All that was sent since the last call were the responses, each once and in order. Aborts when not.
  void check_answers();
  void forget_sent();

  std::span<const nic::RxFrame> receive(std::size_t max_frames) override;
  void release() override {}
  std::span<std::byte> allocate_tx() override;
  void commit_tx(std::uint32_t length_bytes) override;
  std::size_t tx_room() override { return kFrames - sent_.size(); }
  void flush() override {}
  [[nodiscard]] int poll_fd() const override { return -1; }
  [[nodiscard]] const nic::LinkInfo& info() const override { return info_; }
  [[nodiscard]] nic::LinkStats stats() const override { return {}; }

 private:
  static constexpr std::size_t kFrameBytes = 2048;
  static constexpr std::size_t kFrames = 2048;

  struct Peer {
    std::uint32_t seq;      // of its next byte
    std::uint32_t ack;      // that its next segment carries
    std::uint32_t answer;   // seq of the next response, of all requests written
    std::uint32_t seen;     // ... of those that were checked
    bool owes_ack = false;  // its last response will be acknowledged with its next request
  };

  void write_frame(std::uint32_t i, std::uint32_t payload_bytes, Time now);
  bool acknowledge_oldest(std::uint32_t replacement, Time now);
  bool acknowledge_without_request(Time now);

  std::uint32_t batch_;
  std::uint32_t stride_;  // from one connection that asks to the next
  std::uint32_t next_ = 0;
  Acks acks_;
  std::vector<Peer> peers_;
  std::vector<std::uint32_t> unacknowledged_;  // ring: who was answered and has not acknowledged yet
  std::size_t unacknowledged_at_ = 0;

  std::vector<std::byte> rx_memory_;
  std::vector<std::byte> tx_memory_;
  std::vector<ByteView> views_;
  std::vector<nic::RxFrame> frames_;     // written, of all batches
  std::vector<std::size_t> batch_ends_;  // in frames_
  std::size_t batches_arrived_ = 0;
  std::size_t received_ = 0;  // frames given out
  std::size_t arrived_ = 0;
  std::vector<std::uint32_t> sent_;  // lengths
  std::uint32_t expected_ = 0;       // answers
  nic::LinkInfo info_{};
};

}  // namespace twinstack::engine::bench
