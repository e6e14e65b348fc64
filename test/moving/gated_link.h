// GatedLink: a Link that owns another one and takes frames to send only while its owner says so, as a card whose queue
// is full does. One thread at a time.
#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "nic/link.h"

namespace twinstack::moving {

class GatedLink final : public nic::Link {
 public:
  using Gate = std::function<bool()>;
  // REQUIRES: both are not empty.
  GatedLink(std::unique_ptr<nic::Link> inner, Gate takes_more)
      : inner_(std::move(inner)), takes_more_(std::move(takes_more)) {}

  std::span<const nic::RxFrame> receive(std::size_t max_frames) override { return inner_->receive(max_frames); }
  void release() override { inner_->release(); }
  std::span<std::byte> allocate_tx() override { return takes_more_() ? inner_->allocate_tx() : std::span<std::byte>{}; }
  void commit_tx(std::uint32_t length_bytes) override { inner_->commit_tx(length_bytes); }
  std::size_t tx_room() override { return takes_more_() ? inner_->tx_room() : 0; }
  void flush() override { inner_->flush(); }
  void kick() override { inner_->kick(); }
  [[nodiscard]] int poll_fd() const override { return inner_->poll_fd(); }
  [[nodiscard]] Time next_event() const override { return inner_->next_event(); }
  void advance(Time now) override { inner_->advance(now); }
  [[nodiscard]] const nic::LinkInfo& info() const override { return inner_->info(); }
  [[nodiscard]] nic::LinkStats stats() const override { return inner_->stats(); }

 private:
  std::unique_ptr<nic::Link> inner_;
  Gate takes_more_;
};

}  // namespace twinstack::moving
