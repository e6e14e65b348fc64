#include "kernel/late_filter.h"

#include <bpf/libbpf.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "bpf/quiet_libbpf.h"
#include "late.skel.h"

namespace twinstack::kernel {
namespace {

constexpr std::size_t kMinRingBytes = 256U << 10;  // a few of the largest packets

constexpr std::size_t kMostPerPoll = 4096;
constexpr int kEnough = -ECANCELED;  // ends ring_buffer__consume(), with this record taken

}  // namespace

Result<std::unique_ptr<LateFilter>> LateFilter::load(std::size_t ring_bytes) {
  const QuietLibbpf quiet;
  std::unique_ptr<LateFilter> filter(new LateFilter);
  filter->skeleton_ = late_bpf__open();
  if (filter->skeleton_ == nullptr) return system_error("open the late-packet filter");
  const auto room = static_cast<std::uint32_t>(std::bit_ceil(std::max(ring_bytes, kMinRingBytes)));
  if (const int rc = bpf_map__set_max_entries(filter->skeleton_->maps.ring, room); rc != 0) {
    return system_error("size the ring of the late-packet filter", -rc);
  }
  if (const int rc = late_bpf__load(filter->skeleton_); rc != 0) {
    return system_error("load the late-packet filter (needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, or root)", -rc);
  }
  filter->program_fd_ = bpf_program__fd(filter->skeleton_->progs.twinstack_late);
  filter->ring_ =
      ring_buffer__new(bpf_map__fd(filter->skeleton_->maps.ring), &LateFilter::on_record, filter.get(), nullptr);
  if (filter->ring_ == nullptr) return system_error("map the ring of the late-packet filter");
  return filter;
}

LateFilter::~LateFilter() {
  ring_buffer__free(ring_);
  late_bpf__destroy(skeleton_);
}

int LateFilter::poll_fd() const noexcept { return ring_buffer__epoll_fd(ring_); }

Result<std::size_t> LateFilter::poll(const std::function<void(const LatePacket&)>& callback) {
  callback_ = &callback;
  taken_ = 0;
  const int result = ring_buffer__consume(ring_);
  callback_ = nullptr;
  if (result < 0 && result != kEnough) return system_error("read the ring of the late-packet filter", -result);
  return taken_;
}

int LateFilter::on_record(void* context, void* data, std::size_t size_bytes) {
  auto* self = static_cast<LateFilter*>(context);
  ts_late_head head{};
  if (size_bytes < sizeof head) return 0;
  std::memcpy(&head, data, sizeof head);
  if (std::uint64_t{head.ip_bytes} + head.tcp_bytes > size_bytes - sizeof head) return 0;
  const auto* bytes = static_cast<const std::byte*>(data) + sizeof head;
  const LatePacket packet{
      .cookie = head.cookie, .ip_header = {bytes, head.ip_bytes}, .tcp = {bytes + head.ip_bytes, head.tcp_bytes}};
  (*self->callback_)(packet);
  // What the callback injects may be caught again, by a filter that its socket's holder has locked (P4): so many at a
  // time, and the ring stays readable.
  return ++self->taken_ < kMostPerPoll ? 0 : kEnough;
}

LateFilterStats LateFilter::stats() const noexcept {
  const auto* counters = skeleton_->bss;
  return {.packets = counters->late_packets,
          .ring_full = counters->late_ring_full,
          .too_long = counters->late_too_long,
          .unreadable = counters->late_unreadable};
}

}  // namespace twinstack::kernel
