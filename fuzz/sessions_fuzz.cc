// The service's sessions with a hostile program: messages of any content and order, with any descriptors, scribbled
// shared memory and rings, peers that come and go, moves in between, and its death at any time. It is the service's own
// code (service_sessions.cc, Mover, lanes) on a simulated host. Beside it a well-behaved program talks by the socket
// layer, whose stream must be whole; and when the hostile one is dead nothing of it is left.
#include <array>
#include <cstdio>
#include <memory>
#include <optional>
#include <vector>

#include "base/assert.h"
#include "base/log.h"
#include "input.h"
#include "ipc/channel.h"
#include "service_bed.h"
#include "sim/conversation.h"

namespace twinstack {
namespace {

using namespace fuzz;

constexpr Duration kPatience = std::chrono::seconds(300);
constexpr std::size_t kMostConns = 4;

// ---- The well-behaved program

class Good {
 public:
  Good(Service& service, fuzz::Input& input)
      : service_(service),
        bridge_(
            service.kernel(), [&service] { return service.now(); }, service.clock()),
        talk_(1, script(input), 1, service.now()) {
    sim::Welcome welcome;
    number_ = service.open_session(kGoodUser, welcome);
    const auto rung = [this] { ring(); };
    process_ = std::make_unique<sim::AppProcess>(bridge_, number_, std::move(welcome),
                                                 std::vector<std::function<void()>>(kArena.rings_per_lane, rung));
    process_->on_message = [this] { service_.messages_wait = true; };
    const Joined joined = service.join();
    talk_.set_endpoint(0, process_->open(joined.ours, 0));
    talk_.set_endpoint(1, std::make_unique<sim::StackEndpoint>(service.peer(), joined.peers, service.clock()));
    ASSERT(service.manage(number_, process_->last_slot(), process_->last_tag(), joined.ours));
    service.kernel().on_driver_reset = [ours = joined.ours](SocketId socket) { ASSERT(socket != ours); };
  }

  [[nodiscard]] ManagedConnection* conn() {
    driver::Session* const session = service_.session(number_);
    return session == nullptr ? nullptr : Service::find(*session, process_->last_slot());
  }

  [[nodiscard]] Time due() const { return std::min(talk_.due(0), talk_.due(1)); }

  // Both ends' programs. The peer's is asked at every instant: nothing wakes it.
  bool run() {
    check();
    const std::uint64_t before = progress();
    talk_.run(1, service_.now());
    if (!service_.is_woken && talk_.due(0) > service_.now()) return progress() != before;
    service_.is_woken = false;
    talk_.run(0, service_.now());
    if (!process_->may_sleep()) service_.is_woken = true;
    return progress() != before || service_.is_woken;
  }

  void hurry() {
    talk_.hurry(service_.now());
    service_.is_woken = true;
  }
  [[nodiscard]] bool is_over() const { return talk_.is_over(); }
  void die() { process_->die(); }

 private:
  static sim::Script script(fuzz::Input& input) {
    sim::Script out;
    out.manner = static_cast<sim::Manner>(input.below(sim::kManners));
    out.total_bytes = {20'000, 20'000};
    out.request_bytes = 100;
    out.response_bytes = 1 + input.below(256) * 10;
    out.piece_bytes = 200 + input.below(256) * 4;
    out.pause = std::chrono::milliseconds(3);
    out.life = std::chrono::hours(1);
    return out;
  }

  [[nodiscard]] std::uint64_t progress() const {
    return talk_.read(0) + talk_.read(1) + talk_.written(0) + talk_.written(1) + (talk_.is_closed(0) ? 1U : 0U) +
           (talk_.is_closed(1) ? 1U : 0U);
  }

  void check() {
    if (talk_.failure().empty()) return;
    std::fprintf(stderr, "%s\n", talk_.failure().c_str());
    ASSERT(talk_.failure().empty());
  }

  // A call that finds the ring full rings until the lane has taken something.
  void ring() {
    service_.lane().doorbell();
    if (++rings_ % 64 == 0) service_.lane().run(service_.now());
  }

