// World: a whole network in one thread, in virtual time: the moving host with its programs, the product's socket layer,
// engine lanes and driver, its software stack; other hosts with theirs; links between; and a list of events.
//
//   World world(options, shape, events);
//   const Outcome outcome = world.run();
//
// Runs until all events have happened, faults have stopped and every connection has ended, or something is wrong. The
// same options give the same run. One World at a time in a process (LayerBridge).
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nic/pcap_link.h"
#include "sim/conversation.h"
#include "sim/coverage.h"
#include "sim/cwnd_watch.h"
#include "sim/layer_bridge.h"
#include "sim/options.h"
#include "sim/pipe.h"
#include "sim/plan.h"
#include "sim/sim_driver.h"
#include "sim/sim_interface.h"
#include "sim/soft_host.h"
#include "wire/packet.h"
#include "wire/segment.h"

namespace twinstack::sim {

inline constexpr Time kBeginning = Time(std::chrono::hours(1));
// Once faults have stopped everything ends within this (a retransmission timer may stand at two minutes).
inline constexpr Duration kPatience = std::chrono::seconds(300);

struct Totals {
  std::uint64_t moves_out = 0;
  std::uint64_t moves_back = 0;
  std::uint64_t refused = 0;
  std::uint64_t failed = 0;  // tried and undone, either way
  std::uint64_t broken = 0;  // reset, as their stream could not be kept
  std::uint64_t frames = 0;  // on all wires
  std::uint64_t bytes = 0;   // that programs have read
  std::uint64_t connections = 0;
  std::uint64_t instants = 0;
  std::uint64_t spins = 0;        // times that a call of a program waited for a lane without sleeping
  std::uint64_t checks = 0;       // full ones
  std::uint64_t told_kernel = 0;  // ICMP errors that a software stack, of any host, has taken for true
  std::uint64_t told_engine = 0;  // ... and the engine
  std::array<std::uint64_t, kResetCauses> resets{};  // by the driver; those of nothing, after the connection was ended
  std::uint64_t pruned = 0;  // blocks that lanes gave up, and segments that they had no room for, out of order
  Duration virtual_time{};

  void add(const Totals& other) noexcept;
};

struct Outcome {
  std::string failure;  // empty: all well
  Time failed_at{};
  Totals totals;
  Coverage coverage;

  [[nodiscard]] bool ok() const noexcept { return failure.empty(); }
};

// One connection with both its ends and what the checkers remember of it.
struct SimConn {
  std::uint32_t number = 0;
  std::unique_ptr<Conversation> talk;
  FlowKey flow;            // as the moving host sees it
  bool from_peer = false;  // who has opened it
  std::uint32_t app = 0;
  std::uint32_t slot = 0;
  std::uint32_t tag = 0;
  std::uint32_t ring_hint = 0;
  SocketId socket = kNone;  // on the moving host
  std::uint32_t peer = 0;
  SocketId peer_socket = kNone;
  MoveFaults faults;
  mutable CwndWatch cwnd[2];  // by side (0: of the moving host)
  bool may_hang = false;      // its service died: the other end may never hear of it
  bool is_connecting = true;  // on the side that opens it
  bool peer_ready = true;     // the program of the other end has something to look at
  bool driver_knows = false;
  bool peer_shrinks = false;  // its window may go back, once: kNoMemory
  // Watched on the wire, by direction (0: from the moving host).
  struct Direction {
    bool seen = false;
    Seq right_edge;  // of the window that it has offered
    std::uint8_t window_scale = 0;
    bool has_scale = false;
    std::uint32_t ts_val = 0;
    bool has_ts = false;
    std::uint64_t resets = 0;
    bool has_start = false;
    Seq start;  // sequence number of the first byte of the stream
    bool has_ack = false;
    Seq highest_ack;  // that it has sent
    bool has_fin = false;
    Seq fin;                          // sequence number of the FIN that it has sent
    std::uint64_t data_segments = 0;  // repetitions included
  } wire[2];
  static constexpr SocketId kNone = -1;
};

class World {
 public:
  World(const Options& options, Shape shape, std::vector<Event> events);
  ~World();
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  Outcome run();

  // For a live view: called whenever so much virtual time has passed.
  void every(Duration interval, std::function<void(Duration, const Totals&)> tell);
  // Writes the time to `clock` as it goes on (nullptr: nowhere).
  void show_clock(Time* clock) noexcept { clock_ = clock; }
  [[nodiscard]] const Totals& totals() const noexcept { return outcome_.totals; }

 private:
  friend class Checker;

  struct App {
    std::unique_ptr<AppProcess> process;
    bool woken = true;
    bool is_running = false;  // a call of it spins, and the world goes on
    std::uint32_t rings = 0;  // of doorbells, in this turn
    Time stalled_until = Time::min();
  };
  struct Peer {
    std::unique_ptr<SoftHost> stack;
    std::vector<SocketId> listeners;
    std::unique_ptr<Pipe> to;  // from the moving host
    std::unique_ptr<Pipe> from;
  };
  struct Ending {  // of a fault that lasts
    Time at;
    std::function<void()> end;
  };

