#include "kernel/repair.h"

#include <linux/tcp.h>
#include <netinet/in.h>

#include "kernel/sockopt.h"

namespace twinstack::kernel::repair {
namespace {

Result<std::uint32_t> seq_of(int fd, Queue queue) {
  TRY(select_queue(fd, queue));
  ASSIGN_OR_RETURN(const std::uint32_t seq, queue_seq(fd));
  TRY(select_queue(fd, Queue::kNone));
  return seq;
}

}  // namespace

Result<> set_mode(int fd, Mode mode) {
  return set_option(fd, IPPROTO_TCP, TCP_REPAIR, static_cast<int>(mode), "TCP_REPAIR");
}

Result<> select_queue(int fd, Queue queue) {
  return set_option(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, static_cast<int>(queue), "TCP_REPAIR_QUEUE");
}

Result<std::uint32_t> queue_seq(int fd) {
  return get_option<std::uint32_t>(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, "TCP_QUEUE_SEQ");
}

Result<> set_queue_seq(int fd, std::uint32_t seq) {
  return set_option(fd, IPPROTO_TCP, TCP_QUEUE_SEQ, seq, "TCP_QUEUE_SEQ");
}

Result<std::uint32_t> receive_seq(int fd) { return seq_of(fd, Queue::kReceive); }

Result<std::uint32_t> send_seq(int fd) { return seq_of(fd, Queue::kSend); }

}  // namespace twinstack::kernel::repair
