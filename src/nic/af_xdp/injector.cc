#include "nic/af_xdp/injector.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fmt/format.h>
#include <linux/if_link.h>
#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

#include "bpf/quiet_libbpf.h"
#include "bpf/shared.h"
#include "nic/af_xdp/attachment.h"
#include "nic/af_xdp/netns.h"
#include "nic/resegment.h"
#include "pass.skel.h"
#include "wire/build.h"

namespace twinstack::nic {
namespace {

static_assert(sizeof(ts_inject_frame) % 8 == 0);  // so that the elements of the mapped array lie side by side

}  // namespace

struct PacketInjector::Program {
  pass_bpf* skeleton = nullptr;
  UniqueFd anchor_netns;
  UniqueFd anchor;                    // a bpf_link, see drop_anchor()
  ts_inject_frame* frames = nullptr;  // the map, TS_INJECT_FRAMES of them

  Program() = default;
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  ~Program() {
    if (frames != nullptr) ::munmap(frames, kBytes);
    if (skeleton != nullptr) pass_bpf__destroy(skeleton);
  }

  [[nodiscard]] int fd() const { return bpf_program__fd(skeleton->progs.ts_pass_xdp); }
  Result<> load();
  Result<> drop_anchor();
  [[nodiscard]] std::uint32_t batch_frames() const { return anchor ? TS_INJECT_FRAMES : 1; }

  static constexpr std::size_t kBytes = sizeof(ts_inject_frame) * TS_INJECT_FRAMES;
};

Result<> PacketInjector::Program::load() {
  const QuietLibbpf quiet;
  skeleton = pass_bpf__open_and_load();
  const int failed_with = errno;
  if (skeleton == nullptr) {
    if (failed_with == EPERM || failed_with == EACCES) {
      return system_error("loading the injection program (needs CAP_BPF and CAP_NET_ADMIN, or root)", failed_with);
    }
    return system_error("loading the injection program (needs Linux 5.18)", failed_with);
  }
  void* memory = ::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(skeleton->maps.ts_frames), 0);
  if (memory == MAP_FAILED) return system_error("mmap of the injection frames");
  frames = static_cast<ts_inject_frame*>(memory);
  return {};
}

// A test run of more than one frame enters its program into the kernel's XDP dispatcher and takes it out again, at a
// grace period each (28 ms here), unless the program is in it anyway because an interface has it. So one has it: the
// loopback of a namespace of our own, which no packet ever passes.
Result<> PacketInjector::Program::drop_anchor() {
  Result<> outcome;
  // A thread of its own: unshare() changes the namespace of the calling thread for good.
  std::thread helper([&] {
    if (::unshare(CLONE_NEWNET) != 0) {
      outcome = system_error("unshare of a network namespace");
      return;
    }
    Result<UniqueFd> netns = open_current_netns();
    if (!netns.has_value()) {
      outcome = std::unexpected(std::move(netns.error()));
      return;
    }
    constexpr int kLoopbackIndex = 1;
    bpf_link_create_opts options{};
    options.sz = sizeof options;
    options.flags = XDP_FLAGS_SKB_MODE;
    const int link = bpf_link_create(fd(), kLoopbackIndex, BPF_XDP, &options);
    if (link < 0) {
      outcome = system_error("attaching the injection program", -link);
      return;
    }
    anchor.reset(link);
    anchor_netns = std::move(*netns);
  });
  helper.join();
  return outcome;
}

PacketInjector::PacketInjector() : program_(std::make_unique<Program>()) {}
PacketInjector::~PacketInjector() = default;

Result<std::unique_ptr<PacketInjector>> PacketInjector::create(const InjectorOptions& options) {
  ASSIGN_OR_RETURN(const InterfaceFacts facts, interface_facts(options.interface));
  std::unique_ptr<PacketInjector> made(new PacketInjector);
  ASSIGN_OR_RETURN(made->netns_, open_current_netns());
  TRY(made->program_->load());
  // Without it each frame costs a system call, which is no reason to refuse.
  static_cast<void>(made->program_->drop_anchor());
  made->mac_ = facts.mac;
  made->interface_index_ = facts.index;
  made->max_frame_bytes_ = std::min<std::uint32_t>(facts.mtu_bytes + wire::kEthernetBytes, TS_INJECT_BYTES);
  return made;
}

