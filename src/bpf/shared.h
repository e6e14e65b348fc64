/* The one header that BPF programs and user space share: keys, values and configuration of the maps.
 * C, included by C++ as well. Network order where said. */
#ifndef TWINSTACK_BPF_SHARED_H
#define TWINSTACK_BPF_SHARED_H

#ifdef __cplusplus
#include <cstdint>
typedef std::uint8_t ts_u8;
typedef std::uint16_t ts_u16;
typedef std::uint32_t ts_u32;
typedef std::uint64_t ts_u64;
#else
#include <linux/types.h>
typedef __u8 ts_u8;
typedef __u16 ts_u16;
typedef __u32 ts_u32;
typedef __u64 ts_u64;
#endif

#define TS_MAX_QUEUES 64

/* Key of the steering map: a connection as this host sees it; IPv4 addresses are IPv4-mapped. Ports in host order, so
 * that the layout is that of twinstack::FlowKey. */
struct ts_flow {
  ts_u8 local[16];
  ts_u8 remote[16];
  ts_u16 local_port;
  ts_u16 remote_port;
};

/* Value of the steering map. `packets` counts what was seen; `rx_queue` is the queue that saw the last one. Generation
 * 0: the flow is the kernel's and only watched, so that its queue is known before it moves. */
struct ts_steer {
  ts_u64 packets;
  ts_u32 rx_queue;
  ts_u32 generation;
};

/* One frame that the injection program hands to the kernel; the list of them is an array map. The size of a frame is
 * limited by what BPF_PROG_TEST_RUN puts into one page beside its own headers. */
#define TS_INJECT_FRAMES 64
#define TS_INJECT_BYTES 3324
struct ts_inject_frame {
  ts_u32 length_bytes;
  ts_u8 bytes[TS_INJECT_BYTES];
};

/* Late packet, as the filter on a kernel socket hands it over by the BPF ring buffer: this head, then `ip_bytes` bytes
 * of IP header (without extension headers) and `tcp_bytes` bytes of TCP header and payload. */
#define TS_LATE_MAX_BYTES (66 * 1024)
struct ts_late_head {
  ts_u64 cookie; /* of the socket that it was meant for */
  ts_u32 ip_bytes;
  ts_u32 tcp_bytes;
};

/* Value of the socket storage by which src/bpf/congestion.bpf.c and user space speak: what a socket shall get (0 =
 * leave as it is; done once), and what was found in it: for how long its pacing keeps it from sending data. */
struct ts_congestion {
  ts_u32 cwnd_segments;
  ts_u32 ssthresh_segments;
  ts_u64 put_off_ns;
};

#endif
