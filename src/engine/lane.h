// Lane: the engine's loop of one NIC queue, as a plain object. Whoever holds the lane's lock may call poll(now): a
// thread of the service, the driver that has just queued a command, the simulator, later a trusted program itself. It
// never blocks, reads no clock, makes no system call: packets go through Link, wake-ups through Waker.
//
// One poll: commands, received frames, submission rings, timers, transmit, completions.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "engine/device.h"
#include "engine/flow_table.h"
#include "engine/hw_conn.h"
#include "engine/lane_session.h"
#include "engine/look_list.h"
#include "engine/piece_pool.h"
#include "engine/region.h"
#include "engine/send_marks.h"
#include "engine/timer_wheel.h"
#include "engine/waiting_table.h"
#include "nic/link.h"
#include "wire/packet.h"

namespace twinstack::engine {

// Wakes the sleeping application: signals the WakeEvent of a ring.
class Waker {
 public:
  virtual ~Waker() = default;
  virtual void wake(std::uint32_t session, std::uint32_t ring) = 0;
};

// What an administrator has set for all connections of the host, named as Linux's sysctls (net.ipv4.*).
struct HostSettings {
  bool tcp_slow_start_after_idle = true;
  bool tcp_moderate_rcvbuf = true;
  std::uint8_t tcp_min_tso_segs = 2;
  std::uint8_t tcp_mtu_probing = 1;              // 2: always; black holes are looked for in any case
  std::uint32_t tcp_invalid_ratelimit_ms = 500;  // 0: no limit; other values are taken for 500
  std::uint32_t tcp_rmem_max_bytes = 6U << 20;   // the third of tcp_rmem
  std::uint32_t tcp_wmem_max_bytes = 4U << 20;   // ... of tcp_wmem
};

struct LaneCounters {
  std::array<std::uint64_t, wire::kParseVerdicts> frames{};  // by ParseVerdict
  std::array<std::uint64_t, tcp::kArrivals> segments{};      // by Arrival
  std::uint64_t unknown_flow = 0;         // packets of no connection: handed to the kernel (take_stray)
  std::uint64_t stray_dropped = 0;        // ... but too many of them
  std::uint64_t held_frames = 0;          // packets that waited for a move
  std::uint64_t held_dropped = 0;         // ... for which there was no memory
  std::uint64_t held_repeated = 0;        // packets for the kernel when one that says the same waited already
  std::uint64_t out_of_order_pruned = 0;  // blocks given up and segments dropped: too much is held out of order
  std::uint64_t completion_full = 0;      // segments dropped because the application does not read its ring
  std::uint64_t submissions = 0;
  std::uint64_t polls = 0;
  std::uint64_t segments_out = 0;
  std::uint64_t pieces_walked = 0;  // of send queues: on the way to a segment's bytes, and all but one of its own
};

[[nodiscard]] inline Reply refuse(Status status) { return Reply{.status = status}; }

class Lane {
 public:
  // `index`: this lane's number among those that the sessions' arenas know. `secret` keys the flow table.
  // REQUIRES: region, link and waker outlive the lane.
  Lane(std::uint32_t index, LaneRegion& region, nic::Link& link, Waker& waker, std::uint64_t secret, Time now);
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  // Attaches an application. REQUIRES: `arena` outlives it; `session` is not open and under 65536.
  void open_session(std::uint32_t session, const ipc::Arena& arena);
  // REQUIRES: all its connections have been released.
  void close_session(std::uint32_t session);

  // Does what there is to do, in bounded time. True when there was work (poll again at once).
  bool poll(Time now);
  // Carries out queued commands only (the driver's quick path). Frames that this produced have been flushed;
  // Link::kick() is the caller's, as after poll().
  void process_commands(Time now);

  // Counts for connections that are installed from now on.
  void set_host_settings(const HostSettings& settings) noexcept { host_settings_ = settings; }

  // How much all connections may hold out of order together (tcp/out_of_order_memory.h).
  void set_out_of_order_limit(std::uint64_t bytes) noexcept { region_.out_of_order().set_limit(bytes); }

  // When poll() must be called even if nothing arrives.
  [[nodiscard]] Time next_deadline() const noexcept;
  // Before sleeping: asks all rings for a wake-up. False: there is work after all, poll again.
  [[nodiscard]] bool prepare_sleep() noexcept;

