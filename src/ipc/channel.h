// Messages with descriptors over a SOCK_SEQPACKET unix socket. No state; either side; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace twinstack::ipc {

inline constexpr std::size_t kMaxMessageFds = 192;

struct Received {
  std::size_t size_bytes = 0;  // 0: the other side closed
  std::vector<UniqueFd> fds;
  bool is_cut = false;        // the message was longer than the buffer
  bool has_lost_fds = false;  // some of its descriptors did not find room in this process
};

// Sends one message; errno EAGAIN when the socket is non-blocking and full.
[[nodiscard]] Result<> send_message(int socket, std::span<const std::byte> message, std::span<const int> fds);
// Receives one message into `buffer`. Closes no descriptor that came: that is the caller's, who may not want to block.
// `flags`: MSG_DONTWAIT or 0.
[[nodiscard]] Result<Received> receive_message(int socket, std::span<std::byte> buffer, int flags);

[[nodiscard]] Result<UniqueFd> connect_to(std::string_view path);
[[nodiscard]] Result<UniqueFd> listen_on(std::string_view path, int type);

}  // namespace twinstack::ipc
