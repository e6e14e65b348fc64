#include "nic/af_xdp/attachment.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/if_link.h>

#include <cerrno>

#include "base/assert.h"
#include "bpf/quiet_libbpf.h"
#include "bpf/shared.h"
#include "nic/af_xdp/netns.h"
#include "steer.skel.h"

namespace twinstack::nic {
namespace {

__u32 flags_of(XdpMode mode) noexcept { return mode == XdpMode::kGeneric ? XDP_FLAGS_SKB_MODE : XDP_FLAGS_DRV_MODE; }

std::string privilege_hint(int error_number) {
  if (error_number == EPERM || error_number == EACCES)
    return " (needs CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW, or root)";
  if (error_number == ENOMEM) return " (memory, or the limit of locked memory: ulimit -l)";
  return {};
}

}  // namespace

std::string_view name(XdpMode mode) noexcept {
  switch (mode) {
    case XdpMode::kAuto:
      return "auto";
    case XdpMode::kNative:
      return "native";
    case XdpMode::kGeneric:
      return "generic";
    case XdpMode::kZeroCopy:
      return "zerocopy";
  }
  return "?";
}

Result<XdpMode> parse_xdp_mode(std::string_view word) {
  for (const XdpMode mode : {XdpMode::kAuto, XdpMode::kNative, XdpMode::kGeneric, XdpMode::kZeroCopy}) {
    if (word == name(mode)) return mode;
  }
  return error(ErrorCode::kInvalid, fmt::format("unknown XDP mode '{}': auto, native, generic or zerocopy", word));
}

// The loaded program, and what holds it to the interface.
struct XdpAttachment::Program {
  steer_bpf* skeleton = nullptr;
  UniqueFd link;
  std::uint32_t interface_index = 0;
  __u32 old_style_flags = 0;  // not 0: attached without a link, to be taken off by hand

  Program() = default;
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
  ~Program() {
    if (old_style_flags != 0) {
      bpf_xdp_attach_opts options{};
      options.sz = sizeof options;
      options.old_prog_fd = fd();
      bpf_xdp_detach(static_cast<int>(interface_index), old_style_flags | XDP_FLAGS_REPLACE, &options);
    }
    link.reset();
    if (skeleton != nullptr) steer_bpf__destroy(skeleton);
  }