  Service& service_;
  sim::LayerBridge bridge_;
  std::uint32_t number_ = 0;
  std::uint32_t rings_ = 0;
  std::unique_ptr<sim::AppProcess> process_;
  sim::Conversation talk_;
};

// ---- The hostile program

class Evil {
 public:
  Evil(Service& service, fuzz::Input& input) : service_(service), input_(input) {
    sim::Welcome welcome;
    number_ = service.open_session(kEvilUser, welcome);
    socket_ = std::move(welcome.socket);
    auto arena = ipc::Arena::map(std::move(welcome.arena), welcome.geometry);
    ASSERT(arena.has_value());
    arena_.emplace(std::move(*arena));
    for (int i = 0; i < 2; ++i) connect();
  }

  void step() {
    switch (input_.below(10)) {
      case 0:
      case 1:
      case 2:
        message();
        break;
      case 3:
        connect();
        break;
      case 4:
      case 5:
        move();
        break;
      case 6:
        submit();
        break;
      case 7:
        scribble();
        break;
      case 8:
        peers_part();
        break;
      default:
        own_socket();
        break;
    }
  }

  void die() {
    socket_.reset();
    for (const Joined& conn : conns_) close(service_.kernel(), conn.ours);
    for (const Joined& conn : conns_) close(service_.peer(), conn.peers);
    conns_.clear();
    service_.messages_wait = true;
  }
  [[nodiscard]] std::uint32_t number() const { return number_; }

 private:
  void close(sim::SoftHost& host, SocketId socket) const {
    if (socket != sim::LayerBridge::kNoSocket) host.close(socket, service_.now());
  }

  // An honest registration of a connection, unless the slot is taken.
  void connect() {
    if (conns_.size() == kMostConns || service_.session(number_) == nullptr) return;
    const Joined joined = service_.join();
    conns_.push_back(joined);
    const std::uint32_t slot = input_.below(kSlots);
    if (service_.session(number_) == nullptr) return;
    auto& shared = arena_->slot(slot);
    ipc::OwnerGate(shared).set_owner(ipc::Owner::kKernel);
    (void)service_.manage(number_, slot, shared.tag.load(), joined.ours);
  }

  // Mostly one that holds a connection, or holds none: what breaks the protocol ends the session.
  [[nodiscard]] std::uint32_t slot_that(bool is_known) {
    const std::uint32_t any = input_.below(kSlots + 2);
    driver::Session* const session = service_.session(number_);
    if (session == nullptr || input_.below(8) == 0) return any;
    for (std::uint32_t i = 0; i < kSlots; ++i) {
      const std::uint32_t slot = (any + i) % kSlots;
      if ((Service::find(*session, slot) != nullptr || session->has_refused(slot)) == is_known) return slot;
    }
    return any;
  }
  [[nodiscard]] std::uint32_t any_tag(std::uint32_t slot) {
    return slot >= kSlots || input_.below(16) == 0 ? input_.take<std::uint32_t>() : arena_->slot(slot).tag.load();
  }

  void message() {
    const std::uint32_t what = input_.below(5);
    const std::uint32_t slot = slot_that(what > 1);
    const std::uint32_t tag = any_tag(slot);
    switch (what) {
      case 0:
      case 1:
        send(ipc::Register{.head = {.type = ipc::MessageType::kRegister, .size_bytes = 0},
                           .slot = slot,
                           .tag = tag,
                           .program_fd = 5,
                           .reserved = 0});
        break;
      case 2:
        send(ipc::Close{.head = {.type = ipc::MessageType::kClose, .size_bytes = 0}, .slot = slot, .tag = tag});
        break;
      case 3:
        send(ipc::Upload{.head = {.type = ipc::MessageType::kUpload, .size_bytes = 0},
                         .slot = slot,
                         .tag = tag,
                         .stay = input_.below(2),
                         .reserved = 0,
                         .reason = {}});
        break;
      default:
        send(ipc::Query{.head = {.type = ipc::MessageType::kQuery, .size_bytes = 0},
                        .slot = slot,
                        .tag = tag,
                        .request = 7,
                        .reserved = 0});
        break;
    }
  }

