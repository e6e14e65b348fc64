// Layer: the state of the socket layer in this process, one object, usable before any constructor ran and never
// destroyed. What stands between the POSIX calls (api.cc) and the sessions.
#pragma once

#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstdint>

#include "ipc/messages.h"
#include "sockets/mutex.h"
#include "sockets/session.h"
#include "sockets/sonode.h"
#include "sockets/sonode_table.h"

namespace twinstack::sockets {

struct Layer {
  // False: TWINSTACK=off, no service when the program started, or a setuid program. Then nothing ever gets into the
  // table and every call passes through.
  std::atomic<bool> enabled = false;
  SonodeTable table;

  std::array<std::atomic<Session*>, kMaxSessions> sessions{};
  std::atomic<std::uint32_t> session_count = 0;
  std::atomic<Session*> current = nullptr;  // takes new connections
  Mutex open_mutex;
  std::int64_t next_try_ns TS_GUARDED_BY(open_mutex) = 0;

  std::atomic<std::uint32_t> sleepers = 0;  // threads that sleep on ring eventfds

  std::atomic<pid_t> pid = 0;
  std::atomic<std::uint32_t> forks = 0;  // of this process; remembered flags of descriptors are not trusted after one
  std::array<char, 108> socket_path{};
  bool debug = false;

  // The Sonode of a descriptor, with a reference; empty when the descriptor has none.
  [[nodiscard]] SonodeRef find(int fd) noexcept {
    const FdEntry entry = table.get(fd);
    if (entry.kind != FdKind::kSonode) [[likely]]
      return {};
    return find_known(fd, entry);
  }

  // The session that takes new connections, made when there is none; nullptr: no service.
  [[nodiscard]] Session* session_for_new() noexcept;

  template <typename Fn>
  void for_each_session(Fn&& fn) noexcept {
    // seq_cst, with begin_sleep(): a new session finds the sleeper, or the sleeper finds its rings.
    const std::uint32_t count = session_count.load(std::memory_order_seq_cst);
    for (std::uint32_t i = 0; i < count; ++i)
      if (Session* session = sessions[i].load(std::memory_order_acquire); !session->is_inherited()) fn(*session);
  }
  // Takes in what all rings hold.
  void drain() noexcept {
    for_each_session([](Session& session) { session.drain(); });
  }

  // Between begin_sleep() and end_sleep() every ring signals its eventfd when something is posted. False: something is
  // there already; do not sleep (and do not end).
  [[nodiscard]] bool begin_sleep() noexcept {
    sleepers.fetch_add(1, std::memory_order_seq_cst);
    bool idle = true;
    for_each_session([&idle](Session& session) { idle = session.arm() && idle; });
    if (idle) return true;
    end_sleep();
    // arm() took back a wish for a wake-up that others may sleep on.
    drain();
    return false;
  }
  void end_sleep() noexcept { sleepers.fetch_sub(1, std::memory_order_seq_cst); }

  // Whether the caller is this process and not a vfork child that borrows its memory.
  [[nodiscard]] bool is_own_process() const noexcept;

 private:
  [[nodiscard]] SonodeRef find_known(int fd, FdEntry entry) noexcept;
};

extern Layer g_layer;

// Reads the environment and binds the real calls; by the library's constructor, or a test. Idempotent.
void start_layer() noexcept;
// Writes one line to standard error when TWINSTACK_DEBUG is set.
void debug_line(const char* text) noexcept;

// Moves a descriptor of the layer out of the way of the program's, which expects low numbers. Returns the new number.
[[nodiscard]] int move_away(int fd) noexcept;
// From now on the program can neither use nor close it.
void hide(int fd) noexcept;

[[nodiscard]] std::int64_t monotonic_ns() noexcept;

}  // namespace twinstack::sockets
