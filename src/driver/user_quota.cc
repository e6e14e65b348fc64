#include "driver/user_quota.h"

#include <algorithm>

#include "base/assert.h"

namespace twinstack::driver {
namespace {

constexpr uid_t kRoot = 0;
constexpr Duration kLogInterval = std::chrono::seconds(10);

}  // namespace

UserBounds UserBounds::within(std::uint64_t descriptors, std::uint32_t descriptors_per_session) const noexcept {
  const std::uint64_t for_sessions = std::max<std::uint64_t>(descriptors / 4 / descriptors_per_session, 1);
  return {.sessions = static_cast<std::uint32_t>(std::min<std::uint64_t>(sessions, for_sessions)),
          .connections = static_cast<std::uint32_t>(std::min<std::uint64_t>(connections, descriptors / 2))};
}

bool UserQuota::add_session(uid_t uid) {
  User& user = users_[uid];
  if (uid != kRoot && user.sessions >= bounds_.sessions) return false;
  ++user.sessions;
  return true;
}

void UserQuota::remove_session(uid_t uid) {
  User& user = users_[uid];
  ASSERT(user.sessions > 0);
  --user.sessions;
  forget_if_idle(uid);
}

bool UserQuota::add_connection(uid_t uid) {
  User& user = users_[uid];
  if (uid != kRoot && user.connections >= bounds_.connections) return false;
  ++user.connections;
  return true;
}

void UserQuota::remove_connection(uid_t uid) {
  User& user = users_[uid];
  ASSERT(user.connections > 0);
  --user.connections;
  forget_if_idle(uid);
}

bool UserQuota::may_log(uid_t uid, Time now) {
  User& user = users_[uid];
  if (now < user.next_log) return false;
  user.next_log = now + kLogInterval;
  return true;
}

void UserQuota::forget_if_idle(uid_t uid) {
  const auto found = users_.find(uid);
  if (found->second.sessions == 0 && found->second.connections == 0) users_.erase(found);
}

}  // namespace twinstack::driver
