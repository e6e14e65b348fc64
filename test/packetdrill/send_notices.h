// SendNotices: what a socket's error queue tells of the bytes that it sends: MSG_ZEROCOPY completions and transmit
// timestamps (SO_TIMESTAMPING), as Linux queues them. The stack under test knows neither; both follow from how far its
// queue has been sent and acknowledged. One per socket, not thread-safe.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <deque>
#include <vector>

#include "base/clock.h"

namespace twinstack::packetdrill {

class SendNotices {
 public:
  void set_zerocopy(bool on) noexcept { zerocopy_ = on; }
  [[nodiscard]] bool zerocopy() const noexcept { return zerocopy_; }
  // SO_TIMESTAMPING; with SOF_TIMESTAMPING_OPT_ID bytes are numbered from the first that is not acknowledged now.
  void set_timestamping(std::uint32_t flags) noexcept;

  // A send() has taken `bytes`; `flags`: its own.
  void on_written(std::size_t bytes, int flags);
  // Of all that was written: not acknowledged yet, not sent yet. True when a notice has come up.
  bool on_progress(std::uint64_t unacknowledged, std::uint64_t unsent, Time now);

  [[nodiscard]] bool empty() const noexcept { return queue_.empty(); }
  // recvmsg() with MSG_ERRQUEUE: fills control data and flags; -EAGAIN when there is none.
  ssize_t pop(msghdr& message, bool v6);

 private:
  struct Write {
    std::uint64_t end = 0;  // of its bytes, from the first that was written at all
    std::uint32_t zerocopy_id = 0;
    bool zerocopy = false;
    bool stamped = false;
    bool sent = false;  // its last byte has left
  };
  struct Notice {
    bool zerocopy = false;
    std::uint32_t kind = 0;   // SCM_TSTAMP_*
    std::uint32_t first = 0;  // ids of zerocopy
    std::uint32_t last = 0;   // ... or the key of the byte
    Time at{};
  };

  void note_sent(const Write& write, Time now);
  void note_acknowledged(const Write& write, Time now);
  void add_stamp(const Write& write, std::uint32_t kind, Time now);
  void add_completion(std::uint32_t id);

  bool zerocopy_ = false;
  std::uint32_t stamp_flags_ = 0;
  std::uint64_t key_base_ = 0;
  std::uint64_t written_ = 0;
  std::uint64_t acknowledged_ = 0;
  std::uint32_t next_id_ = 0;
  std::deque<Write> writes_;
  std::deque<Notice> queue_;
  bool news_ = false;
};

}  // namespace twinstack::packetdrill
