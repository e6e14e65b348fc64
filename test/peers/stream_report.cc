// See stream_report.h.
#include "stream_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "sockets.h"

namespace twinstack::peers {
namespace {

constexpr std::size_t kFailuresShown = 5;

// Our own texts and strerror()'s: no control characters, so that quotes and backslashes are all that needs care.
std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

}  // namespace

StreamReport::StreamReport(Role role) : role_(role), started_ns_(now_ns()) {}

void StreamReport::note(const std::string& failure) {
  ++connections_;
  if (failure.empty()) return;
  ++failed_;
  if (failures_.size() < kFailuresShown) failures_.push_back(failure);
}

void StreamReport::add(const Sender& sender, const Receiver& receiver, const std::string& failure) {
  const std::lock_guard lock(mutex_);
  note(failure);
  bytes_sent_ += sender.stats.bytes;
  bytes_received_ += receiver.stats.bytes;
  digest_sent_ += sender.stats.digest.value();
  digest_received_ += receiver.stats.digest.value();
  longest_stall_ns_ = std::max(longest_stall_ns_, receiver.longest_stall_ns);
}

void StreamReport::add_failure(const std::string& failure) {
  const std::lock_guard lock(mutex_);
  note(failure);
}

std::uint64_t StreamReport::ended() const {
  const std::lock_guard lock(mutex_);
  return connections_;
}

bool StreamReport::print() const {
  const std::lock_guard lock(mutex_);
  const double seconds = static_cast<double>(now_ns() - started_ns_) / 1e9;
  std::string failures;
  for (const std::string& failure : failures_) failures += (failures.empty() ? "" : ",") + quoted(failure);
  fmt::print(
      "{{\"role\":\"{}\",\"connections\":{},\"failed\":{},\"bytes_sent\":{},\"bytes_received\":{},"
      "\"digest_sent\":\"{:016x}\",\"digest_received\":\"{:016x}\",\"longest_stall_ms\":{:.1f},\"seconds\":{:.3f},"
      "\"failures\":[{}]}}\n",
      role_ == Role::kClient ? "client" : "server", connections_, failed_, bytes_sent_, bytes_received_, digest_sent_,
      digest_received_, static_cast<double>(longest_stall_ns_) / 1e6, seconds, failures);
  std::fflush(stdout);
  return connections_ > 0 && failed_ == 0;
}

}  // namespace twinstack::peers
