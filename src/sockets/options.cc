#include "sockets/options.h"

#include <fcntl.h>
#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "sockets/layer.h"
#include "sockets/option_rules.h"
#include "sockets/process.h"
#include "sockets/real_calls.h"
#include "sockets/tcp_info.h"
#include "sockets/transfer.h"

namespace twinstack::sockets {
namespace {

using enum Treatment;

// A call that sets something. Counted when it is done and before it leaves the gate: a move that has read the options
// without closing the gate finds the count the same once it is closed, or reads them again (handoff::check()).
template <typename Call>
auto counted(Sonode& sonode, Call&& call) noexcept {
  return [&sonode, call]() noexcept {
    const Outcome result = call();
    sonode.slot->option_changes.fetch_add(1, std::memory_order_release);
    return result;
  };
}

// The real call where the connection is, but not in the middle of a move.
template <typename Call>
Outcome run_in_place(Sonode& sonode, Call&& call) noexcept {
  const GateScope gate(sonode);
  if (gate.access() == Access::kClosed) return fail(Failure::kBadDescriptor);
  return call();
}

// Traffic class and hop limit as the kernel's socket has them (ipc::header_fields()).
std::uint32_t header_fields_of(int fd) noexcept {
  sockaddr_in6 local{};
  socklen_t length = sizeof(local);
  real().getsockname(fd, reinterpret_cast<sockaddr*>(&local), &length);
  const bool v6 = local.sin6_family == AF_INET6 && !IN6_IS_ADDR_V4MAPPED(&local.sin6_addr);
  const auto number = [fd](int level, int name, int otherwise) noexcept {
    int value = otherwise;
    socklen_t size = sizeof(value);
    real().getsockopt(fd, level, name, &value, &size);
    return static_cast<std::uint8_t>(value);
  };
  constexpr int kUsualHopLimit = 64;
  return v6 ? ipc::header_fields(number(IPPROTO_IPV6, IPV6_TCLASS, 0),
                                 number(IPPROTO_IPV6, IPV6_UNICAST_HOPS, kUsualHopLimit))
            : ipc::header_fields(number(IPPROTO_IP, IP_TOS, 0), number(IPPROTO_IP, IP_TTL, kUsualHopLimit));
}

// The kernel's socket judges the value and keeps it, and the engine is told what holds then. Nothing when the engine
// has not the connection, or its ring no room.
template <typename Call>
std::optional<Outcome> tell_engine(Sonode& sonode, int fd, Call&& call) noexcept {
  if (sonode.session->is_inherited()) return std::nullopt;
  const GateScope gate(sonode);
  if (gate.access() != Access::kEngine) return std::nullopt;
  RingPort& ring = ring_of(sonode);
  const MutexLock lock(sonode.tx_mutex);  // of two calls at once, who sets last tells last
  const std::uint32_t places = sonode.session->reserve(ring, 1);
  if (places == 0) return std::nullopt;
  const Outcome result = call();
  const ipc::SubmitEntry entry{.op = ipc::SubmitOp::kSetHeader,
                               .flags = 0,
                               .reserved0 = 0,
                               .slot = sonode.slot_index,
                               .hw_conn_id = sonode.hw_conn_id(),
                               .chunk = 0,
                               .offset = 0,
                               .length = header_fields_of(fd),
                               .reserved1 = 0};
  sonode.session->submit_reserved(ring, {&entry, 1}, places);
  return result;
}

template <typename Call>
Outcome run(Sonode& sonode, Treatment how, const char* reason, Call&& call) noexcept {
  if (how == kKernelSocket) return run_in_place(sonode, call);
  if (how == kStay)
    if (const Outcome kept = keep_in_kernel(sonode, reason); kept < 0) return kept;
  return run_in_kernel(sonode, reason, call);
}

// Copies an answer of ours as getsockopt(2) does: at most *length bytes.
Outcome answer(void* value, socklen_t* length, const void* truth, socklen_t size) noexcept {
  if (value == nullptr || length == nullptr) return -EFAULT;
  *length = std::min(*length, size);
  std::memcpy(value, truth, *length);
  return 0;
}

// SO_ERROR of the parked socket may hold what the move left there (kernel-facts A2); the engine has none to report: an
// error of the connection sends it back to the kernel.
Outcome get_error(Sonode& sonode, int fd, void* value, socklen_t* length) noexcept {
  const GateScope gate(sonode);
  int error = 0;
  switch (gate.access()) {
    case Access::kClosed:
      return fail(Failure::kBadDescriptor);
    case Access::kAborted:
      error = to_errno(Failure::kAborted);
      break;
    case Access::kEngine:
      break;
    case Access::kKernel:
    case Access::kPlain:
      return outcome_of(real().getsockopt(fd, SOL_SOCKET, SO_ERROR, value, length));
  }
  return answer(value, length, &error, sizeof(error));
}

// TCP_MAXSEG of the parked socket reads the clamp, being in repair (kernel-facts S5).
Outcome get_max_segment(Sonode& sonode, int fd, void* value, socklen_t* length) noexcept {
  if (sonode.owner() == ipc::Owner::kEngine && !sonode.session->is_inherited()) {
    if (const auto state = sonode.session->query(sonode); state.has_value()) {
      // As Linux: without the space that the options of every segment take.
      const int options = (state->min.options & tcp::kOptTimestamps) != 0 ? 12 : 0;
      const int mss = state->min.mss - options;
      return answer(value, length, &mss, sizeof(mss));
    }
  }
  return run_in_kernel(sonode, "TCP_MAXSEG", [=]() noexcept {
    return outcome_of(real().getsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, value, length));
  });
}

// The kernel's answer, and what both stacks have counted before. REQUIRES: inside the gate, the kernel's.
Outcome get_kernel_info(Sonode& sonode, int fd, void* value, socklen_t* length) noexcept {
  wait_for_lesson(sonode);
  const Outcome result = outcome_of(real().getsockopt(fd, IPPROTO_TCP, TCP_INFO, value, length));
  const ipc::ConnSlot& slot = *sonode.slot;
  // In a forked child the slot may serve another connection of the parent's.
  const bool is_ours = slot.tag.load(std::memory_order_acquire) == sonode.tag.load(std::memory_order_relaxed);
  if (result == 0 && is_ours) add_base(ipc::load_counters(slot.base), value, *length);
  return result;
}

// `state`: of the stay that goes on. REQUIRES: inside the gate, the engine's.
Outcome get_engine_info(const Sonode& sonode, int fd, const ipc::HwConnState& state, void* value,
                        socklen_t* length) noexcept {
  tcp::TcpInfo info;
  socklen_t size = sizeof(info);
  const Outcome result = outcome_of(real().getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size));
  if (result < 0) return result;
  put_engine_state(state, ipc::load_counters(sonode.slot->base), info);
  return answer(value, length, &info, size);
}

