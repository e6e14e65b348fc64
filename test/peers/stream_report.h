// Sums up the connections of a stream_peer run and prints them as one JSON line. Thread safe.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include "stream_connection.h"

namespace twinstack::peers {

class StreamReport {
 public:
  explicit StreamReport(Role role);

  // A connection that ended; `failure` empty when all was right.
  void add(const Sender& sender, const Receiver& receiver, const std::string& failure);
  // A connection that never got as far as having streams.
  void add_failure(const std::string& failure);

  // Prints the line on stdout. True if there was a connection and none failed.
  [[nodiscard]] bool print() const;

  [[nodiscard]] std::uint64_t ended() const;

 private:
  void note(const std::string& failure);

  Role role_;
  std::uint64_t started_ns_;
  mutable std::mutex mutex_;  // guards all below
  std::uint64_t connections_ = 0;
  std::uint64_t failed_ = 0;
  std::uint64_t bytes_sent_ = 0;
  std::uint64_t bytes_received_ = 0;
  std::uint64_t digest_sent_ = 0;  // sums over connections, so that both sides' orders may differ
  std::uint64_t digest_received_ = 0;
  std::uint64_t longest_stall_ns_ = 0;
  std::vector<std::string> failures_;  // the first few
};

}  // namespace twinstack::peers
