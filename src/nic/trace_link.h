// TraceLink: a Link that owns another one and tells of every frame in one line of text:
//
//   0.001234567 rx 66 10.0.0.2:51000 > 10.0.0.1:80 A seq 17 ack 4242 win 501 len 0
//   0.001240000 tx 90 not TCP over IP (not-ip)
//
// The line goes to a callback, without line end; this file does no I/O. Time is what advance() said last. Sent frames
// are told when they are committed. One thread at a time.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "nic/link.h"

namespace twinstack::nic {

// Text for one frame as TraceLink writes it, without time and direction.
[[nodiscard]] std::string describe_frame(const RxFrame& frame);

class TraceLink final : public Link {
 public:
  using Sink = std::function<void(std::string_view line)>;
  // REQUIRES: inner and sink are not empty.
  TraceLink(std::unique_ptr<Link> inner, Sink sink);

  std::span<const RxFrame> receive(std::size_t max_frames) override;
  void release() override { inner_->release(); }
  std::span<std::byte> allocate_tx() override { return room_ = inner_->allocate_tx(); }
  void commit_tx(std::uint32_t length_bytes) override;
  std::size_t tx_room() override { return inner_->tx_room(); }
  void flush() override { inner_->flush(); }
  void kick() override { inner_->kick(); }
  [[nodiscard]] int poll_fd() const override { return inner_->poll_fd(); }
  [[nodiscard]] Time next_event() const override { return inner_->next_event(); }
  void advance(Time now) override;
  [[nodiscard]] const LinkInfo& info() const override { return inner_->info(); }
  [[nodiscard]] LinkStats stats() const override { return inner_->stats(); }

 private:
  void tell(std::string_view direction, const RxFrame& frame);

  std::unique_ptr<Link> inner_;
  Sink sink_;
  Time now_{};
  std::span<std::byte> room_;
};

}  // namespace twinstack::nic
