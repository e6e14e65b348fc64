// Frames in: parse, find the connection, let the TCP core decide.
#include <algorithm>
#include <cstddef>
#include <utility>

#include "engine/conn_host.h"
#include "engine/lane.h"

namespace twinstack::engine {
namespace {

// Of one poll: whoever has a command for the lane waits for its end. Frames may be super-packets of 64 KB.
constexpr std::size_t kFramesPerPoll = 64;
constexpr std::size_t kBytesPerPoll = 256U << 10;
constexpr std::size_t kLargeFramesPerPoll = kBytesPerPoll / 65536;
constexpr std::size_t kMaxStrays = 256;

// Headers, and as much data as a small message has.
void prefetch_head(const nic::RxFrame& frame) noexcept {
  if (frame.parts.empty()) return;
  const ByteView head = frame.parts.front();
  for (std::size_t at = 0; at < std::min<std::size_t>(head.size(), 192); at += 64) __builtin_prefetch(head.data() + at);
}

Cause cause_of(tcp::Arrival arrival) noexcept {
  switch (arrival) {
    case tcp::Arrival::kToSoftwareReset:
      return Cause::kPeerReset;
    case tcp::Arrival::kToSoftwareFin:
      return Cause::kPeerFin;
    default:
      return Cause::kUrgent;
  }
}

}  // namespace

bool Lane::receive_frames(Time now) {
  auto frames = link_.receive(frames_per_poll_);
  if (frames.empty()) return false;
  std::size_t bytes = 1;
  for (const auto& frame : frames) bytes += frame.length_bytes;
  // The next ones will be about as large as these.
  frames_per_poll_ = std::clamp(kBytesPerPoll * frames.size() / bytes, kLargeFramesPerPoll, kFramesPerPoll);
  const wire::ChecksumMode mode = link_.info().checksum;
  while (!frames.empty()) {
    const auto group = frames.first(std::min(frames.size(), arrived_.size()));
    frames = frames.subspan(group.size());
    receive_group(group, mode, now);
  }
  link_.release();
  return true;
}

// In steps, each for all of them: what a step needs of the tables was sent for by the one before it, so that the waits
// for memory (cell, record, then what that refers to) run side by side and not one after another.
void Lane::receive_group(std::span<const nic::RxFrame> frames, wire::ChecksumMode mode, Time now) {
  const auto arrived = std::span(arrived_).first(frames.size());
  for (const nic::RxFrame& frame : frames) prefetch_head(frame);
  for (std::size_t i = 0; i < frames.size(); ++i) {
    Arrived& in = arrived[i];
    in.is_packet = parse(frames[i].parts, frames[i].length_bytes, mode, in.packet);
    if (!in.is_packet) continue;
    in.hash = flows_.hash(in.packet.flow);
    flows_.prefetch(in.hash);
  }
  for (Arrived& in : arrived) {
    in.index = in.is_packet ? flows_.likely_slot(in.hash) : kNone;
    if (in.index != kNone) prefetch_tables(in.index);
  }
  for (std::size_t i = 0; i < frames.size(); ++i) {
    Arrived& in = arrived[i];
    const bool found = in.index != kNone && records_[in.index].flow == in.packet.flow;
    if (!found && in.is_packet) in.index = find_connection(in.packet, in.hash, frames[i].parts, frames[i].length_bytes);
    if (in.index != kNone) prefetch_references(in.index);
  }
  for (std::size_t i = 0; i < frames.size(); ++i) {
    if (arrived[i].index == kNone) continue;
    process_packet(arrived[i].index, arrived[i].packet, frames[i].parts, frames[i].length_bytes, now);
  }
}

// What a packet touches: the hot state and the record.
void Lane::prefetch_tables(std::uint32_t index) const noexcept {
  prefetch_line_by_line(records_[index]);
  prefetch_line_by_line(conns_[index]);
}

// ... and what these refer to: the program's slot, the flight and the first piece that an ACK may end.
void Lane::prefetch_references(std::uint32_t index) noexcept {
  const HwConn& conn = conns_[index];
  const ipc::ConnSlot& slot = owner_of(conn).slot(records_[index].slot);
  __builtin_prefetch(&slot.rx_posted_bytes, 1);
  __builtin_prefetch(&kept_[index].delivery_rate, 1);
  if (!conn.send_queue.empty()) __builtin_prefetch(&pieces_.at(conn.send_queue.head), 1);
  if (conn.tcb.flight) prefetch_line_by_line<tcp::FlightFront, tcp::FlightFront::kHotBytes>(*conn.tcb.flight);
}

void Lane::process_frame(std::span<const ByteView> parts, std::uint32_t length, wire::ChecksumMode mode, Time now) {
  wire::TcpPacket packet;
  if (!parse(parts, length, mode, packet)) return;
  const std::uint32_t index = find_connection(packet, flows_.hash(packet.flow), parts, length);
  if (index != kNone) process_packet(index, packet, parts, length, now);
}

bool Lane::parse(std::span<const ByteView> parts, std::uint32_t length, wire::ChecksumMode mode,
                 wire::TcpPacket& packet) {
  const auto verdict = wire::parse_frame(parts, length, mode, packet);
  ++counters_.frames[static_cast<std::size_t>(verdict)];
  return verdict == wire::ParseVerdict::kOk;
}

// kNone: it is none of ours.
std::uint32_t Lane::find_connection(const wire::TcpPacket& packet, std::uint32_t hash, std::span<const ByteView> parts,
                                    std::uint32_t length) {
  const std::uint32_t index = flows_.find(packet.flow, hash);
  if (index == kNone) {
    ++counters_.unknown_flow;
    keep_stray(parts, length);
  }
  return index;
}

void Lane::process_packet(std::uint32_t index, const wire::TcpPacket& packet, std::span<const ByteView> parts,
                          std::uint32_t length, Time now) {
  if (conns_[index].state == ConnState::kHeld)
    hold_frame(index, &Waiting::held, parts, length);
  else
    process_segment(index, packet, parts, length, now);
}

void Lane::process_segment(std::uint32_t index, const wire::TcpPacket& packet, std::span<const ByteView> parts,
                           std::uint32_t length, Time now) {
  HwConn& conn = conns_[index];
  const Seq una = conn.tcb.snd_una;
  const std::uint32_t out_of_order = records_[index].counters.out_of_order;
  ConnHost host(*this, index);
  const tcp::Arrival arrival = tcp::on_segment(conn.tcb, packet.segment, packet.payload, host, now);
  ++counters_.segments[static_cast<std::size_t>(arrival)];
  if (tcp::to_software(arrival)) {
    // Who has reset the connection wants no ACK: one that is owed would leave before the kernel sees the reset.
    if (arrival == tcp::Arrival::kToSoftwareReset) tcp::owe_nothing(conn.tcb);
    hold_for_kernel(index, arrival, parts, length);
    raise_to_software(index, cause_of(arrival));
    return;
  }
  if (records_[index].counters.out_of_order != out_of_order) on_out_of_order(index);
  if (conn.tcb.snd_una != una) release_acknowledged(index, bytes_between(una, conn.tcb.snd_una));
  if ((conn.flags & (kInTransmitList | kDraining)) == 0 && tcp::rest(conn.tcb))
    schedule(index, now);  // a turn in the transmit list would do no more
  else
    want_transmit(index);
}

void Lane::replay_held(std::uint32_t index, Time now) {
  Waiting* waiting = waiting_of(index);
  if (waiting == nullptr) return;
  LaneSession& owner = owner_of(conns_[index]);
  PieceList late = std::exchange(waiting->late, PieceList{});
  PieceList held = std::exchange(waiting->held, PieceList{});
  waiting->held_bytes = 0;
  waiting->for_kernel = 0;
  // What of these is for the kernel (a FIN, say) is held anew, as a copy.
  const auto replay = [&](const PieceList& list, wire::ChecksumMode mode) {
    for_each_frame(index, list, [&](std::span<const ByteView> parts, std::uint32_t length) {
      process_frame(parts, length, mode, now);
    });
  };
  replay(late, wire::ChecksumMode::kAcceptPartial);
  replay(held, link_.info().checksum);
  drop_pieces(late, owner, UINT32_MAX);
  drop_pieces(held, owner, UINT32_MAX);
}

void Lane::keep_stray(std::span<const ByteView> parts, std::uint32_t length) {
  if (strays_.size() >= kMaxStrays) {
    ++counters_.stray_dropped;
    return;
  }
  std::vector<std::byte> copy(length);
  Payload(parts, 0, length).copy_to(copy);
  strays_.push_back(std::move(copy));
  signal_ = true;
}

}  // namespace twinstack::engine
