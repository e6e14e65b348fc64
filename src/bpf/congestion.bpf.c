/* A congestion control for one instant, for what no socket option reaches: its init() writes the window and threshold
 * that user space left in the socket's local storage, and leaves there for how long the socket's pacing keeps it from
 * sending; the real congestion control takes over with the next setsockopt. The other members are the least that Linux
 * asks for; between the two calls the connection is held, so they hardly ever run.
 *
 * Carries the few kernel types that it touches (CO-RE): no vmlinux.h. */
#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "bpf/shared.h"

struct sock {
  int unused_;
} __attribute__((preserve_access_index));

struct tcp_sock {
  __u32 snd_cwnd;
  __u32 snd_ssthresh;
  __u32 prior_cwnd;
  __u64 tcp_wstamp_ns;
} __attribute__((preserve_access_index));

struct tcp_congestion_ops {
  void (*init)(struct sock* sk);
  __u32 (*ssthresh)(struct sock* sk);
  void (*cong_avoid)(struct sock* sk, __u32 ack, __u32 acked);
  __u32 (*undo_cwnd)(struct sock* sk);
  char name[16];
};

struct {
  __uint(type, BPF_MAP_TYPE_SK_STORAGE);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, int);
  __type(value, struct ts_congestion);
} ts_storage SEC(".maps");

SEC("struct_ops/ts_init")
void BPF_PROG(ts_init, struct sock* sk) {
  struct ts_congestion* talk = bpf_sk_storage_get(&ts_storage, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
  struct tcp_sock* tp = (struct tcp_sock*)sk;
  __u64 now = bpf_ktime_get_ns();
  __u64 next_send = tp->tcp_wstamp_ns;
  if (!talk) return;
  if (talk->cwnd_segments) tp->snd_cwnd = talk->cwnd_segments;
  if (talk->ssthresh_segments) tp->snd_ssthresh = talk->ssthresh_segments;
  talk->cwnd_segments = 0;
  talk->ssthresh_segments = 0;
  talk->put_off_ns = next_send > now ? next_send - now : 0;
}

SEC("struct_ops/ts_ssthresh")
__u32 BPF_PROG(ts_ssthresh, struct sock* sk) {
  __u32 half = ((struct tcp_sock*)sk)->snd_cwnd >> 1;
  return half > 2 ? half : 2; /* RFC 5681 (4) */
}

SEC("struct_ops/ts_avoid")
void BPF_PROG(ts_avoid, struct sock* sk, __u32 ack, __u32 acked) {}

SEC("struct_ops/ts_undo")
__u32 BPF_PROG(ts_undo, struct sock* sk) {
  struct tcp_sock* tp = (struct tcp_sock*)sk;
  __u32 now = tp->snd_cwnd;
  __u32 prior = tp->prior_cwnd;
  return now > prior ? now : prior;
}

/* The name is replaced before the load by one that is unique to the process (congestion_hook.cc looks for these 15
 * bytes). */
SEC(".struct_ops")
struct tcp_congestion_ops ts_congestion_ops = {
    .init = (void*)ts_init,
    .ssthresh = (void*)ts_ssthresh,
    .cong_avoid = (void*)ts_avoid,
    .undo_cwnd = (void*)ts_undo,
    .name = "ts@@@@@@@@@@@@@",
};

char LICENSE[] SEC("license") = "GPL";
