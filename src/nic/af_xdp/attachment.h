// XdpAttachment: our XDP program on one interface, with its two maps: which flows (Steering) and which AF_XDP socket
// per queue. Flows that are not steered, and steered ones on a queue without a socket, go on to the kernel.
//
//   ASSIGN_OR_RETURN(auto inside, ScopedNetns::enter("blue"));     // optional
//   ASSIGN_OR_RETURN(auto nic, XdpAttachment::attach({.interface = "eth0"}));
//   ASSIGN_OR_RETURN(auto link, AfXdpLink::open(*nic, {.queue = 0}));
//   nic->steering().add(flow, 1);
//
// The program is held by a bpf_link: it leaves the interface when this object or the process ends, however it ends.
// Where the kernel has no such links for XDP (before 5.9) it is attached the old way and taken off by the destructor.
//
// Control path; needs CAP_NET_ADMIN, CAP_BPF and CAP_NET_RAW. One thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"
#include "nic/af_xdp/steering.h"
#include "nic/link.h"

namespace twinstack::nic {

enum class XdpMode : std::uint8_t {
  kAuto,      // real device: zero-copy if it can, else native, else generic. veth, tap, bridge ...: generic, because
              // native XDP on veth takes segmentation offload from the peer of every connection on the link
  kNative,    // in the driver, frames are copied
  kGeneric,   // in the stack, frames are copied; every interface can
  kZeroCopy,  // in the driver, the device writes to our memory
};
[[nodiscard]] std::string_view name(XdpMode mode) noexcept;
// "auto", "native", "generic", "zerocopy".
Result<XdpMode> parse_xdp_mode(std::string_view word);

// What is known of an interface without touching it.
struct InterfaceFacts {
  std::string name;
  std::uint32_t index = 0;
  bool is_ethernet = false;  // its frames begin with an Ethernet header; neither loopback nor a tunnel of bare packets
  bool is_loopback = false;
  MacAddress mac{};
  std::uint32_t mtu_bytes = 0;
  std::uint32_t queues = 1;          // combined or receive queues, whichever the driver counts
  std::string driver;                // "veth", "virtio_net"; empty when it does not say
  bool is_virtual = false;           // frames come from this host or through a file descriptor, not from a device
  std::uint32_t xdp_program_id = 0;  // attached now, 0 for none
};
// Of an interface of the current namespace. kNotFound when there is none of that name.
Result<InterfaceFacts> interface_facts(const std::string& interface);
// kUnsupported, with what to use instead, for interfaces on which no connection can ever move: loopback, and those
// without Ethernet frames.
Result<> check_can_serve(const InterfaceFacts& facts);

struct AttachOptions {
  std::string interface;
  XdpMode mode = XdpMode::kAuto;
  std::uint32_t max_flows = 65536;
  bool without_link = false;  // attach the old way even where bpf_link exists: for tests
};

class XdpAttachment {
 public:
  // Attaches to an interface of the namespace that the calling thread is in. Errors: kNotFound (no such interface),
  // kNoResource (another XDP program is there: the message has its id), kUnsupported (mode not possible, or an
  // interface that check_can_serve() refuses), kSystem (no privilege, no memory: the message says which).
  static Result<std::unique_ptr<XdpAttachment>> attach(const AttachOptions& options);
  XdpAttachment(const XdpAttachment&) = delete;
  XdpAttachment& operator=(const XdpAttachment&) = delete;
  ~XdpAttachment();

  [[nodiscard]] const InterfaceFacts& interface() const noexcept { return facts_; }
  // kGeneric, kNative, or kZeroCopy (wanted by the caller or by kAuto: sockets try it first, see AfXdpLink::mode()).
  [[nodiscard]] XdpMode mode() const noexcept { return mode_; }
  // True when the caller insists on mode(), false when a socket may take the next best.
  [[nodiscard]] bool mode_is_forced() const noexcept { return forced_; }
  // Why this mode was taken, for people: "veth: generic leaves the peer's segmentation offload alone".
  [[nodiscard]] const std::string& mode_reason() const noexcept { return mode_reason_; }
  [[nodiscard]] ChecksumMode checksum_mode() const noexcept;

  [[nodiscard]] Steering& steering() noexcept { return steering_; }
  [[nodiscard]] std::uint32_t program_id() const noexcept { return program_id_; }
  // The namespace of the interface.
  [[nodiscard]] int netns_fd() const noexcept { return netns_.get(); }

  // Steered packets of `queue` go to this AF_XDP socket from now on; called by AfXdpLink. The kernel forgets the
  // socket by itself when it is closed.
  Result<> set_socket(std::uint32_t queue, int xsk_fd);

 private:
  struct Program;
  XdpAttachment(InterfaceFacts facts, UniqueFd netns, std::unique_ptr<Program> program, Steering steering);
  Result<> attach_program(XdpMode wanted);
  Result<> attach_as(XdpMode mode);
  int attach_program_as(XdpMode mode);

  InterfaceFacts facts_;
  UniqueFd netns_;
  std::unique_ptr<Program> program_;
  Steering steering_;
  XdpMode mode_ = XdpMode::kGeneric;
  bool forced_ = false;
  bool without_link_ = false;
  std::string mode_reason_;
  std::uint32_t program_id_ = 0;
};

}  // namespace twinstack::nic
