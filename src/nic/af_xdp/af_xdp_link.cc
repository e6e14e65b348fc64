// AfXdpLink: the data path. Set-up is in af_xdp_setup.cc.
#include "nic/af_xdp/af_xdp_link.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "base/assert.h"
#include "nic/af_xdp/kernel_abi.h"

namespace twinstack::nic {

std::span<const RxFrame> AfXdpLink::receive(std::size_t max_frames) {
  ASSERT(held_.empty());
  std::uint32_t index = rx_.first();
  const std::uint32_t end = index + rx_.available();
  while (index != end && frames_.size() < max_frames && gather(index, end)) {
  }
  rx_.release_to(index);
  stats_.rx_frames += frames_.size();
  for (const RxFrame& frame : frames_) stats_.rx_bytes += frame.length_bytes;
  if (frames_.empty() && !held_.empty()) release();  // only dropped ones: the caller has nothing to release
  return frames_;
}

// One frame from the descriptors [index, end): moves `index` behind it. False when its last buffer is not there yet:
// then nothing is taken.
bool AfXdpLink::gather(std::uint32_t& index, std::uint32_t end) {
  const std::size_t first_part = parts_.size();
  const std::size_t first_held = held_.size();
  std::uint32_t length = 0;
  for (std::uint32_t i = index; i != end; ++i) {
    const xdp_desc& descriptor = rx_.slot(i);
    held_.push_back(descriptor.addr);
    if (!skipping_) {
      parts_.push_back(umem_.view(descriptor.addr, descriptor.len));
      length += descriptor.len;
    }
    if (parts_.size() - first_part > options_.max_parts) {
      skipping_ = true;
      ++chains_too_long_;
      parts_.resize(first_part);
    }
    if ((descriptor.options & kXdpPktContinues) != 0) continue;
    index = i + 1;
    if (!skipping_) frames_.push_back({std::span(parts_).subspan(first_part), length});
    skipping_ = false;
    return true;
  }
  if (skipping_) {
    index = end;  // the rest of the chain goes the same way when it comes
    return true;
  }
  parts_.resize(first_part);
  held_.resize(first_held);
  return false;
}

void AfXdpLink::release() {
  for (const std::uint64_t address : held_) fill_.push(address);
  if (!held_.empty()) fill_.submit();
  held_.clear();
  parts_.clear();
  frames_.clear();
  // Zero-copy drivers stop when the fill ring has run dry; copy mode never asks.
  if (fill_.needs_wakeup()) ::recvfrom(socket_.get(), nullptr, 0, MSG_DONTWAIT, nullptr, nullptr);
}

std::span<std::byte> AfXdpLink::allocate_tx() {
  if (allocated_slot_ < 0) {
    if (free_slots_.empty()) reap_completions();
    if (free_slots_.empty()) return {};
    allocated_slot_ = free_slots_.back();
    free_slots_.pop_back();
  }
  return umem_.room(slot_address(static_cast<std::uint32_t>(allocated_slot_)), slot_bytes_);
}

void AfXdpLink::commit_tx(std::uint32_t length_bytes) {
  ASSERT(allocated_slot_ >= 0 && length_bytes > 0 && length_bytes <= slot_bytes_);
  const auto slot = static_cast<std::uint32_t>(std::exchange(allocated_slot_, -1));
  const std::uint64_t address = slot_address(slot);
  for (std::uint32_t done = 0; done < length_bytes; done += options_.frame_bytes) {
    const std::uint32_t here = std::min(length_bytes - done, options_.frame_bytes);
    const bool last = done + here == length_bytes;
    tx_.push({.addr = address + done, .len = here, .options = last ? 0 : kXdpPktContinues});
    ++slot_in_flight_[slot];
  }
  ++stats_.tx_frames;
  stats_.tx_bytes += length_bytes;
}

std::size_t AfXdpLink::tx_room() {
  if (free_slots_.size() < slot_in_flight_.size() / 2) reap_completions();
  return free_slots_.size() + (allocated_slot_ >= 0 ? 1 : 0);
}

void AfXdpLink::flush() {
  tx_.submit();
  if (!options_.defer_kick) kick();
  reap_completions();
}

// One call as a rule. Kernels before 6.17 stop after 32 frames and do not always show how far they came; all stop when
// the send buffer is full or a frame was dropped. So many calls as that takes, and no more: what the device does not
// take waits. (Frames that are committed meanwhile only add to occupied().)
void AfXdpLink::kick() {
  constexpr std::uint32_t kFramesPerCall = 32;
  for (std::uint32_t calls = tx_.occupied() / kFramesPerCall + 2; calls > 0; --calls)
    if (tx_.occupied() == 0 || !tx_.needs_wakeup() || !ask_to_send()) return;
}

// True when the kernel may have stopped half-way.
bool AfXdpLink::ask_to_send() {
  kicks_.fetch_add(1, std::memory_order_relaxed);
  if (::sendto(socket_.get(), nullptr, 0, MSG_DONTWAIT, nullptr, 0) >= 0) return false;
  const int why = errno;
  if (why == EBUSY) tx_dropped_.fetch_add(1, std::memory_order_relaxed);  // the device or its queue dropped one frame
  return why == EAGAIN || why == EBUSY || why == EINTR;
}

void AfXdpLink::reap_completions() {
  const std::uint32_t first = completion_.first();
  const std::uint32_t end = first + completion_.available();
  for (std::uint32_t i = first; i != end; ++i) {
    const std::uint64_t chunk = completion_.slot(i) / options_.frame_bytes - options_.rx_frames;
    const auto slot = static_cast<std::uint32_t>(chunk / chunks_per_slot_);
    ASSERT(slot < slot_in_flight_.size() && slot_in_flight_[slot] > 0);
    if (--slot_in_flight_[slot] == 0) free_slots_.push_back(slot);
  }
  if (first != end) completion_.release_to(end);
}

std::uint64_t AfXdpLink::slot_address(std::uint32_t slot) const noexcept {
  return (std::uint64_t{options_.rx_frames} + std::uint64_t{slot} * chunks_per_slot_) * options_.frame_bytes;
}

LinkStats AfXdpLink::stats() const {
  LinkStats result = stats_;
  result.tx_dropped = tx_dropped_.load(std::memory_order_relaxed);
  xdp_statistics kernel{};
  socklen_t length = sizeof kernel;
  if (::getsockopt(socket_.get(), SOL_XDP, XDP_STATISTICS, &kernel, &length) == 0) {
    result.rx_dropped += kernel.rx_dropped + kernel.rx_ring_full;
    result.tx_dropped += kernel.tx_invalid_descs;
  }
  result.rx_dropped += chains_too_long_;
  return result;
}

}  // namespace twinstack::nic
