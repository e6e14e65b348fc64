// Moves of AdoptForm: by the hand-off, as the service makes them.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <unistd.h>

#include "adopt_form.h"
#include "handoff/offload.h"
#include "handoff/upload.h"
#include "kernel/linux_kernel_conn.h"
#include "sysctls.h"

namespace twinstack::packetdrill {

namespace {

constexpr std::uint32_t kSession = 1;

int tcp_state_of(int fd) {
  tcp_info info{};
  socklen_t length = sizeof info;
  if (::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) != 0) return TCP_CLOSE;
  return info.tcpi_state;
}

}  // namespace

AdoptForm::Socket* AdoptForm::find(int fd) {
  const auto found = sockets_.find(fd);
  return found == sockets_.end() ? nullptr : &found->second;
}

bool AdoptForm::is_kernels(int fd) const {
  const auto found = sockets_.find(fd);
  return found == sockets_.end() || !in_engine(found->second);
}

bool AdoptForm::linux_has_connections() const {
  return std::ranges::any_of(sockets_,
                             [](const auto& entry) { return !in_engine(entry.second) && !entry.second.listening; });
}

void AdoptForm::adopt(Socket& socket) {
  if (socket.stays || in_engine(socket)) return;
  if (const auto adopted = try_adopt(socket); !adopted) {
    counts_.refusals.push_back(adopted.error().message());
    return;
  }
  ++counts_.offloads;
  linux_is_busy_ = linux_has_connections();
  observer_.moved(socket.fd);
}

Result<> AdoptForm::try_adopt(Socket& socket) {
  if (!socket.move) {
    UniqueFd copy(::dup(socket.fd));
    ASSIGN_OR_RETURN(auto real, kernel::LinuxKernelConn::create(
                                    std::move(copy), {.late_filter = filter_.get(), .congestion = hook_.get()}));
    auto move = std::make_unique<handoff::Connection>();
    const FlowKey flow = real->flow();
    move->kernel = std::make_unique<VirtualTimeConn>(std::move(real), seen(flow).times, clock_);
    socket.ring = &program_.open(socket.fd);
    move->arena = &arena_;
    move->session = kSession;
    move->slot = socket.ring->slot;
    move->tag = socket.ring->tag;
    move->port = &box_->port;
    move->path = this;
    socket.move = std::move(move);
  }
  box_->lane.set_host_settings(
      {.tcp_slow_start_after_idle = read_sysctl_number("ipv4/tcp_slow_start_after_idle").value_or(1) != 0,
       .tcp_min_tso_segs = static_cast<std::uint8_t>(read_sysctl_number("ipv4/tcp_min_tso_segs").value_or(2))});
  TRY(handoff::check(*socket.move, tools_));
  TRY(handoff::offload(*socket.move, tools_));
  from_linux();  // what the freeze has had it acknowledge
  work(/*swallow_ack=*/true);
  TRY(kernel::wait_packets_in_flight());
  TRY(handoff::park(*socket.move, tools_));
  work();
  socket.room.begin(box_->conn(socket.move->hw).tcb);
  return {};
}

void AdoptForm::bring_back(Socket& socket, const std::string& cause, bool stays) {
  socket.stays = socket.stays || stays;
  if (!in_engine(socket)) return;
  work();
  if (!in_engine(socket)) return;  // that was reason enough
  ++counts_.uploads;
  counts_.causes.push_back(cause);
  linux_is_busy_ = true;
  const auto moved = handoff::upload(*socket.move, tools_);
  if (!moved) counts_.causes.push_back(moved.error().message());
  from_linux();
  observer_.moved(socket.fd);
  work();
}

void AdoptForm::take_events() {
  for (const engine::Event& event : box_->events()) {
    if (event.type != engine::EventType::kToSoftware) continue;
    for (auto& [fd, socket] : sockets_) {
      if (!in_engine(socket) || socket.move->hw != event.id) continue;
      bring_back(socket, engine::to_string(event.cause), true);
      break;
    }
  }
}

// A connect() has come to its end.
void AdoptForm::look_at_connecting() {
  for (auto& [fd, socket] : sockets_) {
    if (!socket.connecting) continue;
    const int state = tcp_state_of(fd);
    socket.connecting = state == TCP_SYN_SENT || state == TCP_SYN_RECV;
    if (state == TCP_ESTABLISHED) adopt(socket);
  }
}

}  // namespace twinstack::packetdrill
