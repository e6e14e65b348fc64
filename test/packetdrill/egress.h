// Egress: whether the queue (qdisc) in front of a device of this namespace has a place, as scripts take it away to see
// what a stack does whose packets do not get out. Asked by rtnetlink; what is not a plain queue has one.
#pragma once

#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace twinstack::packetdrill {

class Egress {
 public:
  static Result<Egress> open(const std::string& device);

  [[nodiscard]] bool takes_more() const;

 private:
  Egress(UniqueFd socket, int device) noexcept : socket_(std::move(socket)), device_(device) {}

  UniqueFd socket_;
  int device_;
};

}  // namespace twinstack::packetdrill