Result<InjectionCount> PacketInjector::inject(std::span<const RxFrame> frames, ChecksumMode mode) {
  ASSIGN_OR_RETURN(const ScopedNetns inside, ScopedNetns::enter(netns_.get()));
  InjectionCount count;
  for (const RxFrame& frame : frames) TRY(add(frame, mode, count));
  TRY(run(count));
  return count;
}

Result<InjectionCount> PacketInjector::inject_ip(std::span<const RxFrame> packets, ChecksumMode mode) {
  ASSIGN_OR_RETURN(const ScopedNetns inside, ScopedNetns::enter(netns_.get()));
  InjectionCount count;
  for (const RxFrame& packet : packets) TRY(add_ip(packet, mode, count));
  TRY(run(count));
  return count;
}

Result<> PacketInjector::add_ip(const RxFrame& packet, ChecksumMode mode, InjectionCount& count) {
  if (packet.parts.empty() || packet.parts[0].empty()) {
    ++count.frames;
    ++count.refused;
    return {};
  }
  const bool is_v6 = (packet.parts[0][0] >> 4) == std::byte{6};
  // The parser wants all headers in one part: the first part gets its Ethernet header in front, in a buffer of ours.
  head_.assign(wire::kEthernetBytes, std::byte{0});
  head_[12] = is_v6 ? std::byte{0x86} : std::byte{0x08};
  head_[13] = is_v6 ? std::byte{0xdd} : std::byte{0x00};
  head_.insert(head_.end(), packet.parts[0].begin(), packet.parts[0].end());
  parts_.assign(packet.parts.begin(), packet.parts.end());
  parts_[0] = head_;
  return add({parts_, packet.length_bytes + wire::kEthernetBytes}, mode, count);
}

// Puts one frame, made good, behind those that wait in the map; a full map is handed over first.
Result<> PacketInjector::add(const RxFrame& frame, ChecksumMode mode, InjectionCount& count) {
  Result<> outcome;
  const FrameRoom room = [&](std::uint32_t length_bytes) -> std::span<std::byte> {
    if (waiting_ == program_->batch_frames()) outcome = run(count);
    if (!outcome.has_value() || length_bytes > TS_INJECT_BYTES) return {};
    ts_inject_frame& slot = program_->frames[waiting_++];
    slot.length_bytes = length_bytes;
    return std::as_writable_bytes(std::span(slot.bytes)).first(length_bytes);
  };
  ++count.frames;
  const ResegmentVerdict verdict = resegment(frame, max_frame_bytes_, mode, room);
  TRY(std::move(outcome));
  if (verdict != ResegmentVerdict::kOk) ++count.refused;
  return {};
}

// Hands the waiting frames to the kernel.
Result<> PacketInjector::run(InjectionCount& count) {
  const std::uint32_t frames = std::exchange(waiting_, 0);
  if (frames == 0) return {};
  std::uint32_t longest = wire::kEthernetBytes;
  for (std::uint32_t i = 0; i < frames; ++i) {
    // Destination: a stranger's MAC would be dropped. Source: the mark that steer.bpf.c lets pass.
    std::memcpy(program_->frames[i].bytes, mac_.data(), mac_.size());
    std::memcpy(program_->frames[i].bytes + mac_.size(), mac_.data(), mac_.size());
    longest = std::max(longest, program_->frames[i].length_bytes);
  }
  program_->skeleton->bss->ts_frame_count = frames;
  program_->skeleton->bss->ts_next_frame = 0;
  xdp_md context{};
  context.data_end = longest;
  context.ingress_ifindex = interface_index_;
  // The input gives the size of the kernel's packet buffers; the program fills in each frame.
  bpf_test_run_opts options{};
  options.sz = sizeof options;
  options.data_in = program_->frames[0].bytes;
  options.data_size_in = longest;
  options.ctx_in = &context;
  options.ctx_size_in = sizeof context;
  options.repeat = static_cast<int>(frames);
  options.batch_size = frames;
  options.flags = BPF_F_TEST_XDP_LIVE_FRAMES;
  const int result = bpf_prog_test_run_opts(program_->fd(), &options);
  if (result != 0) return system_error("injecting packets by BPF_PROG_TEST_RUN", -result);
  const std::uint32_t taken = program_->skeleton->bss->ts_next_frame;
  count.injected += taken;
  if (taken == frames) return {};
  return error(ErrorCode::kSystem, fmt::format("the kernel took {} of {} injected packets", taken, frames));
}

}  // namespace twinstack::nic
