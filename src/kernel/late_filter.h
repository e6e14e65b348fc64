// LateFilter: the program that stands in front of a kernel socket while its connection moves or is away. It lets
// nothing through to the kernel's TCP (no ACK, no RST), and hands a copy of each packet to user space by a BPF ring
// buffer. One program and one ring serve all connections of a service, in all network namespaces.
//
// Threads: fd() from any; poll() from one thread at a time. Nothing blocks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "base/result.h"
#include "bpf/shared.h"
#include "kernel/late_packets.h"

struct late_bpf;
struct ring_buffer;

namespace twinstack::kernel {

struct LateFilterStats {
  std::uint64_t packets = 0;     // handed over
  std::uint64_t ring_full = 0;   // dropped: no room in the ring; the peer sends them again
  std::uint64_t too_long = 0;    // dropped: above TS_LATE_MAX_BYTES
  std::uint64_t unreadable = 0;  // dropped: headers could not be read
};

class LateFilter final : public LatePackets {
 public:
  // `ring_bytes` is rounded up to a power of two of pages. kUnsupported or kSystem when BPF is not to be had.
  static Result<std::unique_ptr<LateFilter>> load(std::size_t ring_bytes = 16U << 20);
  LateFilter(const LateFilter&) = delete;
  LateFilter& operator=(const LateFilter&) = delete;
  ~LateFilter() override;

  // The program, for SO_ATTACH_BPF. Owned by this object.
  [[nodiscard]] int fd() const noexcept { return program_fd_; }
  // Polls readable when packets wait.
  [[nodiscard]] int poll_fd() const noexcept;
  Result<std::size_t> poll(const std::function<void(const LatePacket&)>& callback) override;
  [[nodiscard]] LateFilterStats stats() const noexcept;

 private:
  LateFilter() = default;
  static int on_record(void* context, void* data, std::size_t size_bytes);

  late_bpf* skeleton_ = nullptr;
  ring_buffer* ring_ = nullptr;
  int program_fd_ = -1;
  const std::function<void(const LatePacket&)>* callback_ = nullptr;
  std::size_t taken_ = 0;  // by the poll() under way
};

}  // namespace twinstack::kernel