  // Most are well-formed, or nothing would get past the decoder.
  template <typename Message>
  void send(Message message) {
    const ipc::MessageType type = message.head.type;
    message.head.size_bytes = sizeof(message);
    const std::uint32_t how = input_.take<std::uint8_t>();
    if (how == 255) message.head.type = static_cast<ipc::MessageType>(input_.take<std::uint8_t>());
    if (how == 254) message.head.size_bytes = input_.take<std::uint16_t>();
    const auto whole = std::as_bytes(std::span(&message, 1));
    std::vector<std::byte> bytes(whole.begin(), whole.end());
    if (how == 253) bytes.resize(1 + input_.take<std::uint16_t>() % 2000);
    const bool as_it_should = input_.below(32) != 0;
    const bool brings = as_it_should == (type == ipc::MessageType::kRegister);
    (void)ipc::send_message(socket_.get(), bytes, brings ? borrowed() : std::vector<int>{});
    service_.messages_wait = true;
  }

  [[nodiscard]] std::vector<int> borrowed() {
    const Descriptors& all = descriptors();
    const std::array one = {all.null.get(), all.plain_tcp.get(), all.unix_socket.get(), all.tcp.get(),
                            all.other_end.get()};
    std::vector<int> fds{one[input_.below(one.size())]};
    if (input_.below(8) == 0) fds.resize(1 + input_.below(20), one[0]);
    return fds;
  }

  // By command, or policy.
  void move() {
    driver::Session* const session = service_.session(number_);
    ManagedConnection* const conn = session == nullptr ? nullptr : Service::find(*session, input_.below(kSlots));
    if (conn == nullptr || conn->linux_conn != nullptr || conn->closing) return;
    if (input_.below(3) != 0)
      (void)service_.mover().offload(*conn);
    else
      service_.mover().upload(*conn, "by command", input_.below(2) != 0);
  }

  void submit() {
    ipc::RingHeader& ring = arena_->ring(input_.below(kArena.rings_per_lane));
    const std::uint32_t slot = input_.below(kSlots);
    const std::uint32_t tail = ring.sq_tail.value.load();
    ipc::SubmitEntry& entry = arena_->sq(0)[tail % kArena.sq_entries];
    entry = {.op = static_cast<ipc::SubmitOp>(1 + input_.below(5)),
             .flags = static_cast<std::uint8_t>(input_.below(4)),
             .reserved0 = 0,
             .slot = input_.below(8) == 0 ? input_.take<std::uint32_t>() : slot,
             .hw_conn_id = arena_->slot(slot).hw_conn_id.load(),
             .chunk = input_.below(kArena.tx_chunk_count + 2),
             .offset = input_.below(2) * 1024,
             .length = input_.below(256) * 8,
             .reserved1 = 0};
    ring.sq_tail.value.store(tail + (input_.below(16) == 0 ? input_.take<std::uint32_t>() : 1));
    service_.lane().doorbell();
  }

  void scribble() {
    ipc::ConnSlot& slot = arena_->slot(input_.below(kSlots));
    switch (input_.below(8)) {
      case 0:
      case 1:
        slot.owner.store(slot.owner.load() / 256 * 256 + input_.below(8));
        break;
      case 2:
        slot.calls_inside.store(input_.below(2));
        break;
      case 3:
        slot.tag.store(input_.below(4));
        break;
      case 4:
        slot.rx_read_bytes.store(slot.rx_posted_bytes.load() + input_.below(2) * input_.take<std::uint16_t>());
        break;
      case 5:
        slot.tx_submitted_bytes.store(slot.tx_acked_bytes.load() + input_.take<std::uint16_t>());
        break;
      case 6:
        slot.option_changes.fetch_add(1);
        break;
      default:
        slot.ring_hint.store(input_.take<std::uint32_t>());
        slot.hw_conn_id.store(input_.take<std::uint32_t>());
        break;
    }
  }

  void peers_part() {
    if (conns_.empty()) return;
    Joined& conn = conns_[input_.below(static_cast<std::uint32_t>(conns_.size()))];
    if (conn.peers == sim::LayerBridge::kNoSocket) return;
    std::array<std::byte, 4000> bytes{};
    switch (input_.below(4)) {
      case 0:
        close(service_.peer(), std::exchange(conn.peers, sim::LayerBridge::kNoSocket));
        break;
      case 1:
        (void)service_.peer().receive(conn.peers, bytes, service_.now());
        break;
      default:
        (void)service_.peer().send(conn.peers, std::span(bytes).first(1 + input_.below(256) * 8), false,
                                   service_.now());
        break;
    }
  }

