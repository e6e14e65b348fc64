#include "kernel/kernel_conn.h"

namespace twinstack::kernel {
namespace {

struct ReasonWords {
  std::string_view name;
  std::string_view text;
};

constexpr ReasonWords words(Reason reason) {
  switch (reason) {
    case Reason::kNone:
      return {"none", "nothing stands against a move"};
    case Reason::kNotTcp:
      return {"not-tcp", "not a TCP socket over IP"};
    case Reason::kMptcp:
      return {"mptcp", "Multipath TCP"};
    case Reason::kNotEstablished:
      return {"not-established", "the connection is not in state ESTABLISHED"};
    case Reason::kRepairOn:
      return {"repair-on", "the socket is in repair mode already"};
    case Reason::kUrgentData:
      return {"urgent-data", "urgent data is pending"};
    case Reason::kUlp:
      return {"ulp", "an upper-layer protocol (kTLS ...) is attached"};
    case Reason::kMd5:
      return {"md5", "TCP MD5 signatures are in use"};
    case Reason::kAo:
      return {"ao", "the TCP authentication option is in use"};
    case Reason::kZerocopy:
      return {"zerocopy", "SO_ZEROCOPY is on: completions may be outstanding"};
    case Reason::kErrorQueue:
      return {"error-queue", "an error or a message in the error queue waits to be read"};
    case Reason::kTimestamping:
      return {"timestamping", "packets' times are reported (SO_TIMESTAMPING, SO_TIMESTAMP or SO_TIMESTAMPNS)"};
    case Reason::kControlData:
      return {"control-data", "TCP_INQ is on: recvmsg() gives control data"};
    case Reason::kLowWater:
      return {"low-water", "SO_RCVLOWAT is above 1"};
    case Reason::kIpOptions:
      return {"ip-options", "IP options or extension headers are sent"};
    case Reason::kMinHops:
      return {"min-hops", "IP_MINTTL or IPV6_MINHOPCOUNT is set: the engine does not look at hop limits"};
    case Reason::kTransparent:
      return {"transparent", "IP_TRANSPARENT is on: the local address may not be ours"};
    case Reason::kSocketFilter:
      return {"socket-filter", "the program attached a filter to the socket"};
    case Reason::kPacing:
      return {"pacing", "SO_MAX_PACING_RATE is set"};
    case Reason::kCongestionControl:
      return {"congestion-control", "the engine has no like of its congestion control"};
    case Reason::kReceiveQueueLimit:
      return {"receive-queue-limit", "more unread bytes than the limit"};
    case Reason::kSendQueueLimit:
      return {"send-queue-limit", "more unacknowledged and unsent bytes than the limit"};
    case Reason::kOutOfOrder:
      return {"out-of-order", "the kernel holds (or may hold) out-of-order data"};
    case Reason::kLossRecovery:
      return {"loss-recovery", "the kernel is repairing a loss"};
    case Reason::kLoopback:
      return {"loopback", "both ends are on this host"};
    case Reason::kNoRoute:
      return {"no-route", "no route through an Ethernet interface"};
  }
  return {"unknown", "unknown reason"};
}

}  // namespace

std::string_view reason_text(Reason reason) noexcept { return words(reason).text; }
std::string_view reason_name(Reason reason) noexcept { return words(reason).name; }

}  // namespace twinstack::kernel
