// UserQuota: how many sessions and registered connections each user has, and whether one more may come: no user but
// root can take what all share. Counts only; the driver's thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <unordered_map>

#include "base/clock.h"

namespace twinstack::driver {

// Of one user.
struct UserBounds {
  std::uint32_t sessions = 1024;
  std::uint32_t connections = 65536;

  // Lowered so that one user's leave room in a table of `descriptors`: a quarter for sessions, half for connections.
  [[nodiscard]] UserBounds within(std::uint64_t descriptors, std::uint32_t descriptors_per_session) const noexcept;
};

class UserQuota {
 public:
  explicit UserQuota(const UserBounds& bounds = {}) noexcept : bounds_(bounds) {}

  [[nodiscard]] const UserBounds& bounds() const noexcept { return bounds_; }
  void set_bounds(const UserBounds& bounds) noexcept { bounds_ = bounds; }

  // False: the user has as many as one may; nothing is counted. Each true needs its remove.
  [[nodiscard]] bool add_session(uid_t uid);
  void remove_session(uid_t uid);
  [[nodiscard]] bool add_connection(uid_t uid);
  void remove_connection(uid_t uid);

  // Whether a refusal of this user is worth a line in the log now: one in ten seconds is.
  [[nodiscard]] bool may_log(uid_t uid, Time now);

 private:
  struct User {
    std::uint32_t sessions = 0;
    std::uint32_t connections = 0;
    Time next_log = Time::min();
  };
  void forget_if_idle(uid_t uid);

  UserBounds bounds_;
  std::unordered_map<uid_t, User> users_;  // those that have something
};

}  // namespace twinstack::driver
