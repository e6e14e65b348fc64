// Greetings: clients that have connected and not said hello. Each has two seconds, and whoever comes when the table is
// full displaces the oldest, so that silent clients shut nobody out. Keeps sockets, calls nothing; the driver's thread.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "base/clock.h"
#include "base/unique_fd.h"

namespace twinstack::driver {

struct Greeting {
  UniqueFd socket;
  uid_t uid = 0;
  Time deadline = kNever;
};

class Greetings {
 public:
  struct Bounds {
    std::size_t all = 256;
    std::size_t of_one_user = 64;  // other than root: a user displaces his own first
    Duration patience = std::chrono::seconds(2);
  };

  Greetings() noexcept = default;
  explicit Greetings(const Bounds& bounds) noexcept : bounds_(bounds) {}

  // Under a number that was not used before. Returns whoever had to make room.
  [[nodiscard]] std::optional<Greeting> add(std::uint32_t number, UniqueFd socket, uid_t uid, Time now);
  [[nodiscard]] std::optional<Greeting> take(std::uint32_t number);
  // Those whose time is over.
  [[nodiscard]] std::vector<Greeting> expire(Time now);
  [[nodiscard]] Time next_deadline() const noexcept;  // kNever: nobody waits
  [[nodiscard]] std::size_t size() const noexcept { return waiting_.size(); }

 private:
  std::optional<Greeting> make_room(uid_t uid);

  Bounds bounds_;
  std::map<std::uint32_t, Greeting> waiting_;  // by number, that is by age
};

}  // namespace twinstack::driver
