// QuietLibbpf: while it lives libbpf prints nothing: on a refusal it would put the verifier's log on standard error,
// where our errors say what to do. libbpf has one printer for the whole process: one thread at a time.
#pragma once

#include <bpf/libbpf.h>

#include <cstdarg>

namespace twinstack {

class QuietLibbpf {
 public:
  QuietLibbpf() noexcept : before_(libbpf_set_print([](libbpf_print_level, const char*, std::va_list) { return 0; })) {}
  QuietLibbpf(const QuietLibbpf&) = delete;
  QuietLibbpf& operator=(const QuietLibbpf&) = delete;
  ~QuietLibbpf() { libbpf_set_print(before_); }

 private:
  libbpf_print_fn_t before_;
};

}  // namespace twinstack