  // Work that does not wait for anything outside: the lane should be polled now.
  [[nodiscard]] bool has_work() const noexcept;
  // Submissions wait for commands or ACKs to free what they need: poll after commands.
  [[nodiscard]] bool has_waiting_rings() const noexcept { return rings_wait_; }
  // True once after events or strays came up for the driver.
  [[nodiscard]] bool take_signal() noexcept { return std::exchange(signal_, false); }
  // True once after a connection was held: its last frames must have left before its other stack speaks.
  [[nodiscard]] bool take_last_words() noexcept { return std::exchange(last_words_, false); }

  // A frame that was redirected to this lane but belongs to none of its connections; it is the kernel's. Empty: none.
  [[nodiscard]] std::vector<std::byte> take_stray();

  [[nodiscard]] const LaneCounters& counters() const noexcept { return counters_; }
  [[nodiscard]] nic::Link& link() noexcept { return link_; }
  [[nodiscard]] std::uint32_t active_connections() const noexcept { return in_use_; }
  [[nodiscard]] std::uint32_t free_pieces() const noexcept { return pieces_.available(); }
  // Chunks of the session that this lane could lend now; 0 when the session is not open.
  [[nodiscard]] std::uint32_t free_chunks(std::uint32_t session) const noexcept {
    return session < session_of_.size() && session_of_[session] != nullptr ? session_of_[session]->pool().available()
                                                                           : 0;
  }

 private:
  class ConnHost;

  // lane_control.cc: the commands.
  Reply carry_out(const Command& command, Time now);
  Reply reserve(const Command& command);
  Reply get_chunks(const Command& command);
  Reply put_chunks(const Command& command);
  Reply load(const Command& command);
  Reply install(const Command& command, Time now);
  Reply inject(const Command& command, Time now);
  Reply activate(const Command& command, Time now);
  Reply drain(const Command& command, Time now);
  Reply hold(const Command& command, Time now);
  Reply extract(const Command& command, Time now);
  Reply sweep(const Command& command, Time now);
  Reply release(const Command& command);
  Reply query(const Command& command, Time now);
  Reply silent(const Command& command, Time now);
  Reply notify(const Command& command);
  Status queue_loaded(std::uint32_t index, const Command& command);
  void fill_state(std::uint32_t index, Time now, ipc::HwConnState& state) const;
  void fill_min(std::uint32_t index, Time now, tcp::MinTcp& min) const;

  // lane_path.cc: the size of segments.
  Reply packet_too_big(const Command& command, Time now);
  Reply set_hop_of(const Command& command);
  void set_hop(const Command& command);
  [[nodiscard]] std::uint16_t path_limit(std::uint32_t index) const noexcept;
  void bound_mss(std::uint32_t index);

  // lane_receive.cc: frames.
  bool receive_frames(Time now);
  void process_frame(std::span<const ByteView> parts, std::uint32_t length, wire::ChecksumMode mode, Time now);
  struct Arrived {
    wire::TcpPacket packet;
    std::uint32_t hash = 0;  // of its flow
    bool is_packet = false;
    std::uint32_t index = kNone;
  };
  bool parse(std::span<const ByteView> parts, std::uint32_t length, wire::ChecksumMode mode, wire::TcpPacket& packet);
  void receive_group(std::span<const nic::RxFrame> frames, wire::ChecksumMode mode, Time now);
  std::uint32_t find_connection(const wire::TcpPacket& packet, std::uint32_t hash, std::span<const ByteView> parts,
                                std::uint32_t length);
  void process_packet(std::uint32_t index, const wire::TcpPacket& packet, std::span<const ByteView> parts,
                      std::uint32_t length, Time now);
  void prefetch_tables(std::uint32_t index) const noexcept;
  void prefetch_references(std::uint32_t index) noexcept;
  void process_segment(std::uint32_t index, const wire::TcpPacket& packet, std::span<const ByteView> parts,
                       std::uint32_t length, Time now);
  void replay_held(std::uint32_t index, Time now);
  using FrameFn = std::function<void(std::span<const ByteView>, std::uint32_t length)>;
  void for_each_frame(std::uint32_t index, const PieceList& list, const FrameFn& fn);
  ByteView own_copy(std::uint32_t index, std::span<const ByteView> parts, std::uint32_t length);
  void keep_stray(std::span<const ByteView> parts, std::uint32_t length);
  void raise_to_software(std::uint32_t index, Cause cause);

