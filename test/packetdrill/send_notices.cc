#include "send_notices.h"

#include <linux/errqueue.h>
#include <linux/net_tstamp.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

namespace twinstack::packetdrill {

namespace {

// Appends control data where there is room.
class ControlWriter {
 public:
  explicit ControlWriter(msghdr& message) noexcept : message_(message), room_(message.msg_controllen) {
    message.msg_controllen = 0;
  }

  void put(int level, int type, const void* data, std::size_t bytes) noexcept {
    const std::size_t at = message_.msg_controllen;
    if (message_.msg_control == nullptr || at + CMSG_SPACE(bytes) > room_) {
      message_.msg_flags |= MSG_CTRUNC;
      return;
    }
    cmsghdr head{};
    head.cmsg_len = CMSG_LEN(bytes);
    head.cmsg_level = level;
    head.cmsg_type = type;
    auto* const out = static_cast<std::byte*>(message_.msg_control) + at;
    std::memcpy(out, &head, sizeof head);
    std::memcpy(out + CMSG_LEN(0), data, bytes);
    message_.msg_controllen = at + CMSG_SPACE(bytes);
  }

 private:
  msghdr& message_;
  std::size_t room_;
};

timespec to_timespec(Time at) noexcept {
  const Duration since = at.time_since_epoch();
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(since);
  return {.tv_sec = seconds.count(), .tv_nsec = (since - seconds).count()};
}

// The extended error, followed by an address that says nothing (as Linux for what did not come by ICMP).
void put_error(ControlWriter& out, const sock_extended_err& error, bool v6) noexcept {
  std::array<std::byte, sizeof error + sizeof(sockaddr_in6)> bytes{};
  std::memcpy(bytes.data(), &error, sizeof error);
  const std::size_t address_bytes = v6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
  out.put(v6 ? SOL_IPV6 : SOL_IP, v6 ? IPV6_RECVERR : IP_RECVERR, bytes.data(), sizeof error + address_bytes);
}

}  // namespace

void SendNotices::set_timestamping(std::uint32_t flags) noexcept {
  const bool newly_numbered = (flags & ~stamp_flags_ & SOF_TIMESTAMPING_OPT_ID) != 0;
  if (newly_numbered) key_base_ = acknowledged_;
  stamp_flags_ = flags;
}

void SendNotices::on_written(std::size_t bytes, int flags) {
  if (bytes == 0) return;
  written_ += bytes;
  Write write;
  write.end = written_;
  write.zerocopy = zerocopy_ && (flags & MSG_ZEROCOPY) != 0;
  if (write.zerocopy) write.zerocopy_id = next_id_++;
  write.stamped = stamp_flags_ != 0;
  if (write.zerocopy || write.stamped) writes_.push_back(write);
}

bool SendNotices::on_progress(std::uint64_t unacknowledged, std::uint64_t unsent, Time now) {
  news_ = false;
  const std::uint64_t sent = written_ - std::min(written_, unsent);
  acknowledged_ = written_ - std::min(written_, unacknowledged);
  for (Write& write : writes_) {
    if (!write.sent && write.end <= sent) {
      write.sent = true;
      note_sent(write, now);
    }
    if (write.end <= acknowledged_) note_acknowledged(write, now);
  }
  while (!writes_.empty() && writes_.front().end <= acknowledged_) writes_.pop_front();
  return news_;
}

void SendNotices::note_sent(const Write& write, Time now) {
  if (!write.stamped) return;
  if ((stamp_flags_ & SOF_TIMESTAMPING_TX_SCHED) != 0) add_stamp(write, SCM_TSTAMP_SCHED, now);
  if ((stamp_flags_ & SOF_TIMESTAMPING_TX_SOFTWARE) != 0) add_stamp(write, SCM_TSTAMP_SND, now);
}

void SendNotices::note_acknowledged(const Write& write, Time now) {
  if (write.stamped && (stamp_flags_ & SOF_TIMESTAMPING_TX_ACK) != 0) add_stamp(write, SCM_TSTAMP_ACK, now);
  if (write.zerocopy) add_completion(write.zerocopy_id);
}

void SendNotices::add_stamp(const Write& write, std::uint32_t kind, Time now) {
  const auto key = static_cast<std::uint32_t>(write.end - 1 - key_base_);
  queue_.push_back({.zerocopy = false, .kind = kind, .first = 0, .last = key, .at = now});
  news_ = true;
}

// Linux skb_zerocopy_notify_extend(): ids that follow each other are one notice.
void SendNotices::add_completion(std::uint32_t id) {
  news_ = true;
  if (!queue_.empty() && queue_.back().zerocopy && queue_.back().last + 1 == id) {
    queue_.back().last = id;
    return;
  }
  queue_.push_back({.zerocopy = true, .kind = 0, .first = id, .last = id, .at = {}});
}

ssize_t SendNotices::pop(msghdr& message, bool v6) {
  if (queue_.empty()) return -EAGAIN;
  const Notice notice = queue_.front();
  queue_.pop_front();
  message.msg_flags = MSG_ERRQUEUE;
  ControlWriter out(message);
  sock_extended_err error{};
  if (notice.zerocopy) {
    error.ee_origin = SO_EE_ORIGIN_ZEROCOPY;
    error.ee_code = SO_EE_CODE_ZEROCOPY_COPIED;  // what leaves by a tun is always copied
    error.ee_info = notice.first;
    error.ee_data = notice.last;
  } else {
    message.msg_flags |= MSG_TRUNC;  // the packet's bytes, which nobody asked for
    const std::array<timespec, 3> stamps = {to_timespec(notice.at)};
    out.put(SOL_SOCKET, SCM_TIMESTAMPING, stamps.data(), sizeof stamps);
    error.ee_errno = ENOMSG;
    error.ee_origin = SO_EE_ORIGIN_TIMESTAMPING;
    error.ee_info = notice.kind;
    error.ee_data = notice.last;
  }
  put_error(out, error, v6);
  return 0;
}

}  // namespace twinstack::packetdrill
