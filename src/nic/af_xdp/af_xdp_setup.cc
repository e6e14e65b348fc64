// AfXdpLink: making the socket: packet memory, four rings, bind. By hand and not by libxdp's xsk_*: 1.3.1 knows nothing
// of multi-buffer sockets and looks the interface up by name again.
#include <fmt/format.h>
#include <sys/socket.h>

#include <array>
#include <bit>
#include <cerrno>

#include "nic/af_xdp/af_xdp_link.h"
#include "nic/af_xdp/kernel_abi.h"
#include "nic/af_xdp/netns.h"
#include "wire/build.h"

namespace twinstack::nic {
namespace {

// The kernel leaves this much free in front of each received frame.
constexpr std::uint32_t kReceiveHeadroomBytes = 256;

Result<std::uint32_t> choose_frame_bytes(const AfXdpOptions& options, std::uint32_t mtu_bytes) {
  if (options.frame_bytes == 2048 || options.frame_bytes == 4096) return options.frame_bytes;
  if (options.frame_bytes != 0) return error(ErrorCode::kInvalid, "frame_bytes must be 2048 or 4096");
  return mtu_bytes + wire::kEthernetBytes + kReceiveHeadroomBytes <= 2048 ? 2048U : 4096U;
}

Result<> check_options(const XdpAttachment& attachment, const AfXdpOptions& options) {
  const InterfaceFacts& nic = attachment.interface();
  if (options.queue >= nic.queues) {
    return error(ErrorCode::kNotFound,
                 fmt::format("interface '{}' has no queue {}, only {}", nic.name, options.queue, nic.queues));
  }
  if (!std::has_single_bit(options.rx_frames) || !std::has_single_bit(options.tx_frames)) {
    return error(ErrorCode::kInvalid, "rx_frames and tx_frames must be powers of two");
  }
  if (options.max_parts == 0) return error(ErrorCode::kInvalid, "max_parts must not be 0");
  if (std::uint64_t{options.rx_frames} + options.tx_frames > (1U << 20)) {
    return error(ErrorCode::kInvalid, "rx_frames and tx_frames: at most a million together");
  }
  return {};
}

Result<UniqueFd> make_socket() {
  UniqueFd socket(::socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0));
  if (!socket && errno == EAFNOSUPPORT) return error(ErrorCode::kUnsupported, "this kernel has no AF_XDP");
  if (!socket) return system_error("socket(AF_XDP) (needs CAP_NET_RAW)");
  return socket;
}

Result<> set_option(int socket_fd, int option, const void* value, socklen_t length, const char* what) {
  if (::setsockopt(socket_fd, SOL_XDP, option, value, length) == 0) return {};
  if (errno == ENOBUFS || errno == ENOMEM) {
    return std::unexpected(
        Error{ErrorCode::kNoResource, errno,
              std::string(what) + " (memory, or the limit of locked memory: give CAP_IPC_LOCK, or raise ulimit -l)"});
  }
  return system_error(what);
}

Result<> register_memory(int socket_fd, const Umem& umem) {
  xdp_umem_reg registration{};
  registration.addr = umem.start();
  registration.len = umem.bytes();
  registration.chunk_size = umem.buffer_bytes();
  return set_option(socket_fd, XDP_UMEM_REG, &registration, sizeof registration, "registering packet memory");
}

// Both only make sending cheaper; a kernel that does not know them sends 32 frames a call.
void raise_send_limits(int socket_fd, const Umem& umem, std::uint32_t tx_frames) {
  const std::uint32_t frames_per_call = tx_frames;
  static_cast<void>(::setsockopt(socket_fd, SOL_XDP, kXdpMaxTxSkbBudget, &frames_per_call, sizeof frames_per_call));
  const int send_buffer_bytes = static_cast<int>(std::min<std::size_t>(umem.bytes(), 64U << 20));
  static_cast<void>(::setsockopt(socket_fd, SOL_SOCKET, SO_SNDBUFFORCE, &send_buffer_bytes, sizeof send_buffer_bytes));
}

// From best to worst; a forced mode has one choice, with and without multi-buffer.
std::vector<std::uint16_t> bind_choices(XdpMode mode, bool forced) {
  std::vector<std::uint16_t> choices;
  const auto add = [&](std::uint16_t copy_flag) {
    choices.push_back(static_cast<std::uint16_t>(copy_flag | XDP_USE_NEED_WAKEUP | kXdpUseSg));
    choices.push_back(static_cast<std::uint16_t>(copy_flag | XDP_USE_NEED_WAKEUP));
  };
  if (mode == XdpMode::kZeroCopy) add(XDP_ZEROCOPY);
  if (mode != XdpMode::kZeroCopy || !forced) add(XDP_COPY);
  return choices;
}

}  // namespace