  // lane_held.cc: packets that wait for a move.
  using WaitingFrames = PieceList Waiting::*;  // &Waiting::held or &Waiting::late
  bool hold_frame(std::uint32_t index, WaitingFrames which, std::span<const ByteView> parts, std::uint32_t length,
                  std::uint32_t charged = Piece::kCharged);
  void hold_for_kernel(std::uint32_t index, tcp::Arrival arrival, std::span<const ByteView> parts,
                       std::uint32_t length);
  void hold_bytes(PieceList& list, LaneSession& session, ByteView bytes, std::uint32_t& start);
  bool extend_last(PieceList& list, LaneSession& session, ByteView& bytes);
  void hold_out_of_order(std::uint32_t index);
  void drop_held(std::uint32_t index, std::uint32_t late_pieces, std::uint32_t held_pieces);
  std::uint32_t drop_pieces(PieceList& list, LaneSession& session, std::uint32_t count);
  void held_to_strays(std::uint32_t index);
  void report_held(std::uint32_t index, Reply& reply);
  [[nodiscard]] std::uint32_t count_pieces(const PieceList& list);
  // What waits for this connection; nullptr: nothing does. want_waiting() makes it; nullptr: there are too many.
  [[nodiscard]] Waiting* waiting_of(std::uint32_t index) noexcept;
  [[nodiscard]] Waiting* want_waiting(std::uint32_t index) noexcept;
  void end_waiting(std::uint32_t index) noexcept;  // when nothing waits any more

  // lane_rings.cc: submissions and completions.
  bool drain_submissions(Time now);
  bool drain_ring(std::uint32_t session_index, LaneSession& session, LaneRing& ring, Time now, std::uint32_t limit,
                  std::uint32_t piece_limit);
  [[nodiscard]] std::uint32_t piece_limit() noexcept;
  Cause submit(std::uint32_t session_index, LaneSession& session, const ipc::SubmitEntry& entry, Time now);
  Cause submit_header(std::uint32_t session_index, const ipc::SubmitEntry& entry);
  Cause submit_send(std::uint32_t session_index, LaneSession& session, const ipc::SubmitEntry& entry);
  Cause submit_return(std::uint32_t session_index, LaneSession& session, const ipc::SubmitEntry& entry, Time now);
  void break_session(std::uint32_t session_index, LaneSession& session, Cause cause);
  std::uint32_t deliver(std::uint32_t index, const Payload& payload);
  void tell_room(LaneSession& session, LaneRing& ring);
  std::uint32_t receive_space(std::uint32_t index);
  [[nodiscard]] std::uint32_t receive_capacity(std::uint32_t index) const noexcept;
  void tune_receive(std::uint32_t index, Seq copied_seq, Time now);
  void on_out_of_order(std::uint32_t index);
  void widen_receive(std::uint32_t index, std::uint32_t wanted);
  void want_more(std::uint32_t index);
  void offer_more(LaneSession& session, Time now);
  bool open_rx_chunk(HwConn& conn, LaneSession& session);
  void close_rx_chunk(HwConn& conn, LaneSession& session);
  void post_unread(std::uint32_t index);
  void post_received(std::uint32_t index);
  void post_all();
  void want_post(std::uint32_t index);
  void push_completion(LaneRing& ring, const ipc::CompleteEntry& entry) {
    ring.complete.push(entry);
    if (ring.dirty) return;
    ring.dirty = true;
    dirty_rings_.push_back(&ring);
  }
  bool complete(LaneSession& session, std::uint32_t ring, const ipc::CompleteEntry& entry);
  void publish_completions();
  void cancel_sleep() noexcept;
  // Completion entries of a ring that other posts leave to received bytes: of the connections that wait to post, and of
  // those that wait to be activated (a piece per chunk).
  [[nodiscard]] std::uint32_t completions_kept(const LaneRing& ring) const noexcept {
    return static_cast<std::uint32_t>(post_list_.size()) + ring.unread_pieces + 16;
  }

  // lane_transmit.cc: segments out.
  void want_transmit(std::uint32_t index) {
    if ((conns_[index].flags & kInTransmitList) == 0) join_transmit_list(index);
  }
  void join_transmit_list(std::uint32_t index);
  void transmit(Time now);
  // Whether tx_frame_ is there for the next segment.
  bool link_takes_more() { return !tx_frame_.empty() || allocate_frame(); }
  bool allocate_frame();
  bool transmit_connection(std::uint32_t index, Time now);
  void send_segment(HwConn& conn, HwConnRecord& record, const tcp::SegmentPlan& plan, std::span<std::byte> room);
  void gather(HwConn& conn, Seq seq, std::uint32_t bytes, std::span<std::byte> out, wire::InternetSum& sum);
  SendPlace find_again(const HwConn& conn, Seq seq);
  [[nodiscard]] static SendPlace first_place(const HwConn& conn) noexcept {
    return {.piece = conn.send_queue.head, .start = conn.tcb.snd_una - conn.send_head_skip};
  }
  void give_back(std::uint32_t index, LaneSession& owner, const Piece& piece);
  void release_acknowledged(std::uint32_t index, std::uint32_t bytes);
  void check_drained(std::uint32_t index) {
    if ((conns_[index].flags & kDraining) != 0 && tcp::is_drained(conns_[index].tcb)) tell_drained(index);
  }
  void tell_drained(std::uint32_t index);

