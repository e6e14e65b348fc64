#include "handoff/held_packets.h"

#include <vector>

namespace twinstack::handoff {
namespace {

using engine::Piece;

struct FrameList {
  std::vector<ByteView> parts;
  std::vector<std::size_t> first_part;  // of each frame

  // The lane may be appending to the list: no more than the `count` pieces that it has told of are looked at.
  void add(const Connection& conn, std::uint32_t head, std::uint32_t count) {
    const auto pieces = conn.port->pieces();
    for (std::uint32_t at = head; count > 0; --count) {
      const Piece& piece = pieces[at];
      if (count > 1) at = piece.next;
      if ((piece.length & Piece::kFrameStart) != 0) first_part.push_back(parts.size());
      parts.push_back(conn.arena->chunk(piece.chunk).subspan(piece.offset, piece.bytes()));
    }
  }

  [[nodiscard]] std::vector<nic::RxFrame> frames() const {
    std::vector<nic::RxFrame> out;
    out.reserve(first_part.size());
    for (std::size_t i = 0; i < first_part.size(); ++i) {
      const std::size_t end = i + 1 < first_part.size() ? first_part[i + 1] : parts.size();
      const std::span<const ByteView> mine(parts.data() + first_part[i], end - first_part[i]);
      std::uint32_t length = 0;
      for (const ByteView part : mine) length += static_cast<std::uint32_t>(part.size());
      out.push_back(nic::RxFrame{.parts = mine, .length_bytes = length});
    }
    return out;
  }
};

}  // namespace

Result<std::uint32_t> inject_held(Connection& conn, int rounds) {
  std::uint32_t injected = 0;
  for (int round = 0; round < rounds; ++round) {
    ASSIGN_OR_RETURN(const engine::Reply swept, conn.port->request({.op = engine::CommandOp::kSweep, .id = conn.hw}));
    FrameList list;
    list.add(conn, swept.late_head, swept.late_pieces);
    list.add(conn, swept.held_head, swept.held_pieces);
    if (list.first_part.empty()) break;
    const auto frames = list.frames();
    TRY(conn.path->inject(frames));
    injected += static_cast<std::uint32_t>(frames.size());
    TRY(conn.port->request({.op = engine::CommandOp::kDropHeld,
                            .id = conn.hw,
                            .late_pieces = swept.late_pieces,
                            .held_pieces = swept.held_pieces}));
  }
  return injected;
}

}  // namespace twinstack::handoff
