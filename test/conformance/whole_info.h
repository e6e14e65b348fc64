// Test support: an answer to TCP_INFO in which no field is missing that a move has to keep.
#pragma once

#include "endpoint.h"

namespace twinstack::conformance {

inline Info whole_info() {
  Info info;
  for (const char* counter :
       {"bytes_acked", "bytes_received", "bytes_sent", "bytes_retrans", "segs_out", "segs_in", "data_segs_in",
        "delivered", "data_segs_out", "delivered_ce", "total_retrans", "dsack_dups", "reord_seen", "rcv_ooopack"}) {
    info[counter] = 10;
  }
  info["state"] = 1;
  info["snd_wscale"] = info["rcv_wscale"] = 7;
  info["snd_mss"] = info["rcv_mss"] = 1448;
  info["snd_cwnd"] = 20;
  info["snd_ssthresh"] = 15;
  info["snd_wnd"] = 65536;
  info["options"] = 15;
  info["reordering"] = 8;
  info["ca_state"] = 0;
  return info;
}

}  // namespace twinstack::conformance
