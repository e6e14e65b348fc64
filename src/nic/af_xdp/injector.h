// PacketInjector: hands frames into the kernel's receive path of an interface, as if the device had received them:
// packets that waited for us while a connection moved back. By BPF_PROG_TEST_RUN with live frames (Linux 5.18), so
// nothing passes through an XDP program of a native driver again; generic XDP does see them, and steer.bpf.c passes
// them on by their mark (source MAC = destination MAC), also while their flow is steered.
//
// What goes in is made good first: the destination is the interface's own MAC, a partial checksum (local peer, GRO) is
// completed, a TCP super-packet is cut into segments that fit the MTU. A frame with a wrong checksum is refused and
// counted, never repaired. Frames of one call arrive in order.
//
// Control path, blocks for as long as the kernel takes to process the packets. One thread at a time; the calling thread
// enters the namespace of the interface for the call if it is elsewhere.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"
#include "nic/link.h"

namespace twinstack::nic {

struct InjectorOptions {
  std::string interface;  // in the current namespace of the thread that creates
};

struct InjectionCount {
  std::uint32_t frames = 0;    // given
  std::uint32_t injected = 0;  // frames handed to the kernel; more than `frames` when super-packets were cut
  std::uint32_t refused = 0;   // malformed, wrong checksum, or too long and not TCP
};

class PacketInjector {
 public:
  // kNotFound (no such interface), kUnsupported (kernel without live frames), kSystem (privileges).
  static Result<std::unique_ptr<PacketInjector>> create(const InjectorOptions& options);
  PacketInjector(const PacketInjector&) = delete;
  PacketInjector& operator=(const PacketInjector&) = delete;
  ~PacketInjector();

  // Ethernet frames. `mode`: whether partial checksums are accepted: kAcceptPartial for frames of a link with that mode
  // and for everything that the kernel itself had in hands (late packets: GRO leaves partial checksums).
  Result<InjectionCount> inject(std::span<const RxFrame> frames, ChecksumMode mode);
  // IP packets without Ethernet header (late packets of the socket filter).
  Result<InjectionCount> inject_ip(std::span<const RxFrame> packets, ChecksumMode mode);

 private:
  struct Program;
  PacketInjector();
  Result<> add(const RxFrame& frame, ChecksumMode mode, InjectionCount& count);
  Result<> add_ip(const RxFrame& packet, ChecksumMode mode, InjectionCount& count);
  Result<> run(InjectionCount& count);

  std::unique_ptr<Program> program_;
  UniqueFd netns_;
  MacAddress mac_{};
  std::uint32_t interface_index_ = 0;
  std::uint32_t max_frame_bytes_ = 0;
  std::uint32_t waiting_ = 0;    // frames in the map, not handed over
  std::vector<std::byte> head_;  // of add_ip(): an Ethernet header and the first part of the packet
  std::vector<ByteView> parts_;
};

}  // namespace twinstack::nic