// The driver is asked outside of the gate, for which it may wait: the answer counts when nothing has moved meanwhile.
Outcome get_tcp_info(Sonode& sonode, int fd, void* value, socklen_t* length) noexcept {
  constexpr int kAttempts = 8;
  for (int i = 0; i < kAttempts && !sonode.session->is_inherited(); ++i) {
    const std::uint32_t word = sonode.slot->owner.load(std::memory_order_acquire);
    if (ipc::OwnerGate::owner_of(word) != ipc::Owner::kEngine) break;
    const auto state = sonode.session->query(sonode);
    const GateScope gate(sonode);
    if (gate.access() != Access::kEngine) break;
    if (sonode.slot->owner.load(std::memory_order_acquire) != word) continue;
    if (!state.has_value()) break;
    return get_engine_info(sonode, fd, *state, value, length);
  }
  return run_in_kernel(sonode, "TCP_INFO", [&]() noexcept { return get_kernel_info(sonode, fd, value, length); });
}

// Bytes sent and not yet acknowledged, in whatever stack they wait.
Outcome get_unacknowledged(Sonode& sonode, int fd, int* count) noexcept {
  const GateScope gate(sonode);
  const ipc::ConnSlot& slot = *sonode.slot;
  switch (gate.access()) {
    case Access::kClosed:
      return fail(Failure::kBadDescriptor);
    case Access::kAborted:
      return fail(Failure::kAborted);
    case Access::kKernel:
    case Access::kPlain:
      wait_for_lesson(sonode);
      return outcome_of(real().ioctl(fd, SIOCOUTQ, count));
    case Access::kEngine:
      break;
  }
  const std::uint64_t acked = slot.tx_acked_bytes.load(std::memory_order_acquire);
  *count = static_cast<int>(slot.tx_submitted_bytes.load(std::memory_order_acquire) - acked);
  return 0;
}

Outcome get_unread(Sonode& sonode, int fd, int* count) noexcept {
  const GateScope gate(sonode);
  if (gate.access() == Access::kClosed) return fail(Failure::kBadDescriptor);
  const std::uint64_t queued = queued_bytes(sonode);
  int in_kernel = 0;
  if (gate.access() == Access::kKernel || gate.access() == Access::kPlain)
    if (const Outcome result = outcome_of(real().ioctl(fd, FIONREAD, &in_kernel)); result < 0) return result;
  *count = in_kernel + static_cast<int>(queued);
  return 0;
}

Outcome get_unsent(Sonode& sonode, int fd, int* count) noexcept {
  if (sonode.owner() == ipc::Owner::kEngine && !sonode.session->is_inherited())
    if (const auto state = sonode.session->query(sonode); state.has_value()) {
      *count = static_cast<int>(state->info.notsent_bytes);
      return 0;
    }
  return run_in_kernel(sonode, "SIOCOUTQNSD",
                       [=]() noexcept { return outcome_of(real().ioctl(fd, SIOCOUTQNSD, count)); });
}

}  // namespace