Result<std::unique_ptr<AfXdpLink>> AfXdpLink::open(XdpAttachment& attachment, const AfXdpOptions& wanted) {
  AfXdpOptions options = wanted;
  TRY(check_options(attachment, options));
  const InterfaceFacts& nic = attachment.interface();
  ASSIGN_OR_RETURN(options.frame_bytes, choose_frame_bytes(options, nic.mtu_bytes));
  ASSIGN_OR_RETURN(const ScopedNetns inside, ScopedNetns::enter(attachment.netns_fd()));
  ASSIGN_OR_RETURN(UniqueFd socket, make_socket());
  ASSIGN_OR_RETURN(Umem umem, Umem::make(options.rx_frames + options.tx_frames, options.frame_bytes));
  const LinkInfo info{.mac = nic.mac,
                      .mtu_bytes = nic.mtu_bytes,
                      .interface_index = nic.index,
                      .queue = options.queue,
                      .checksum = attachment.checksum_mode()};
  std::unique_ptr<AfXdpLink> link(new AfXdpLink(std::move(socket), std::move(umem), info, options));
  TRY(link->set_up_rings());
  TRY(link->bind(attachment));
  TRY(attachment.set_socket(options.queue, link->socket_.get()));
  return link;
}

AfXdpLink::AfXdpLink(UniqueFd socket, Umem umem, const LinkInfo& info, const AfXdpOptions& options)
    : socket_(std::move(socket)), umem_(std::move(umem)), info_(info), options_(options) {
  frames_.reserve(options.rx_frames);
  parts_.reserve(options.rx_frames);
  held_.reserve(options.rx_frames);
  const std::uint32_t frame_room = info.mtu_bytes + wire::kEthernetBytes;
  chunks_per_slot_ = (frame_room + options.frame_bytes - 1) / options.frame_bytes;
  slot_bytes_ = chunks_per_slot_ * options.frame_bytes;
  const std::uint32_t slots = options.tx_frames / chunks_per_slot_;
  slot_in_flight_.assign(slots, 0);
  free_slots_.reserve(slots);
  for (std::uint32_t slot = slots; slot > 0; --slot) free_slots_.push_back(slot - 1);
}

Result<> AfXdpLink::set_up_rings() {
  const int fd = socket_.get();
  TRY(register_memory(fd, umem_));
  const std::uint32_t rx = options_.rx_frames;
  const std::uint32_t tx = options_.tx_frames;
  TRY(set_option(fd, XDP_UMEM_FILL_RING, &rx, sizeof rx, "making the fill ring"));
  TRY(set_option(fd, XDP_UMEM_COMPLETION_RING, &tx, sizeof tx, "making the completion ring"));
  TRY(set_option(fd, XDP_RX_RING, &rx, sizeof rx, "making the receive ring"));
  TRY(set_option(fd, XDP_TX_RING, &tx, sizeof tx, "making the send ring"));
  xdp_mmap_offsets offsets{};
  socklen_t length = sizeof offsets;
  if (::getsockopt(fd, SOL_XDP, XDP_MMAP_OFFSETS, &offsets, &length) != 0) return system_error("XDP_MMAP_OFFSETS");
  ASSIGN_OR_RETURN(RingMapping fill,
                   Ring<std::uint64_t>::map(fd, static_cast<off_t>(XDP_UMEM_PGOFF_FILL_RING), offsets.fr, rx));
  ASSIGN_OR_RETURN(RingMapping completion,
                   Ring<std::uint64_t>::map(fd, static_cast<off_t>(XDP_UMEM_PGOFF_COMPLETION_RING), offsets.cr, tx));
  ASSIGN_OR_RETURN(RingMapping received, Ring<xdp_desc>::map(fd, XDP_PGOFF_RX_RING, offsets.rx, rx));
  ASSIGN_OR_RETURN(RingMapping sent, Ring<xdp_desc>::map(fd, XDP_PGOFF_TX_RING, offsets.tx, tx));
  fill_ = ProducerRing<std::uint64_t>(std::move(fill), offsets.fr, rx);
  completion_ = ConsumerRing<std::uint64_t>(std::move(completion), offsets.cr, tx);
  rx_ = ConsumerRing<xdp_desc>(std::move(received), offsets.rx, rx);
  tx_ = ProducerRing<xdp_desc>(std::move(sent), offsets.tx, tx);
  raise_send_limits(fd, umem_, tx);
  fill_all();
  return {};
}

