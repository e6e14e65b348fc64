// See http_reply.h.
#include "http_reply.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cstring>

namespace twinstack::peers {
namespace {

struct Opened {
  int status = 200;
  Body body;
};

std::string lower(std::string_view text) {
  std::string out(text);
  std::ranges::transform(out, out.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

std::optional<std::uint64_t> number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (failure != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

Opened not_found() { return {404, Body::text("not found\n")}; }

Opened open_random(std::string_view rest) {
  const std::size_t slash = rest.find('/');
  if (slash == std::string_view::npos) return not_found();
  const auto seed = number(rest.substr(0, slash));
  const auto size = number(rest.substr(slash + 1));
  if (!seed || !size) return not_found();
  return {200, Body::random(*seed, *size)};
}

Opened open_file(std::string_view path, const std::string& directory) {
  // Also "a..b" is refused: simple and safe.
  if (directory.empty() || path.find("..") != std::string_view::npos) return not_found();
  UniqueFd fd(open((directory + std::string(path)).c_str(), O_RDONLY | O_CLOEXEC));
  struct stat info{};
  if (!fd || fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode)) return not_found();
  return {200, Body::file(std::move(fd), static_cast<std::uint64_t>(info.st_size))};
}

Opened open_target(std::string_view target, const std::string& directory) {
  constexpr std::string_view kRandom = "/random/";
  const std::string_view path = target.substr(0, target.find('?'));
  if (path.starts_with(kRandom)) return open_random(path.substr(kRandom.size()));
  if (!path.starts_with('/')) return not_found();
  return open_file(path, directory);
}

}  // namespace

Body Body::text(std::string text) {
  Body body;
  body.size_bytes_ = text.size();
  body.text_ = std::move(text);
  return body;
}

Body Body::file(UniqueFd fd, std::uint64_t size_bytes) {
  Body body;
  body.file_ = std::move(fd);
  body.size_bytes_ = size_bytes;
  return body;
}

Body Body::random(std::uint64_t seed, std::uint64_t size_bytes) {
  Body body;
  body.pattern_.emplace(seed);
  body.size_bytes_ = size_bytes;
  return body;
}

std::size_t Body::next(std::span<std::byte> into) {
  const std::span<std::byte> piece = into.first(std::min<std::uint64_t>(into.size(), size_bytes_ - at_));
  std::size_t got = piece.size();
  if (pattern_) {
    pattern_->fill(at_, piece);
  } else if (file_) {
    const ssize_t count = pread(file_.get(), piece.data(), piece.size(), static_cast<off_t>(at_));
    got = count < 0 ? 0 : static_cast<std::size_t>(count);
  } else {
    std::memcpy(piece.data(), text_.data() + at_, piece.size());
  }
  at_ += got;
  return got;
}

std::size_t request_head_length(std::string_view bytes) noexcept {
  constexpr std::string_view kEnd = "\r\n\r\n";
  const std::size_t at = bytes.find(kEnd);
  return at == std::string_view::npos ? 0 : at + kEnd.size();
}

Reply make_reply(std::string_view request_head, const std::string& directory) {
  const std::string_view line = request_head.substr(0, request_head.find("\r\n"));
  const std::size_t first = line.find(' ');
  const std::size_t second = first == std::string_view::npos ? first : line.find(' ', first + 1);
  const bool well_formed = second != std::string_view::npos && line.substr(second + 1).starts_with("HTTP/1.");
  const std::string_view method = well_formed ? line.substr(0, first) : std::string_view{};
  Opened opened{400, Body::text("bad request\n")};
  if (method == "GET" || method == "HEAD") {
    opened = open_target(line.substr(first + 1, second - first - 1), directory);
  } else if (well_formed) {
    opened = {501, Body::text("only GET and HEAD\n")};
  }
  Reply reply;
  const std::string headers = lower(request_head);
  const bool old = well_formed && line.substr(second + 1) == "HTTP/1.0";
  reply.keep_alive =
      !old && headers.find("\r\nconnection: close") == std::string::npos && opened.status < 405 && opened.status != 400;
  const std::string_view text = opened.status == 200 ? "OK" : "Error";
  reply.head =
      fmt::format("HTTP/1.1 {} {}\r\nContent-Length: {}\r\nContent-Type: application/octet-stream\r\n{}\r\n",
                  opened.status, text, opened.body.size_bytes(), reply.keep_alive ? "" : "Connection: close\r\n");
  reply.body = std::move(opened.body);
  if (method == "HEAD") reply.body.skip_all();
  return reply;
}

}  // namespace twinstack::peers
