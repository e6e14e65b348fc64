// FakeService: test only. Plays the driver and the engine for the socket layer's tests, without privileges: it listens
// on a unix socket, takes connections over, flips their owner as often as it is told, and relays the bytes of a
// connection that "the engine" owns between the rings and the real kernel socket. So the stream goes on over every flip
// and can be checked at the peer. It checks what it reads in the rings as strictly as the engine and counts what breaks
// the rules.
//
// One thread of its own; the public functions may be called from any other.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/rng.h"
#include "base/unique_fd.h"
#include "ipc/arena.h"

namespace twinstack::sockets {

struct FakeServiceOptions {
  std::string path;                    // of the unix socket
  std::uint32_t flip_interval_us = 0;  // 0: moves only when told
  std::uint32_t max_move_us = 50;      // a move takes up to this long
  std::uint32_t send_buffer_bytes = 128 * 1024;
  std::uint32_t receive_buffer_bytes = 256 * 1024;
  ipc::ArenaConfig arena{.slot_count = 256,
                         .rings_per_lane = 2,
                         .lane_count = 1,
                         .sq_entries = 1024,
                         .cq_entries = 2048,
                         .tx_chunk_count = 256,
                         .rx_chunk_count = 512,
                         .chunk_bytes = 4096};
  std::uint64_t seed = 1;
};

struct FakeServiceCounters {
  std::atomic<std::uint64_t> to_engine = 0;
  std::atomic<std::uint64_t> to_kernel = 0;
  std::atomic<std::uint64_t> registered = 0;
  std::atomic<std::uint64_t> closed = 0;
  std::atomic<std::uint64_t> uploads = 0;
  std::atomic<std::uint64_t> stays = 0;
  std::atomic<std::uint64_t> engine_bytes_in = 0;   // from the peer, by the rings
  std::atomic<std::uint64_t> engine_bytes_out = 0;  // to the peer, by the rings
  std::atomic<std::uint64_t> wakeups = 0;           // eventfds written
  std::atomic<std::uint64_t> violations = 0;        // ring entries that the engine would not have taken
};

class FakeService {
 public:
  explicit FakeService(FakeServiceOptions options);
  ~FakeService();
  FakeService(const FakeService&) = delete;
  FakeService& operator=(const FakeService&) = delete;

  // Moves every connection that may move, now; returns when that is done.
  void offload_all();
  void upload_all();
  // 0: moves only when told.
  void set_flip_interval(std::uint32_t interval_us);
  // Takes nothing from the submission rings, as a lane without pieces; when it is over, all that waits.
  void set_stalled(bool stalled);
  // Ends in order: brings every connection home, then closes the unix sockets.
  void stop();
  // Ends as by SIGKILL: the unix sockets close, the owners stay as they are.
  void die();

  [[nodiscard]] const FakeServiceCounters& counters() const noexcept { return counters_; }
  [[nodiscard]] std::size_t connection_count();
  [[nodiscard]] std::size_t engine_connection_count();

 private:
  struct Connection;
  struct Ring;
  struct Session;

  void run();
  void call(std::function<void()> task);
  void on_event(std::uint64_t key, std::uint32_t events);
  void accept_session();
  void on_message(Session& session);
  void welcome(Session& session);
  void register_connection(Session& session, const std::byte* message, int fd);
  void end_session(Session& session);
  void answer_query(Session& session, const std::byte* message);

  [[nodiscard]] bool offload(Connection& connection);
  [[nodiscard]] bool upload(Connection& connection);
  void flip_some();
  void flip_all(bool to_engine);
  void serve_wishes();
  void linger_in_move();

  void drain_submissions(Session& session);
  void tell_room(Session& session, std::uint32_t index);
  void submit(Session& session, const ipc::SubmitEntry& entry);
  void receive(Connection& connection);
  void transmit(Connection& connection);
  void settle_sent(Connection& connection, std::uint64_t bytes);
  void watch(Connection& connection);
  [[nodiscard]] bool post(Session& session, std::uint32_t ring, const ipc::CompleteEntry& entry);
  void post_surely(Session& session, std::uint32_t ring, const ipc::CompleteEntry& entry);
  void post_late(Session& session);
  void notify(Connection& connection);
  void violated(const char* what);
  void close_connection(Connection& connection);

  FakeServiceOptions options_;
  FakeServiceCounters counters_;
  Rng rng_;
  UniqueFd listener_;
  UniqueFd epoll_;
  UniqueFd command_event_;
  UniqueFd timer_;
  std::vector<std::unique_ptr<Session>> sessions_;
  bool stalled_ = false;
  std::uint64_t next_key_ = 16;
  std::uint64_t next_hw_id_ = 1;
  std::uint64_t next_session_ = 1;

  std::mutex tasks_mutex_;
  std::vector<std::function<void()>> tasks_;
  std::atomic<bool> ending_ = false;
  std::thread thread_;
};

}  // namespace twinstack::sockets
