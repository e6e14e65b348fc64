// CwndRestorer: gives a restored kernel socket the congestion window and slow-start threshold that it shall have.
// Linux has no socket option for that, so a congestion control of our own (BPF struct_ops) takes them from socket-local
// storage in its init() and the real one takes over at once.
//
// Without BTF or struct_ops load() fails, and connections come back with the initial window.
// Threads: any, for different sockets.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"

struct bpf_object;
struct bpf_link;

namespace twinstack::kernel {

class CwndRestorer {
 public:
  static Result<std::unique_ptr<CwndRestorer>> load();
  CwndRestorer(const CwndRestorer&) = delete;
  CwndRestorer& operator=(const CwndRestorer&) = delete;
  ~CwndRestorer();

  // Sets both on an ESTABLISHED socket; `congestion_control` is in charge afterwards, freshly initialised. On error it
  // is in charge as well, with whatever window the socket had, unless the system refuses even that (kSystem).
  Result<> apply(int socket_fd, std::uint32_t cwnd_segments, std::uint32_t ssthresh_segments,
                 const char* congestion_control);

 private:
  CwndRestorer() = default;

  bpf_object* object_ = nullptr;
  bpf_link* link_ = nullptr;
  int storage_fd_ = -1;
  std::string name_;  // as registered with the kernel: unique to this process
};

}  // namespace twinstack::kernel
