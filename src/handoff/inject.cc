#include "handoff/inject.h"

#include <algorithm>
#include <cstring>

namespace twinstack::handoff {

using engine::CommandOp;

Result<> inject_frame(Connection& conn, ByteView frame) {
  const std::uint32_t chunk_bytes = conn.arena->geometry().chunk_bytes;
  const auto count = static_cast<std::uint32_t>((frame.size() + chunk_bytes - 1) / chunk_bytes);
  ASSIGN_OR_RETURN(const engine::Reply got,
                   conn.port->request({.op = CommandOp::kGetChunks, .session = conn.session, .chunk_count = count}));
  for (std::size_t done = 0, i = 0; done < frame.size(); done += chunk_bytes, ++i)
    std::memcpy(conn.arena->chunk(got.chunks[i]).data(), frame.data() + done,
                std::min<std::size_t>(chunk_bytes, frame.size() - done));
  engine::Command command{.op = CommandOp::kInject, .session = conn.session, .id = conn.hw};
  command.frame_bytes = static_cast<std::uint32_t>(frame.size());
  command.chunk_count = got.chunk_count;
  command.chunks = got.chunks;
  const auto injected = conn.port->request(command);
  if (injected) return {};
  command.op = CommandOp::kPutChunks;  // refused: they are still ours
  (void)conn.port->call(command);
  return std::unexpected(injected.error());
}

}  // namespace twinstack::handoff
