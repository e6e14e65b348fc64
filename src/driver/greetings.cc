#include "driver/greetings.h"

#include <algorithm>
#include <utility>

namespace twinstack::driver {

std::optional<Greeting> Greetings::add(std::uint32_t number, UniqueFd socket, uid_t uid, Time now) {
  std::optional<Greeting> displaced = make_room(uid);
  waiting_.emplace(number, Greeting{.socket = std::move(socket), .uid = uid, .deadline = now + bounds_.patience});
  return displaced;
}

std::optional<Greeting> Greetings::make_room(uid_t uid) {
  const auto is_his = [uid](const auto& entry) { return entry.second.uid == uid; };
  if (uid != 0 && static_cast<std::size_t>(std::ranges::count_if(waiting_, is_his)) >= bounds_.of_one_user)
    return take(std::ranges::find_if(waiting_, is_his)->first);
  if (waiting_.size() < bounds_.all) return std::nullopt;
  return take(waiting_.begin()->first);
}

std::optional<Greeting> Greetings::take(std::uint32_t number) {
  auto found = waiting_.extract(number);
  if (found.empty()) return std::nullopt;
  return std::move(found.mapped());
}

std::vector<Greeting> Greetings::expire(Time now) {
  std::vector<Greeting> expired;
  while (!waiting_.empty() && waiting_.begin()->second.deadline <= now) {
    expired.push_back(std::move(waiting_.begin()->second));
    waiting_.erase(waiting_.begin());
  }
  return expired;
}

Time Greetings::next_deadline() const noexcept { return waiting_.empty() ? kNever : waiting_.begin()->second.deadline; }

}  // namespace twinstack::driver
