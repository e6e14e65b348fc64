// LaneRunner: hosts one lane in the service: its memory, its lock, its thread. The thread polls the lane while there is
// work, then sleeps in poll(2) on the link and the doorbell until the lane's next deadline. The driver's thread carries
// its commands out itself, under the lock (ring()), so that a move waits for no other thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/pi_mutex.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "engine/lane.h"
#include "handoff/engine_port.h"

namespace twinstack::driver {

struct LaneRunnerOptions {
  std::uint32_t index = 0;  // among all lanes of the service
  engine::LaneCapacity capacity;
  Duration spin{};              // how long an idle lane polls before it sleeps
  std::optional<unsigned> cpu;  // to pin the thread to
  std::uint64_t secret = 0;     // keys the flow table
  engine::HostSettings settings;
  int driver_event_fd = -1;  // eventfd to write when the driver should look at events
};

class LaneRunner final : public engine::Waker, public handoff::LaneDoorbell {
 public:
  static Result<std::unique_ptr<LaneRunner>> create(const LaneRunnerOptions& options, std::unique_ptr<nic::Link> link);
  LaneRunner(const LaneRunner&) = delete;
  LaneRunner& operator=(const LaneRunner&) = delete;
  ~LaneRunner() override;  // stops the thread

  void start();
  void stop();

  [[nodiscard]] handoff::EnginePort& port() noexcept { return port_; }
  // The doorbell of an application: an eventfd that it writes after it submitted to a ring that asks for it. One for
  // each, so that whatever an application does to its own, it takes nobody else's call.
  [[nodiscard]] Result<UniqueFd> make_doorbell();

  // `ring_events`: WakeEvent::signal_fd() for each ring of the arena, by index; `doorbell`: of make_doorbell(). They
  // stay the caller's. REQUIRES: arena and descriptors live until close_session().
  void open_session(std::uint32_t session, const ipc::Arena& arena, std::vector<int> ring_events, int doorbell);
  void close_session(std::uint32_t session);

  // Frames that belong to no connection of the lane: the kernel's.
  [[nodiscard]] std::vector<std::vector<std::byte>> take_strays();
  [[nodiscard]] engine::LaneCounters counters();
  [[nodiscard]] nic::LinkStats link_stats();

  void ring() override;
  void wake(std::uint32_t session, std::uint32_t ring) override TS_THREAD_ANNOTATION(no_thread_safety_analysis);

 private:
  struct Unmap {
    std::size_t bytes;
    void operator()(std::byte* memory) const noexcept;
  };
  using Memory = std::unique_ptr<std::byte, Unmap>;

  LaneRunner(const LaneRunnerOptions& options, std::unique_ptr<nic::Link> link, UniqueFd memory_fd, Memory memory,
             UniqueFd doorbell, UniqueFd doorbells);
  void run();
  enum class Round : std::uint8_t { kBusy, kIdle, kSleep };
  // One round under the lock. kSleep: nothing to do, wake-ups are asked for.
  Round poll_once(bool may_sleep);
  void sleep();
  void kick();
  void signal_driver() const;

  LaneRunnerOptions options_;
  UniqueFd memory_fd_;
  Memory memory_;
  engine::LaneRegion region_;
  std::unique_ptr<nic::Link> link_;
  UniqueFd doorbell_;  // the driver's
  // Epoll set of all doorbells, edge-triggered: nobody reads them, and no flag of a description that is shared with an
  // application decides whether the lane blocks.
  UniqueFd doorbells_;
  PiMutex mutex_;
  PiMutex kick_mutex_;  // taken without the other
  engine::Lane lane_ TS_GUARDED_BY(mutex_);
  struct Events {
    std::vector<int> rings;
    int doorbell = -1;
  };
  std::map<std::uint32_t, Events> events_ TS_GUARDED_BY(mutex_);
  bool asleep_ TS_GUARDED_BY(mutex_) = false;
  Time sleep_until_ TS_GUARDED_BY(mutex_) = kNever;
  handoff::EnginePort port_;
  std::atomic<bool> stopping_ = false;
  std::thread thread_;
};

}  // namespace twinstack::driver