void AfXdpLink::fill_all() {
  for (std::uint64_t frame = 0; frame < options_.rx_frames; ++frame) fill_.push(frame * options_.frame_bytes);
  fill_.submit();
}

Result<> AfXdpLink::bind(const XdpAttachment& attachment) {
  return bind_one_of(attachment, bind_choices(attachment.mode(), attachment.mode_is_forced()));
}

std::uint32_t AfXdpLink::largest_mtu_of_one_buffer() const noexcept {
  return options_.frame_bytes - kReceiveHeadroomBytes - wire::kEthernetBytes;
}

std::unexpected<Error> AfXdpLink::mtu_too_large(const std::string& interface) const {
  return std::unexpected(
      Error{ErrorCode::kUnsupported, 0,
            fmt::format("interface '{}': frames of its MTU {} need several AF_XDP buffers, which this kernel or the "
                        "device's driver does not support: lower the MTU to {} or less (`ip link set mtu`), take "
                        "another XDP mode, or use "
                        "Linux 6.6 or newer",
                        interface, info_.mtu_bytes, largest_mtu_of_one_buffer())});
}

Result<> AfXdpLink::bind_one_of(const XdpAttachment& attachment, std::span<const std::uint16_t> choices) {
  sockaddr_xdp address{};
  address.sxdp_family = AF_XDP;
  address.sxdp_ifindex = info_.interface_index;
  address.sxdp_queue_id = info_.queue;
  int failed_with = 0;
  bool is_too_large = false;
  for (const std::uint16_t flags : choices) {
    // Without multi-buffer frames of several are neither sent nor received: the send ring would stand still.
    if ((flags & kXdpUseSg) == 0 && info_.mtu_bytes > largest_mtu_of_one_buffer()) {
      is_too_large = true;
      continue;
    }
    if ((flags & kXdpUseSg) != 0 && options_.without_multi_buffer) continue;
    address.sxdp_flags = flags;
    if (::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
      multi_buffer_ = (flags & kXdpUseSg) != 0;
      const bool zero_copy = (flags & XDP_ZEROCOPY) != 0;
      mode_ = attachment.mode() != XdpMode::kZeroCopy ? attachment.mode()
              : zero_copy                             ? XdpMode::kZeroCopy
                                                      : XdpMode::kNative;
      return {};
    }
    failed_with = errno;
    if (failed_with == EBUSY) break;  // another socket has the queue: no other mode helps
  }
  if (is_too_large && failed_with != EBUSY) return mtu_too_large(attachment.interface().name);
  const std::string what =
      fmt::format("binding AF_XDP to queue {} of '{}' ({}){}", info_.queue, attachment.interface().name,
                  name(attachment.mode()), failed_with == EBUSY ? ": another socket has it" : "");
  const ErrorCode code = failed_with == EBUSY                                 ? ErrorCode::kNoResource
                         : failed_with == EOPNOTSUPP || failed_with == EINVAL ? ErrorCode::kUnsupported
                                                                              : ErrorCode::kSystem;
  return std::unexpected(Error{code, failed_with, what});
}

}  // namespace twinstack::nic
