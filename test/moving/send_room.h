// SendRoom: how much of a write the socket takes, for the test hosts' side of the rings: SO_SNDBUF and
// TCP_NOTSENT_LOWAT as Linux has them (stack/send_buffer.h). The socket layer goes by bytes alone (docs/limits.md).
#pragma once

#include <cstdint>

#include "stack/send_buffer.h"
#include "tcp/control_block.h"

namespace twinstack::moving {

struct SendLimits {
  std::uint32_t buffer_bytes = 0;  // SO_SNDBUF as getsockopt() gives it
  std::uint32_t not_sent_low_water = UINT32_MAX;
};

class SendRoom {
 public:
  // The connection has come to the engine.
  void begin(const tcp::ControlBlock& cb);

  // So many of `wanted` bytes may be added now, in one piece; 0: none. Ends at the end of a chunk. `sent`: how much of
  // the last chunk is no part of it any more.
  std::uint32_t take(const tcp::ControlBlock& cb, Seq sent, const SendLimits& limits, std::size_t wanted);
  // `bytes` have been queued in the engine; `ends_record`: with MSG_EOR.
  void added(ByteView bytes, bool ends_record);
  // poll(): POLLOUT.
  [[nodiscard]] bool is_writable(const tcp::ControlBlock& cb, const SendLimits& limits);

 private:
  stack::SendBuffer buffer_;
};

}  // namespace twinstack::moving
