// CongestionHook: a congestion control of our own (BPF struct_ops) that is in charge of a kernel socket for an instant
// and does in its init() what no socket option can: set congestion window and slow-start threshold, and tell how far
// pacing has put off the next segment. The two sides speak through socket-local storage.
//
// Without BTF or struct_ops load() fails: connections come back with the initial window, and what pacing has put off is
// estimated.
// Threads: any, for different sockets.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/result.h"
#include "base/unique_fd.h"

struct bpf_object;
struct bpf_link;

namespace twinstack::kernel {

class CongestionHook {
 public:
  static Result<std::unique_ptr<CongestionHook>> load();
  CongestionHook(const CongestionHook&) = delete;
  CongestionHook& operator=(const CongestionHook&) = delete;
  ~CongestionHook();

  // Sets both on an ESTABLISHED socket; `congestion_control` is in charge afterwards, freshly initialised. On error it
  // is in charge as well, with whatever window the socket had, unless the system refuses even that: then reno is.
  Result<> apply(int socket_fd, std::uint32_t cwnd_segments, std::uint32_t ssthresh_segments,
                 const char* congestion_control);

  // No segment that the socket has sent until now carries a timestamp that lies further ahead of the clock than this
  // (R19 of docs/kernel-facts.md); 0 or more. `congestion_control`, which must be the one in charge, is afterwards
  // freshly initialised; the window stays. On error as with apply().
  [[nodiscard]] Result<Duration> stamp_lead(int socket_fd, const char* congestion_control);

 private:
  CongestionHook() = default;
  Result<> pass_by(int socket_fd, const char* congestion_control);

  bpf_object* object_ = nullptr;
  bpf_link* link_ = nullptr;
  UniqueFd kernel_link_;  // before Linux 6.4 none
  int storage_fd_ = -1;
  std::string name_;  // as registered with the kernel: unique to this process
};

}  // namespace twinstack::kernel
