/* A congestion control for one instant: its init() writes the window and threshold that user space left in the socket's
 * local storage, and the real congestion control takes over with the next setsockopt. The other members are the least
 * that Linux asks for; between the two calls the connection is held, so they hardly ever run.
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
  __type(value, struct ts_cwnd);
} ts_cwnd_storage SEC(".maps");

SEC("struct_ops/ts_cwnd_init")
void BPF_PROG(ts_cwnd_init, struct sock* sk) {
  struct ts_cwnd* wanted = bpf_sk_storage_get(&ts_cwnd_storage, sk, 0, 0);
  struct tcp_sock* tp = (struct tcp_sock*)sk;
  if (!wanted) return;
  if (wanted->cwnd_segments) tp->snd_cwnd = wanted->cwnd_segments;
  if (wanted->ssthresh_segments) tp->snd_ssthresh = wanted->ssthresh_segments;
}

SEC("struct_ops/ts_cwnd_ssthresh")
__u32 BPF_PROG(ts_cwnd_ssthresh, struct sock* sk) {
  __u32 half = ((struct tcp_sock*)sk)->snd_cwnd >> 1;
  return half > 2 ? half : 2; /* RFC 5681 (4) */
}

SEC("struct_ops/ts_cwnd_avoid")
void BPF_PROG(ts_cwnd_avoid, struct sock* sk, __u32 ack, __u32 acked) {}

SEC("struct_ops/ts_cwnd_undo")
__u32 BPF_PROG(ts_cwnd_undo, struct sock* sk) {
  struct tcp_sock* tp = (struct tcp_sock*)sk;
  __u32 now = tp->snd_cwnd;
  __u32 prior = tp->prior_cwnd;
  return now > prior ? now : prior;
}

/* The name is replaced before the load by one that is unique to the process (cwnd.cc looks for these 15 bytes). */
SEC(".struct_ops")
struct tcp_congestion_ops ts_cwnd_ops = {
    .init = (void*)ts_cwnd_init,
    .ssthresh = (void*)ts_cwnd_ssthresh,
    .cong_avoid = (void*)ts_cwnd_avoid,
    .undo_cwnd = (void*)ts_cwnd_undo,
    .name = "ts@@@@@@@@@@@@@",
};

char LICENSE[] SEC("license") = "GPL";