Outcome set_option(Sonode& sonode, int fd, int level, int name, const void* value, socklen_t length) noexcept {
  const auto call = [=]() noexcept { return outcome_of(real().setsockopt(fd, level, name, value, length)); };
  const Treatment how = treatment(level, name, true);
  if (how == kTellEngine)
    if (const auto told = tell_engine(sonode, fd, counted(sonode, call)); told.has_value()) return *told;
  const Outcome result = run(sonode, how, "setsockopt", counted(sonode, call));
  if (level == SOL_SOCKET && name == SO_RCVTIMEO)
    sonode.receive_timeout_ns.store(Sonode::kTimeoutUnknown, std::memory_order_release);
  if (level == SOL_SOCKET && name == SO_SNDTIMEO)
    sonode.send_timeout_ns.store(Sonode::kTimeoutUnknown, std::memory_order_release);
  return result;
}

Outcome get_option(Sonode& sonode, int fd, int level, int name, void* value, socklen_t* length) noexcept {
  if (level == SOL_SOCKET && name == SO_ERROR) {
    const Outcome result = get_error(sonode, fd, value, length);
    // The question of a program whose connect() was under way.
    if (sonode.state.load(std::memory_order_acquire) == SonodeState::kConnecting) confirm_connected(sonode, fd);
    return result;
  }
  if (level == IPPROTO_TCP && name == TCP_MAXSEG) return get_max_segment(sonode, fd, value, length);
  if (level == IPPROTO_TCP && name == TCP_INFO) return get_tcp_info(sonode, fd, value, length);
  return run(sonode, treatment(level, name, false), "getsockopt", [=, &sonode]() noexcept {
    wait_for_lesson(sonode);  // for TCP_CC_INFO, SO_MEMINFO
    return outcome_of(real().getsockopt(fd, level, name, value, length));
  });
}

Outcome control_io(Sonode& sonode, int fd, unsigned long request, void* argument) noexcept {
  const auto call = [=]() noexcept { return outcome_of(real().ioctl(fd, request, argument)); };
  switch (request) {
    case FIONREAD:
      return argument == nullptr ? -EFAULT : get_unread(sonode, fd, static_cast<int*>(argument));
    case SIOCOUTQ:
      return argument == nullptr ? -EFAULT : get_unacknowledged(sonode, fd, static_cast<int*>(argument));
    case SIOCOUTQNSD:
      return argument == nullptr ? -EFAULT : get_unsent(sonode, fd, static_cast<int*>(argument));
    case FIONBIO: {
      const Outcome result = call();
      sonode.nonblocking.store(Toggle::kUnknown, std::memory_order_release);
      return result;
    }
    case FIOCLEX:
    case FIONCLEX:
      return call();
    // Signals on readiness, the urgent mark: the kernel's alone.
    case FIOASYNC:
    case FIOSETOWN:
    case SIOCSPGRP:
      return run(sonode, kStay, "ioctl", call);
    case SIOCATMARK: {
      // Bytes in chunks lie before the mark.
      const Outcome result = run(sonode, kStay, "ioctl", call);
      if (result >= 0 && queued_bytes(sonode) > 0) *static_cast<int*>(argument) = 0;
      return result;
    }
    default:
      return run(sonode, kBringBack, "ioctl", counted(sonode, call));
  }
}

Outcome control_file(Sonode& sonode, int fd, int command, void* argument) noexcept {
  const auto call = [=]() noexcept { return outcome_of(real().fcntl(fd, command, argument)); };
  switch (command) {
    case F_SETFL: {
      const bool wants_signals = (reinterpret_cast<std::uintptr_t>(argument) & O_ASYNC) != 0;
      const Outcome result = wants_signals ? run(sonode, kStay, "O_ASYNC", call) : call();
      sonode.nonblocking.store(Toggle::kUnknown, std::memory_order_release);
      return result;
    }
    case F_DUPFD:
    case F_DUPFD_CLOEXEC: {
      const Outcome copy = call();
      if (copy >= 0) on_duplicated(fd, static_cast<int>(copy));
      return copy;
    }
    case F_SETOWN:
    case F_SETOWN_EX:
    case F_SETSIG:
      return run(sonode, kStay, "fcntl", call);
    default:
      return call();
  }
}

// The engine carries ESTABLISHED only; what it has not yet taken of the program's bytes goes to the kernel before the
// FIN.
Outcome shut_down(Sonode& sonode, int fd, int how) noexcept {
  return run_in_kernel(sonode, "shutdown", [=]() noexcept { return outcome_of(real().shutdown(fd, how)); });
}

Outcome get_name(Sonode& sonode, int fd, sockaddr* address, socklen_t* length, bool peer) noexcept {
  return run_in_place(sonode, [=]() noexcept {
    return outcome_of(peer ? real().getpeername(fd, address, length) : real().getsockname(fd, address, length));
  });
}

}  // namespace twinstack::sockets
