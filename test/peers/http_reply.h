// What file_server answers: parses one HTTP/1.1 request head and opens the body. No sockets.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/unique_fd.h"
#include "pattern.h"

namespace twinstack::peers {

// The body of a reply: a text, a file, or `/random/SEED/BYTES` (the Pattern of that seed).
class Body {
 public:
  Body() = default;
  static Body text(std::string text);
  static Body file(UniqueFd fd, std::uint64_t size_bytes);
  static Body random(std::uint64_t seed, std::uint64_t size_bytes);

  [[nodiscard]] std::uint64_t size_bytes() const noexcept { return size_bytes_; }
  [[nodiscard]] bool at_end() const noexcept { return at_ >= size_bytes_; }
  // The next bytes of the body; 0 when the file turned out shorter than it was.
  [[nodiscard]] std::size_t next(std::span<std::byte> into);
  void skip_all() noexcept { at_ = size_bytes_; }

 private:
  std::string text_;
  UniqueFd file_;
  std::optional<Pattern> pattern_;
  std::uint64_t size_bytes_ = 0;
  std::uint64_t at_ = 0;
};

struct Reply {
  std::string head;
  Body body;
  bool keep_alive = true;
};

// Length of the request head at the start of `bytes` including its empty line; 0 when it is not complete.
[[nodiscard]] std::size_t request_head_length(std::string_view bytes) noexcept;
// `directory` empty: only /random/. GET and HEAD; others are answered with an error and the connection is closed.
[[nodiscard]] Reply make_reply(std::string_view request_head, const std::string& directory);

}  // namespace twinstack::peers