  // world.cc
  void build();
  void build_lanes();
  [[nodiscard]] Time host_now() const noexcept { return now_ + clock_offset_; }
  [[nodiscard]] Time on_world_clock(Time host_time) const noexcept;
  void settle(bool driver_runs);
  bool run_once(bool driver_runs);
  bool deliver_frames();
  bool run_stacks();
  bool run_lanes();
  bool run_driver();
  bool run_apps();
  bool run_peers();
  void build_hosts();
  void build_apps();
  void hook_moves();
  void driver_resets(SimConn& conn);
  void run_app(std::uint32_t number);
  void rung(std::uint32_t number, std::uint32_t lane);
  [[nodiscard]] Time next_instant(bool driver_runs) const;
  void go_to(Time when);
  void pass(Duration span);  // within a move: all but the driver goes on
  [[nodiscard]] bool is_everything_over() const;
  [[nodiscard]] bool only_unheard_are_left() const;
  [[nodiscard]] std::string what_hangs() const;
  void from_moving_host(Frame frame, bool by_lane);
  void fail(std::string what);
  void update_totals();

  // world_events.cc
  void apply(const Event& event);
  void open_connection(const Event& event);
  void accept_all();
  void accept_from(SoftHost& host, SocketId listener, unsigned side);
  void look_at_connecting(SimConn& conn);
  void attach(SimConn& conn, unsigned side, SocketId socket);
  void attach_to_app(SimConn& conn);
  void move(const Event& event);
  [[nodiscard]] SimConn* connection_of(const Event& event) const noexcept;
  void begin_fault(const Event& event);
  void fault_of_host(const Event& event);
  void fault_of_programs(const Event& event);
  void fault_of_moves(const Event& event);
  void arm(MoveFaults& faults, const Event& event);
  void begin_at_step(const SimConn& conn, Situation step);
  void take_chunks(const Event& event);
  void take_program_chunks(const Event& event, std::uint32_t left);
  void answer_too_big(Pipe& back, const Frame& frame, const Refusal& how);
  void forge_too_big(const Event& event);
  void prune(const Event& event);
  void stop_reading(const Event& event);
  void take_memory(const Event& event);
  void close_quickly(const Event& event);
  void storm();
  void take_slots(const Event& event);
  void stand_inside(const Event& event);
  void kill_program(std::uint32_t number);
  void kill_driver();
  void end_faults();
  void until(Duration span, std::function<void()> end);
  Result<> before_step(Situation situation, bool refuse);
  void sabotage(Situation situation, SimConn& conn);
  [[nodiscard]] bool is_sabotaged(Options::Sabotage how);
  void count_begin(const Event& event);
  [[nodiscard]] bool concerns(const Event& event, const SimConn& conn);
  void hit(const SimConn& conn, Situation situation, EventKind kind);
  void cover(const SimConn& conn, Situation situation);
  [[nodiscard]] Situation situation_now(const SimConn& conn);
  [[nodiscard]] TcpState tcp_state_of(const SimConn& conn);
  [[nodiscard]] Situation situation_of(const SimConn& conn);
  [[nodiscard]] SimConn* moving();
  [[nodiscard]] SimConn* by_socket(SocketId socket);

  // wire_watch.cc
  void watch_wire(const Frame& frame, unsigned direction, bool by_lane);
  [[nodiscard]] static bool have_ended(const SimConn& conn);
  void watch_packet(SimConn& conn, const wire::TcpPacket& packet, unsigned direction, bool by_lane);
  void watch_promises(SimConn& conn, const wire::Segment& segment, unsigned direction);
  void watch_sender(const SimConn& conn, const wire::Segment& segment, bool by_lane);
  void trace(const Frame& frame);

  Options options_;
  Shape shape_;
  std::vector<Event> events_;
  std::size_t next_event_ = 0;
  std::vector<const Event*> active_;  // faults that last, for the coverage
  Time now_ = kBeginning;
  Duration clock_offset_{};
  FramePool pool_;
  std::unique_ptr<SoftHost> stack_;
  std::unique_ptr<SimInterface> interface_;
  std::unique_ptr<SimDriver> driver_;
  std::unique_ptr<LayerBridge> bridge_;
  std::vector<SocketId> listeners_;  // of the moving host
  std::vector<App> apps_;
  std::vector<Peer> peers_;
  std::vector<std::unique_ptr<SimConn>> conns_;
  std::vector<Ending> endings_;
  std::vector<const Event*> at_step_;  // that wait for a step of a move
  std::deque<Event> begun_at_step_;
  std::vector<Event> deferred_;  // for the driver, which was in the midst of a move
  std::optional<Welcome> hog_;   // of a session that holds slots of the lanes
  std::unique_ptr<class Checker> checker_;
  std::optional<nic::PcapWriter> pcap_;
  Situation step_ = Situation::kInKernel;  // before which a move stands, while the driver is busy
  Rng step_rng_{1};
  bool ending_ = false;
  Outcome outcome_;
  Time* clock_ = nullptr;
  Duration tell_interval_{};
  Time tell_next_ = kNever;
  std::function<void(Duration, const Totals&)> tell_;
};

}  // namespace twinstack::sim
