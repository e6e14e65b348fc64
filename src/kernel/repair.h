// TCP_REPAIR in single steps, as snapshot, park and restore put them together. Internal to this folder.
#pragma once

#include <cstdint>

#include "base/result.h"

namespace twinstack::kernel::repair {

enum class Mode : std::int8_t { kOn = 1, kOffWithProbe = 0, kOffSilent = -1 };  // TCP_REPAIR_ON, _OFF, _OFF_NO_WP
enum class Queue : std::uint8_t { kNone = 0, kReceive = 1, kSend = 2 };         // TCP_NO_QUEUE ...

Result<> set_mode(int fd, Mode mode);
Result<> select_queue(int fd, Queue queue);
// Of the selected queue: its end. kSend: write_seq; kReceive: rcv_nxt (S4).
Result<std::uint32_t> queue_seq(int fd);
Result<> set_queue_seq(int fd, std::uint32_t seq);
// rcv_nxt, with no queue selected afterwards, so that stray calls go on failing.
Result<std::uint32_t> receive_seq(int fd);
Result<std::uint32_t> send_seq(int fd);

}  // namespace twinstack::kernel::repair