  [[nodiscard]] int fd() const { return bpf_program__fd(skeleton->progs.ts_steer_xdp); }
  Result<> load(std::uint32_t max_flows);
};

Result<> XdpAttachment::Program::load(std::uint32_t max_flows) {
  const QuietLibbpf quiet;
  skeleton = steer_bpf__open();
  int result = skeleton == nullptr ? -errno : bpf_map__set_max_entries(skeleton->maps.ts_flows, max_flows);
  if (result == 0) result = steer_bpf__load(skeleton);
  if (result != 0) return system_error("loading the XDP program" + privilege_hint(-result), -result);
  return {};
}

XdpAttachment::XdpAttachment(InterfaceFacts facts, UniqueFd netns, std::unique_ptr<Program> program, Steering steering)
    : facts_(std::move(facts)),
      netns_(std::move(netns)),
      program_(std::move(program)),
      steering_(std::move(steering)) {}

XdpAttachment::~XdpAttachment() {
  // The old way of attaching goes by interface number, which means something in its namespace only.
  if (program_->old_style_flags == 0) return;
  const auto inside = ScopedNetns::enter(netns_.get());
  if (inside.has_value()) program_.reset();
}

Result<std::unique_ptr<XdpAttachment>> XdpAttachment::attach(const AttachOptions& options) {
  if (options.max_flows == 0) return error(ErrorCode::kInvalid, "max_flows must not be 0");
  ASSIGN_OR_RETURN(InterfaceFacts facts, interface_facts(options.interface));
  TRY(check_can_serve(facts));
  if (facts.xdp_program_id != 0) {
    return error(ErrorCode::kNoResource, fmt::format("interface '{}' has an XDP program already (id {}): see "
                                                     "`bpftool prog show id {}`, or is another service running?",
                                                     facts.name, facts.xdp_program_id, facts.xdp_program_id));
  }
  ASSIGN_OR_RETURN(UniqueFd netns, open_current_netns());
  auto program = std::make_unique<Program>();
  program->interface_index = facts.index;
  TRY(program->load(options.max_flows));
  UniqueFd map(::fcntl(bpf_map__fd(program->skeleton->maps.ts_flows), F_DUPFD_CLOEXEC, 3));
  if (!map) return system_error("duplicating the steering map's descriptor");
  ASSIGN_OR_RETURN(Steering steering, Steering::adopt(std::move(map)));
  std::unique_ptr<XdpAttachment> made(
      new XdpAttachment(std::move(facts), std::move(netns), std::move(program), std::move(steering)));
  made->without_link_ = options.without_link;
  TRY(made->attach_program(options.mode));
  return made;
}

Result<> XdpAttachment::attach_program(XdpMode wanted) {
  forced_ = wanted != XdpMode::kAuto;
  if (forced_) {
    mode_reason_ = "asked for";
    return attach_as(wanted);
  }
  if (facts_.is_virtual) {
    mode_reason_ = fmt::format("{} is virtual: generic leaves the peer's segmentation offload alone",
                               facts_.driver.empty() ? facts_.name : facts_.driver);
    return attach_as(XdpMode::kGeneric);
  }
  const Result<> in_driver = attach_as(XdpMode::kZeroCopy);
  if (in_driver.has_value()) {
    mode_reason_ = fmt::format("driver {} runs XDP", facts_.driver);
    return {};
  }
  mode_reason_ = fmt::format("driver {} refuses native XDP: {}", facts_.driver, in_driver.error().message());
  return attach_as(XdpMode::kGeneric);
}

// 0 or the negative errno, as libbpf.
int XdpAttachment::attach_program_as(XdpMode mode) {
  const QuietLibbpf quiet;
  const auto index = static_cast<int>(facts_.index);
  if (!without_link_) {
    bpf_link_create_opts options{};
    options.sz = sizeof options;
    options.flags = flags_of(mode);
    const int link = bpf_link_create(program_->fd(), index, BPF_XDP, &options);
    if (link >= 0) {
      program_->link.reset(link);
      return 0;
    }
    // No links for XDP in this kernel, or the driver refuses: the old way tells which.
    if (link != -EINVAL && link != -EOPNOTSUPP) return link;
  }
  const int result = bpf_xdp_attach(index, program_->fd(), flags_of(mode) | XDP_FLAGS_UPDATE_IF_NOEXIST, nullptr);
  if (result == 0) program_->old_style_flags = flags_of(mode);
  return result;
}

Result<> XdpAttachment::attach_as(XdpMode mode) {
  const int result = attach_program_as(mode);
  if (result != 0) {
    const auto code = result == -EOPNOTSUPP || result == -EINVAL ? ErrorCode::kUnsupported
                      : result == -EBUSY || result == -EEXIST    ? ErrorCode::kNoResource
                                                                 : ErrorCode::kSystem;
    return std::unexpected(Error{
        code, -result, fmt::format("attaching XDP ({}) to '{}'{}", name(mode), facts_.name, privilege_hint(-result))});
  }
  mode_ = mode;
  bpf_prog_info info{};
  __u32 length = sizeof info;
  if (bpf_obj_get_info_by_fd(program_->fd(), &info, &length) == 0) program_id_ = info.id;
  return {};
}

ChecksumMode XdpAttachment::checksum_mode() const noexcept {
  // Generic XDP sees frames after GRO, which checked their checksums and leaves the partial form behind.
  return facts_.is_virtual || mode_ == XdpMode::kGeneric ? ChecksumMode::kAcceptPartial : ChecksumMode::kVerify;
}

Result<> XdpAttachment::set_socket(std::uint32_t queue, int xsk_fd) {
  if (queue >= TS_MAX_QUEUES)
    return error(ErrorCode::kInvalid, fmt::format("queue {}: at most {}", queue, TS_MAX_QUEUES));
  const int map = bpf_map__fd(program_->skeleton->maps.ts_sockets);
  const int result = bpf_map_update_elem(map, &queue, &xsk_fd, BPF_ANY);
  if (result != 0) return system_error(fmt::format("giving queue {} to an AF_XDP socket", queue), -result);
  return {};
}

}  // namespace twinstack::nic