  // It still has the descriptor, whoever owns the connection.
  void own_socket() {
    if (conns_.empty()) return;
    Joined& conn = conns_[input_.below(static_cast<std::uint32_t>(conns_.size()))];
    if (conn.ours == sim::LayerBridge::kNoSocket) return;
    std::array<std::byte, 4000> bytes{};
    switch (input_.below(6)) {
      case 0:
        close(service_.kernel(), std::exchange(conn.ours, sim::LayerBridge::kNoSocket));
        break;
      case 1:
        (void)service_.kernel().shutdown_send(conn.ours, service_.now());
        break;
      case 2:
        service_.kernel().set_flags(conn.ours, static_cast<std::uint16_t>(input_.below(8)), service_.now());
        break;
      case 3:
        (void)service_.kernel().receive(conn.ours, bytes, service_.now());
        break;
      default:
        (void)service_.kernel().send(conn.ours, std::span(bytes).first(1 + input_.below(256) * 8), false,
                                     service_.now());
        break;
    }
  }

  Service& service_;
  fuzz::Input& input_;
  std::uint32_t number_ = 0;
  UniqueFd socket_;
  std::optional<ipc::Arena> arena_;
  std::vector<Joined> conns_;
};

class Fuzzed {
 public:
  explicit Fuzzed(fuzz::Input& input) : input_(input), good_(service_, input) {
    service_.run_programs = [this] { return good_.run(); };
    service_.programs_due = [this] { return good_.due(); };
  }

  void run() {
    for (int i = 0; i < 150 && !input_.empty(); ++i) {
      step();
      service_.pass(Duration(0));
    }
    end();
  }

 private:
  void step() {
    if (evil_ != nullptr && service_.session(evil_->number()) == nullptr && input_.below(4) == 0) bury_evil();
    if (evil_ == nullptr) evil_ = std::make_unique<Evil>(service_, input_);
    switch (input_.below(8)) {
      case 0:
      case 1:
        service_.pass(std::chrono::microseconds(100) * input_.below(200));
        break;
      case 2:
        move_good();
        break;
      case 3:
        if (input_.below(16) == 0) bury_evil();
        break;
      default:
        evil_->step();
        break;
    }
  }

  void move_good() {
    ManagedConnection* const conn = good_.conn();
    ASSERT(conn != nullptr && !conn->stays);
    if (conn->in_engine())
      service_.mover().upload(*conn, "by command");
    else
      (void)service_.mover().offload(*conn);
  }

  template <typename Done>
  void pass_until(const Done& done) {
    const Time limit = service_.now() + kPatience;
    while (!done()) {
      ASSERT(service_.now() < limit);
      service_.pass(std::chrono::milliseconds(10));
    }
  }

  // Nobody notices, and its numbers are free.
  void bury_evil() {
    evil_->die();
    pass_until([this] { return service_.sessions() == 1; });
    service_.check_left(1, 1);
    evil_.reset();
  }

  void end() {
    if (evil_ != nullptr) bury_evil();
    good_.hurry();
    pass_until([this] { return good_.is_over() && good_.conn() == nullptr; });
    good_.die();
    pass_until([this] { return service_.sessions() == 0; });
    service_.check_left(0, 0);
    // But the listener. What a peer does not end goes by timeouts.
    pass_until([this] { return service_.kernel().open_sockets() == 1; });
  }

  fuzz::Input& input_;
  Service service_;
  Good good_;
  std::unique_ptr<Evil> evil_;
};

}  // namespace
}  // namespace twinstack

extern "C" int LLVMFuzzerInitialize(int* /*argc*/, char*** /*argv*/) {
  spdlog::set_level(spdlog::level::off);
  twinstack::sim::prepare_streams();
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  twinstack::fuzz::Input input(data, size);
  twinstack::Fuzzed(input).run();
  return 0;
}
