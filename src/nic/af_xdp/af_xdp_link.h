// AfXdpLink: nic::Link over one AF_XDP socket: one queue of an interface that XdpAttachment has prepared. Frames lie in
// one memory area (UMEM) that the kernel writes and reads; receive() and allocate_tx() hand out that memory itself.
//
// Frames larger than a buffer (GSO super-packets of a local peer, jumbo frames) come and go in several buffers
// (XDP_USE_SG, Linux 6.6). In copy mode the kernel sends only when asked: kick() asks once, and again only when the
// kernel says that it stopped half-way.
//
// One thread at a time, but for kick(). open() makes the socket in the namespace of the attachment; afterwards the
// namespace of the caller does not matter. The link may outlive the attachment (it then receives nothing).
#pragma once

#include <linux/if_xdp.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "nic/af_xdp/attachment.h"
#include "nic/af_xdp/ring_unsafe.h"
#include "nic/af_xdp/umem_unsafe.h"
#include "nic/link.h"

namespace twinstack::nic {

struct AfXdpOptions {
  std::uint32_t queue = 0;
  std::uint32_t rx_frames = 4096;     // buffers for reception, power of two
  std::uint32_t tx_frames = 4096;     // buffers for sending, power of two
  std::uint32_t max_parts = 64;       // a frame of more buffers is dropped and counted; 64 KB take 37 of 2048 bytes
  std::uint32_t frame_bytes = 0;      // of a buffer, 2048 or 4096; 0: 2048 when the MTU fits, else 4096
  bool defer_kick = false;            // flush() leaves the system call to kick()
  bool without_multi_buffer = false;  // bind as on a kernel before 6.6: for tests
};

class AfXdpLink final : public Link {
 public:
  // Errors: kInvalid (options), kNoResource (queue taken by another socket, memlock limit), kUnsupported (no AF_XDP in
  // this kernel, forced mode refused by the driver, frames of the MTU need several buffers and get one), kNotFound (no
  // such queue), kSystem.
  static Result<std::unique_ptr<AfXdpLink>> open(XdpAttachment& attachment, const AfXdpOptions& wanted);

  std::span<const RxFrame> receive(std::size_t max_frames) override;
  void release() override;
  std::span<std::byte> allocate_tx() override;
  void commit_tx(std::uint32_t length_bytes) override;
  std::size_t tx_room() override;
  void flush() override;
  void kick() override;
  [[nodiscard]] int poll_fd() const override { return socket_.get(); }
  [[nodiscard]] const LinkInfo& info() const override { return info_; }
  // Asks the kernel for its drop counters: a system call, not for every poll.
  [[nodiscard]] LinkStats stats() const override;

  // How the socket was bound in the end.
  [[nodiscard]] XdpMode mode() const noexcept { return mode_; }
  // False on kernels before 6.6: super-packets are then dropped by the kernel.
  [[nodiscard]] bool multi_buffer() const noexcept { return multi_buffer_; }
  // Frames of more parts than max_parts, dropped.
  [[nodiscard]] std::uint64_t chains_too_long() const noexcept { return chains_too_long_; }
  // Calls of sendto() so far: tells how well sending is batched.
  [[nodiscard]] std::uint64_t kicks() const noexcept { return kicks_.load(std::memory_order_relaxed); }

 private:
  AfXdpLink(UniqueFd socket, Umem umem, const LinkInfo& info, const AfXdpOptions& options);
  Result<> set_up_rings();
  Result<> bind(const XdpAttachment& attachment);
  Result<> bind_one_of(const XdpAttachment& attachment, std::span<const std::uint16_t> choices);
  [[nodiscard]] std::uint32_t largest_mtu_of_one_buffer() const noexcept;
  [[nodiscard]] std::unexpected<Error> mtu_too_large(const std::string& interface) const;
  void fill_all();
  bool gather(std::uint32_t& index, std::uint32_t end);
  bool ask_to_send();
  void reap_completions();
  [[nodiscard]] std::uint64_t slot_address(std::uint32_t slot) const noexcept;

  UniqueFd socket_;
  Umem umem_;
  LinkInfo info_;
  AfXdpOptions options_;
  XdpMode mode_ = XdpMode::kGeneric;
  bool multi_buffer_ = false;

  ProducerRing<std::uint64_t> fill_;
  ConsumerRing<xdp_desc> rx_;
  ProducerRing<xdp_desc> tx_;
  ConsumerRing<std::uint64_t> completion_;

  // Received and not released: `frames_` view `parts_`, whose buffers are `held_`. Reserved once, never reallocated.
  std::vector<RxFrame> frames_;
  std::vector<ByteView> parts_;
  std::vector<std::uint64_t> held_;
  bool skipping_ = false;  // within a chain that is too long: until its last buffer

  // Sending: a slot is room for one frame of the MTU, `chunks_per_slot_` buffers side by side.
  std::uint32_t chunks_per_slot_ = 1;
  std::uint32_t slot_bytes_ = 0;
  std::vector<std::uint32_t> free_slots_;
  std::vector<std::uint32_t> slot_in_flight_;  // buffers of the slot that the kernel still has
  std::int64_t allocated_slot_ = -1;           // handed out by allocate_tx(), not committed

  LinkStats stats_;
  std::uint64_t chains_too_long_ = 0;
  std::atomic<std::uint64_t> kicks_ = 0;
  std::atomic<std::uint64_t> tx_dropped_ = 0;
};

}  // namespace twinstack::nic
