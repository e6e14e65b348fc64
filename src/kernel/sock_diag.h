// SockDiag: asks the kernel's socket diagnosis (NETLINK_SOCK_DIAG, as `ss` does) what no socket option tells about a
// TCP socket. Bound to the network namespace that the calling thread was in at open().
//
// One thread at a time. No call blocks: the kernel answers within the request.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "base/unique_fd.h"
#include "wire/flow.h"

namespace twinstack::kernel {

struct SockDiagAnswer {
  bool md5 = false;                // TCP MD5 keys are attached
  std::uint32_t unread_bytes = 0;  // rcv_nxt - copied_seq, urgent mark or not
};

class SockDiag {
 public:
  static Result<SockDiag> open();
  // kNotFound when no such connection is in the namespace.
  Result<SockDiagAnswer> ask(const FlowKey& flow, bool is_v6_socket, std::uint32_t scope_id, std::uint64_t cookie);

 private:
  explicit SockDiag(UniqueFd socket) : socket_(std::move(socket)) {}

  UniqueFd socket_;
  std::uint32_t sequence_ = 0;
};

}  // namespace twinstack::kernel
