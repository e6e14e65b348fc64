// The control queue: what the driver asks of the lane. Each command checks its connection's id and state, and changes
// nothing when it refuses.
#include <algorithm>
#include <cstring>
#include <string_view>
#include <utility>

#include "base/assert.h"
#include "engine/conn_host.h"
#include "engine/lane.h"
#include "tcp/ack.h"
#include "tcp/congestion/congestion.h"
#include "tcp/rate.h"

namespace twinstack::engine {
namespace {

std::uint32_t chunks_for(std::uint32_t bytes, std::uint32_t chunk_bytes) {
  return (bytes + chunk_bytes - 1) / chunk_bytes;
}

// The longest frame: an IP packet, Ethernet header and a VLAN tag.
constexpr std::uint32_t kMaxFrameBytes = 65535 + 18;
constexpr std::uint32_t kInitialSendBuffer = 128U << 10;
constexpr std::uint8_t kEstablished = 1;  // TCP_ESTABLISHED

HwConnKept kept_of(const tcp::MinTcp& min) {
  return {
      .scope_id = min.scope_id,
      .snd_buf_bytes = min.snd_buf_bytes,
      .rcv_buf_bytes = min.rcv_buf_bytes,
      // A full segment in any case: a window under that is not offered at all (RFC 9293 3.8.6.2.2).
      .window_clamp_bytes = min.window_clamp_bytes == 0 ? 0 : std::max<std::uint32_t>(min.window_clamp_bytes, min.mss),
      .mss_clamp = min.mss_clamp,
      .flags = static_cast<std::uint16_t>(min.flags & tcp::kFlagFixedReceiveBuffer)};
}

// The core would have CUBIC stand in, and the program's choice would be lost on the way back.
bool knows_congestion_control(const tcp::MinTcp& min) {
  const std::string_view name(min.congestion.data(), ::strnlen(min.congestion.data(), min.congestion.size()));
  return tcp::congestion_ops(tcp::congestion_kind(name)).name == name;
}

}  // namespace

Reply Lane::carry_out(const Command& command, Time now) {
  switch (command.op) {
    case CommandOp::kReserve:
      return reserve(command);
    case CommandOp::kGetChunks:
      return get_chunks(command);
    case CommandOp::kPutChunks:
      return put_chunks(command);
    case CommandOp::kSweep:
      return sweep(command, now);
    case CommandOp::kNotify:
      return notify(command);
    case CommandOp::kSetHop:
      set_hop(command);
      return Reply{};
    default:
      break;
  }
  const std::uint32_t index = resolve(command.id);
  if (index == kNone) return refuse(Status::kStaleId);
  switch (command.op) {
    case CommandOp::kLoad:
      return load(command);
    case CommandOp::kInstall:
      return install(command, now);
    case CommandOp::kInject:
      return inject(command, now);
    case CommandOp::kActivate:
      return activate(command, now);
    case CommandOp::kDrain:
      return drain(command, now);
    case CommandOp::kHold:
      return hold(command, now);
    case CommandOp::kExtract:
      return extract(command, now);
    case CommandOp::kDropHeld:
      drop_held(index, command.late_pieces, command.held_pieces);
      return Reply{};
    case CommandOp::kRelease:
      return release(command);
    case CommandOp::kQuery:
      return query(command, now);
    case CommandOp::kSetHopOf:
      return set_hop_of(command);
    case CommandOp::kPacketTooBig:
      return packet_too_big(command, now);
    case CommandOp::kSilent:
      return silent(command, now);
    default:
      return refuse(Status::kBadArgument);
  }
}

Reply Lane::reserve(const Command& command) {
  LaneSession* owner = session(command.session);
  if (owner == nullptr || owner->broken || owner->ring(command.ring) == nullptr ||
      command.chunk_count > kMaxCommandChunks || command.slot >= owner->arena().geometry().slot_count ||
      flows_.find(command.flow) != kNone)
    return refuse(Status::kBadArgument);
  if (free_head_ == kNone) return refuse(Status::kNoSlot);
  if (waiting_.available() == 0) return refuse(Status::kNoPiece);
  if (owner->pool().available() < command.chunk_count) return refuse(Status::kNoChunk);
  // Of what is left one move takes no more than half: the others have to receive.
  if (owner->pool().available() / 2 < command.expected_chunks) return refuse(Status::kNoChunk);
  const std::uint32_t index = free_head_;
  HwConn& conn = conns_[index];
  free_head_ = std::exchange(conn.timer_next, kNone);
  ASSERT(conn.state == ConnState::kFree);
  conn.state = ConnState::kHeld;
  conn.session = static_cast<std::uint16_t>(command.session);
  conn.unread_bytes = 0;
  conn.engine_queued_bytes = 0;
  conn.waiting = waiting_.take();
  records_[index] = HwConnRecord{.flow = command.flow,
                                 .slot = command.slot,
                                 .tag = command.tag,
                                 .ring = static_cast<std::uint8_t>(command.ring),
                                 .kernel_cookie = command.kernel_cookie};
  flows_.insert(index);
  ++in_use_;
  ++owner->connections;
  Reply reply = get_chunks(command);
  reply.id = id_of(index);
  return reply;
}

Reply Lane::get_chunks(const Command& command) {
  LaneSession* owner = session(command.session);
  if (owner == nullptr || command.chunk_count > kMaxCommandChunks) return refuse(Status::kBadArgument);
  if (owner->pool().available() < command.chunk_count) return refuse(Status::kNoChunk);
  Reply reply;
  reply.chunk_count = command.chunk_count;
  for (std::uint32_t i = 0; i < command.chunk_count; ++i) reply.chunks[i] = owner->pool().take();
  return reply;
}

Reply Lane::put_chunks(const Command& command) {
  LaneSession* owner = session(command.session);
  if (owner == nullptr || command.chunk_count > kMaxCommandChunks) return refuse(Status::kBadArgument);
  for (std::uint32_t i = 0; i < command.chunk_count; ++i) owner->pool().drop(command.chunks[i]);
  return Reply{};
}

// What the program has not read, and what the peer has not acknowledged. Unread bytes are read before anything that the
// engine receives; they are posted when the connection is activated, so that a move can still be undone.
Status Lane::queue_loaded(std::uint32_t index, const Command& command) {
  HwConn& conn = conns_[index];
  LaneSession& owner = owner_of(conn);
  const std::uint32_t chunk_bytes = owner.chunk_bytes();
  const std::uint32_t unread_chunks = chunks_for(command.unread_bytes, chunk_bytes);
  const std::uint32_t chunks = unread_chunks + chunks_for(command.send_bytes, chunk_bytes);
  if (chunks != command.chunk_count || chunks > kMaxCommandChunks) return Status::kBadArgument;
  LaneRing& ring = *owner.ring(records_[index].ring);
  if (ring.complete.room() < completions_kept(ring) + unread_chunks) return Status::kRingFull;
  if (pieces_.available() < chunks) return Status::kNoPiece;
  const auto queue = [&](PieceList& list, std::uint32_t at, std::uint32_t left) {
    for (; left > 0; ++at) {
      const std::uint32_t here = std::min(left, chunk_bytes);
      const bool queued =
          pieces_.append(list, Piece{.chunk = command.chunks[at], .offset = 0, .length = here | Piece::kEngineChunk});
      ASSERT(queued);
      left -= here;
    }
  };
  queue(want_waiting(index)->unread, 0, command.unread_bytes);
  queue(conn.send_queue, unread_chunks, command.send_bytes);
  ring.unread_pieces += unread_chunks;
  conn.unread_bytes += command.unread_bytes;
  conn.engine_queued_bytes += command.send_bytes;
  return Status::kOk;
}

// On success all chunks of the command are the connection's; on refusal they stay the driver's.
Reply Lane::load(const Command& command) {
  const std::uint32_t index = resolve(command.id);
  const HwConn& conn = conns_[index];
  if (conn.state != ConnState::kHeld || (conn.flags & kInstalled) != 0) return refuse(Status::kBadState);
  return Reply{.status = queue_loaded(index, command), .id = command.id};
}

// Takes over a connection: its state and (what load() has not brought) its queues. Chunks as with load().
Reply Lane::install(const Command& command, Time now) {
  const std::uint32_t index = resolve(command.id);
  HwConn& conn = conns_[index];
  HwConnRecord& record = records_[index];
  LaneSession& owner = owner_of(conn);
  if (conn.state != ConnState::kHeld || (conn.flags & kInstalled) != 0) return refuse(Status::kBadState);
  if (command.hop_index >= hops_.size() ||
      command.min.write_seq - command.min.snd_una != conn.engine_queued_bytes + command.send_bytes)
    return refuse(Status::kBadArgument);
  tcp::ControlBlock tcb;
  if (!knows_congestion_control(command.min)) return refuse(Status::kUnsupported);
  if (!tcp::install(tcb, command.min, now).has_value()) return refuse(Status::kUnsupported);
  if (const Status queued = queue_loaded(index, command); queued != Status::kOk) return refuse(queued);
  conn.tcb = std::move(tcb);
  conn.flags |= kInstalled;
  tcp::set_restart_after_idle(conn.tcb, host_settings_.tcp_slow_start_after_idle);
  tcp::set_smallest_burst(conn.tcb, host_settings_.tcp_min_tso_segs);
  tcp::set_challenges_free(conn.tcb, host_settings_.tcp_invalid_ratelimit_ms == 0);
  tcp::other_stack_may_send(conn.tcb);
  conn.send_head_skip = 0;
  conn.cursor_piece = kNone;
  conn.rx_chunk = kNone;
  conn.rx_fill = 0;
  conn.rx_posted = 0;
  record.hop = static_cast<std::uint16_t>(command.hop_index);
  kept_[index] = kept_of(command.min);
  record.ttl = command.min.ttl;
  record.traffic_class = command.min.traffic_class;
  record.flow_label = command.min.flow_label;
  // The window that we offer must be one that the kernel can take back: half of its buffer, as Linux itself offers
  // (tcp_adv_win_scale 1), or what it has offered already.
  const std::uint32_t offered =
      command.min.rcv_wnd - std::min(command.min.rcv_wnd, command.min.rcv_nxt - command.min.rcv_wup);
  // And a full segment in any case.
  conn.rcv_buf_bytes =
      std::max({command.min.rcv_buf_bytes / 2, offered + conn.unread_bytes, std::uint32_t{command.min.mss}});
  tcp::begin_receive_tuning(kept_[index].receive, conn.tcb, conn.rcv_buf_bytes, command.min.advmss, now);
  record.snd_buf_units = kInitialSendBuffer / HwConnRecord::kSendBufferUnit;
  tcp::install_path(conn.tcb, path_limit(index), command.min.mss_found, now);
  kept_[index].delivery_rate = tcp::delivery_rate_of(command.min, conn.tcb.mss);
  // Who sends full segments has found what the path carries, or was never to search (an accepted socket of Linux).
  if (host_settings_.tcp_mtu_probing >= 2 && command.min.mss_found != 0) tcp::probe_path(conn.tcb, now);
  owner.arena().slot(record.slot).tx_limit_bytes.store(record.snd_buf_bytes(), std::memory_order_relaxed);
  return Reply{.status = Status::kOk, .id = command.id};
}

Reply Lane::inject(const Command& command, Time now) {
  const std::uint32_t index = resolve(command.id);
  LaneSession& owner = owner_of(conns_[index]);
  const std::uint32_t chunk_bytes = owner.chunk_bytes();
  if (command.chunk_count > kMaxCommandChunks || command.frame_bytes > kMaxFrameBytes ||
      command.frame_bytes > command.chunk_count * chunk_bytes)
    return refuse(Status::kBadArgument);
  std::array<ByteView, kMaxCommandChunks> parts;
  std::uint32_t left = command.frame_bytes;
  std::size_t count = 0;
  for (; left > 0; ++count) {
    const std::uint32_t here = std::min(left, chunk_bytes);
    parts[count] = owner.arena().chunk(command.chunks[count]).first(here);
    left -= here;
  }
  if (conns_[index].state == ConnState::kHeld)
    hold_frame(index, &Waiting::late, {parts.data(), count}, command.frame_bytes);
  else if (const ByteView copy = own_copy(index, {parts.data(), count}, command.frame_bytes); !copy.empty())
    // What the kernel has had in hands may carry a partial checksum on any device (GRO).
    process_frame({&copy, 1}, command.frame_bytes, wire::ChecksumMode::kAcceptPartial, now);
  return put_chunks(Command{.op = CommandOp::kPutChunks,
                            .session = conns_[index].session,
                            .chunk_count = command.chunk_count,
                            .chunks = command.chunks});
}

// Also the way back from a hold: the engine goes on where it was.
Reply Lane::activate(const Command& command, Time now) {
  const std::uint32_t index = resolve(command.id);
  HwConn& conn = conns_[index];
  if (conn.state != ConnState::kHeld || (conn.flags & kInstalled) == 0) return refuse(Status::kBadState);
  conn.state = ConnState::kActive;
  conn.flags &= static_cast<std::uint8_t>(~(kLeaving | kDraining | kExtracted));
  tcp::set_draining(conn.tcb, false, now);
  post_unread(index);
  replay_held(index, now);
  end_waiting(index);
  tcp::acknowledge_now(conn.tcb);
  want_transmit(index);
  return Reply{.status = Status::kOk, .id = command.id};
}

Reply Lane::drain(const Command& command, Time now) {
  const std::uint32_t index = resolve(command.id);
  HwConn& conn = conns_[index];
  if (conn.state != ConnState::kActive) return refuse(Status::kBadState);
  tcp::set_draining(conn.tcb, command.flag != 0, now);
  Reply reply;
  reply.drained = tcp::is_drained(conn.tcb) ? 1 : 0;
  if (command.flag != 0 && reply.drained == 0)
    conn.flags |= kDraining;
  else
    conn.flags &= static_cast<std::uint8_t>(~kDraining);
  want_transmit(index);
  return reply;
}

Reply Lane::hold(const Command& command, Time now) {
  const std::uint32_t index = resolve(command.id);
  HwConn& conn = conns_[index];
  if (conn.state != ConnState::kActive) return refuse(Status::kBadState);
  conn.flags &= static_cast<std::uint8_t>(~kDraining);
  // An ACK that is owed leaves before the kernel speaks. (If the device takes nothing now, the kernel's probe at its
  // release acknowledges: R11.)
  if (tcp::owes_ack(conn.tcb)) tcp::acknowledge_now(conn.tcb);
  tcp::set_draining(conn.tcb, true, now);
  transmit_connection(index, now);
  conn.state = ConnState::kHeld;
  last_words_ = true;
  timers_.cancel(index);
  return Reply{};
}

Reply Lane::extract(const Command& command, Time now) {
  const std::uint32_t index = resolve(command.id);
  HwConn& conn = conns_[index];
  if (conn.state != ConnState::kHeld || (conn.flags & kInstalled) == 0) return refuse(Status::kBadState);
  // What the program has submitted before the owner changed belongs to the send queue: at most the whole ring. What a
  // program adds meanwhile does not keep us here.
  LaneSession& owner = owner_of(conn);
  LaneRing& ring = *owner.ring(records_[index].ring);
  drain_ring(conn.session, owner, ring, now, owner.arena().geometry().sq_entries + 1, pieces_.capacity());
  if (ring.waiting && !owner.broken) return refuse(Status::kNoPiece);
  conn.flags |= kExtracted;
  post_received(index);
  if (conn.rx_chunk != kNone) close_rx_chunk(conn, owner);
  hold_out_of_order(index);
  Reply reply;
  reply.id = command.id;
  fill_state(index, now, reply.state);
  reply.send_head = conn.send_queue.head;
  reply.send_head_skip = conn.send_head_skip;
  reply.gave_up = conn.tcb.has(tcp::kGaveUp) ? 1 : 0;
  report_held(index, reply);
  return reply;
}

Reply Lane::sweep(const Command& command, Time now) {
  // At most what a device's ring can hold: a fast peer must not keep us here.
  constexpr int kSweepRounds = 64;
  for (int round = 0; round < kSweepRounds && receive_frames(now); ++round) {
  }
  Reply reply;
  if (const std::uint32_t index = resolve(command.id); index != kNone) report_held(index, reply);
  return reply;
}

Reply Lane::release(const Command& command) {
  const std::uint32_t index = resolve(command.id);
  HwConn& conn = conns_[index];
  const HwConnRecord& record = records_[index];
  LaneSession& owner = owner_of(conn);
  if (conn.state != ConnState::kHeld) return refuse(Status::kBadState);
  held_to_strays(index);
  if (Waiting* waiting = waiting_of(index); waiting != nullptr) {
    owner.ring(record.ring)->unread_pieces -= count_pieces(waiting->unread);
    drop_pieces(waiting->unread, owner, UINT32_MAX);
  }
  end_waiting(index);
  if (conn.rx_chunk != kNone) close_rx_chunk(conn, owner);
  // What was still queued has been handed to the kernel: for the application it is as good as acknowledged.
  auto& acked = owner.arena().slot(record.slot).tx_acked_bytes;
  acked.store(acked.load(std::memory_order_relaxed) + (queued_bytes(conn) - conn.engine_queued_bytes),
              std::memory_order_seq_cst);
  while (!conn.send_queue.empty()) {
    const Piece piece = pieces_.at(conn.send_queue.head);
    pieces_.pop_front(conn.send_queue);
    give_back(index, owner, piece);
  }
  timers_.cancel(index);
  flows_.erase(index);
  conn.tcb = tcp::ControlBlock{};
  conn.send_head_skip = 0;
  conn.cursor_piece = kNone;
  conn.state = ConnState::kFree;
  conn.flags &= kInTransmitList | kLookDue;  // transmit() and run_timers() take it out
  // The id is never used again; generation 0 would make id 0 possible.
  if (++conn.generation == 0) conn.generation = 1;
  free_slot(index);
  --in_use_;
  --owner.connections;
  return Reply{};
}

// The MinTcp as it was installed, with what has changed since.
void Lane::fill_min(std::uint32_t index, Time now, tcp::MinTcp& min) const {
  const HwConn& conn = conns_[index];
  const HwConnRecord& record = records_[index];
  const HwConnKept& kept = kept_[index];
  min = tcp::MinTcp{};
  min.flow = record.flow;
  min.scope_id = kept.scope_id;
  min.mss_clamp = kept.mss_clamp;
  min.advmss = kept.receive.advmss;
  min.snd_buf_bytes = kept.snd_buf_bytes;
  min.rcv_buf_bytes = kept.rcv_buf_bytes;
  min.window_clamp_bytes = kept.window_clamp_bytes;
  min.keepalive_idle_s = conn.tcb.keepalive_idle_s;
  min.keepalive_interval_s = conn.tcb.keepalive_interval_s;
  min.keepalive_probes = conn.tcb.keepalive_probes;
  min.ttl = record.ttl;
  min.traffic_class = record.traffic_class;
  min.flow_label = record.flow_label;
  tcp::extract(conn.tcb, now, min);
  min.bytes_acked = tcp::ever_acked(conn.tcb, record.counters.bytes_acked);
  min.flags |= kept.flags;
  min.delivery_rate = tcp::bytes_per_second(kept.delivery_rate, conn.tcb.mss);
  min.delivery_app_limited = tcp::is_app_limited(kept.delivery_rate) ? 1 : 0;
  min.copied_seq = min.rcv_nxt - conn.unread_bytes;
}

void Lane::fill_state(std::uint32_t index, Time now, ipc::HwConnState& state) const {
  const HwConn& conn = conns_[index];
  state = ipc::HwConnState{};
  state.hw_conn_id = id_of(index).raw();
  fill_min(index, now, state.min);
  state.unread_bytes = conn.unread_bytes;
  state.lane = index_;
  tcp::fill_tcp_info(conn.tcb, records_[index].counters, kept_[index].delivery_rate, now, state.info);
  state.info.state = kEstablished;
  state.info.advmss = state.min.advmss;
}

Reply Lane::query(const Command& command, Time now) {
  const std::uint32_t index = resolve(command.id);
  if ((conns_[index].flags & kInstalled) == 0) return refuse(Status::kBadState);
  Reply reply;
  reply.id = command.id;
  fill_state(index, now, reply.state);
  return reply;
}

Reply Lane::silent(const Command& command, Time now) {
  const std::uint32_t index = resolve(command.id);
  if ((conns_[index].flags & kInstalled) == 0) return refuse(Status::kBadState);
  tcp::other_stack_silent(conns_[index].tcb, Seq(command.min.snd_nxt), now);
  want_transmit(index);  // arms the timer
  return query(command, now);
}

Reply Lane::notify(const Command& command) {
  LaneSession* owner = session(command.session);
  if (owner == nullptr || owner->ring(command.ring) == nullptr) return refuse(Status::kBadArgument);
  const bool posted = complete(*owner, command.ring,
                               ipc::CompleteEntry{.op = ipc::CompleteOp::kOwnerChanged,
                                                  .flags = 0,
                                                  .reserved0 = 0,
                                                  .slot = command.slot,
                                                  .tag = command.tag,
                                                  .chunk = 0,
                                                  .offset = 0,
                                                  .length = 0,
                                                  .hw_conn_id = command.id.raw()});
  return posted ? Reply{} : refuse(Status::kRingFull);
}

}  // namespace twinstack::engine