  // Resolves an id of this lane; kNone when it is stale or foreign.
  [[nodiscard]] std::uint32_t resolve(HwConnId id) const noexcept {
    const std::uint32_t index = id.index();
    if (!id || id.lane() != index_ || index >= conns_.size()) return kNone;
    return conns_[index].state != ConnState::kFree && conns_[index].generation == id.generation() ? index : kNone;
  }
  [[nodiscard]] HwConnId id_of(std::uint32_t index) const noexcept { return {index_, index, conns_[index].generation}; }
  [[nodiscard]] LaneSession* session(std::uint32_t index) noexcept {
    return index < session_of_.size() ? session_of_[index] : nullptr;
  }
  // REQUIRES: `conn` is not free.
  [[nodiscard]] LaneSession& owner_of(const HwConn& conn) noexcept { return *session_of_[conn.session]; }
  // Bytes of the send queue. Before there is a TCP state: what load() has brought.
  [[nodiscard]] static std::uint32_t queued_bytes(const HwConn& conn) noexcept {
    return (conn.flags & kInstalled) == 0 ? conn.engine_queued_bytes
                                          : bytes_between(conn.tcb.snd_una, conn.tcb.write_seq);
  }
  void free_slot(std::uint32_t index) noexcept;
  void push_event(const Event& event);
  void offer_events(Time now);
  [[nodiscard]] bool is_stale(const Event& event) const noexcept;
  void run_timers(Time now);
  void look(std::uint32_t index, Time now);
  void fire_timer(std::uint32_t index, Time now);
  void schedule(std::uint32_t index, Time now);

  std::uint32_t index_;
  LaneRegion& region_;
  nic::Link& link_;
  Waker& waker_;

  std::span<HwConn> conns_;
  std::span<HwConnRecord> records_;
  std::span<HwConnKept> kept_;
  PiecePool pieces_;
  SendMarks marks_;
  WaitingTable waiting_;
  FlowTable flows_;
  TimerWheel timers_;
  LookList looks_;
  std::uint32_t free_head_ = kNone;  // slots that are free, linked by timer_next: last in, first out
  std::uint32_t in_use_ = 0;
  std::uint32_t transmit_head_ = kNone;
  std::uint32_t transmit_tail_ = kNone;
  std::uint64_t transmit_work_ = 0;  // segments sent, and what else counts as one
  // A device that takes nothing (its link is down): after so many polls in vain the lane may sleep between two tries.
  static constexpr std::uint32_t kBlockedRounds = 256;
  std::uint32_t blocked_rounds_ = 0;
  tcp::SegmentPlan plan_;          // of the segment that is being sent
  std::span<std::byte> tx_frame_;  // allocated at the link and not yet committed; asked for anew each round
  Time retry_at_ = kNever;
  bool rings_wait_ = false;
  std::vector<std::byte> held_copy_;  // of a frame that lay in memory of the program
  std::vector<std::uint32_t> post_list_;
  std::vector<LaneRing*> dirty_rings_;  // entries were pushed that are not yet published
  std::map<std::uint32_t, LaneSession> sessions_;
  std::vector<LaneSession*> session_of_;  // by session number; nullptr = not open
  std::vector<NextHop> hops_;
  std::vector<std::vector<std::byte>> strays_;
  ipc::RingConsumer<Command> commands_;
  ipc::RingProducer<Reply> replies_;
  ipc::RingProducer<Event> events_;
  std::deque<Event> events_waiting_;  // that found the ring full, oldest first: each poll may take out a few of many
  Time offer_events_at_ = kNever;
  std::array<Arrived, 32> arrived_;  // the frames that are being processed
  std::size_t frames_per_poll_ = 1;  // as many as are not too many bytes
  HostSettings host_settings_;
  LaneCounters counters_;
  bool signal_ = false;      // the driver should look at events and strays
  bool last_words_ = false;  // see take_last_words()
  bool sleeping_ = false;    // the rings were asked for wake-ups
};

}  // namespace twinstack::engine
