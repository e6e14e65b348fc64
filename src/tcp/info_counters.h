// InfoCounters: the counters of tcp_info that only grow, by their names there. The kernel begins them anew whenever a
// move disconnects its socket, and the engine with every stay, so they are added up over the stays in both stacks.
#pragma once

#include <cstdint>

namespace twinstack::tcp {

// `Wide` and `Narrow`: 64 and 32 bits, as tcp_info has them; atomic where the counters are shared.
template <typename Wide, typename Narrow>
struct BasicInfoCounters {
  Wide bytes_acked;
  Wide bytes_received;
  Wide bytes_sent;  // retransmissions included
  Wide bytes_retrans;
  Narrow segs_out;
  Narrow segs_in;
  Narrow data_segs_out;
  Narrow data_segs_in;
  Narrow total_retrans;
  Narrow delivered;
  Narrow delivered_ce;
  Narrow dsack_dups;
  Narrow reord_seen;
  Narrow rcv_ooopack;
};

using InfoCounters = BasicInfoCounters<std::uint64_t, std::uint32_t>;

// Calls f(a's counter, b's counter) for each.
template <typename A, typename B, typename F>
constexpr void for_each_counter(A& a, B& b, F f) noexcept {
  f(a.bytes_acked, b.bytes_acked);
  f(a.bytes_received, b.bytes_received);
  f(a.bytes_sent, b.bytes_sent);
  f(a.bytes_retrans, b.bytes_retrans);
  f(a.segs_out, b.segs_out);
  f(a.segs_in, b.segs_in);
  f(a.data_segs_out, b.data_segs_out);
  f(a.data_segs_in, b.data_segs_in);
  f(a.total_retrans, b.total_retrans);
  f(a.delivered, b.delivered);
  f(a.delivered_ce, b.delivered_ce);
  f(a.dsack_dups, b.dsack_dups);
  f(a.reord_seen, b.reord_seen);
  f(a.rcv_ooopack, b.rcv_ooopack);
}

// `info`: a tcp_info, of whatever header.
template <typename A, typename Info, typename F>
constexpr void for_each_info_counter(A& a, Info& info, F f) noexcept {
  f(a.bytes_acked, info.tcpi_bytes_acked);
  f(a.bytes_received, info.tcpi_bytes_received);
  f(a.bytes_sent, info.tcpi_bytes_sent);
  f(a.bytes_retrans, info.tcpi_bytes_retrans);
  f(a.segs_out, info.tcpi_segs_out);
  f(a.segs_in, info.tcpi_segs_in);
  f(a.data_segs_out, info.tcpi_data_segs_out);
  f(a.data_segs_in, info.tcpi_data_segs_in);
  f(a.total_retrans, info.tcpi_total_retrans);
  f(a.delivered, info.tcpi_delivered);
  f(a.delivered_ce, info.tcpi_delivered_ce);
  f(a.dsack_dups, info.tcpi_dsack_dups);
  f(a.reord_seen, info.tcpi_reord_seen);
  f(a.rcv_ooopack, info.tcpi_rcv_ooopack);
}

template <typename Info>
[[nodiscard]] InfoCounters take_counters(const Info& info) noexcept {
  InfoCounters out{};
  for_each_info_counter(out, info, [](auto& a, const auto& b) { a = b; });
  return out;
}

template <typename Info>
void put_counters(const InfoCounters& counters, Info& info) noexcept {
  for_each_info_counter(counters, info, [](const auto& a, auto& b) { b = a; });
}

inline InfoCounters& operator+=(InfoCounters& sum, const InfoCounters& more) noexcept {
  for_each_counter(sum, more, [](auto& a, const auto& b) { a += b; });
  return sum;
}

}  // namespace twinstack::tcp
