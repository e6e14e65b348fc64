/* For tests: a stand-in for the steering map's `hold` at the ingress of an interface (tc). While `hold_on`, frames go
 * into the ring instead of the kernel's receive path; the test gives them to the kernel later, in order. */
#include <linux/bpf.h>
#include <linux/pkt_cls.h>

#include <bpf/bpf_helpers.h>

#include "bpf/shared.h"

struct {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, 32 << 20);
} held SEC(".maps");

/* Records are a __u32 length and the frame, in two sizes: most frames are small. */
#define SMALL_BYTES 2044
#define LARGE_BYTES TS_LATE_MAX_BYTES

__u32 hold_on = 0;
__u64 hold_lost = 0;

static __always_inline int keep(struct __sk_buff* skb, __u32 length, __u32 room) {
  __u32* record = bpf_ringbuf_reserve(&held, room + sizeof(*record), 0);
  if (!record) {
    __sync_fetch_and_add(&hold_lost, 1);
    return TC_ACT_SHOT;
  }
  *record = length;
  if (bpf_skb_load_bytes(skb, 0, record + 1, length) != 0) {
    bpf_ringbuf_discard(record, 0);
    return TC_ACT_OK;
  }
  bpf_ringbuf_submit(record, 0);
  return TC_ACT_SHOT;
}

SEC("tc")
int twinstack_hold(struct __sk_buff* skb) {
  __u32 length = skb->len;
  __u8 source[6];
  if (!hold_on) return TC_ACT_OK;
  /* What the test gives back comes from this address. */
  if (bpf_skb_load_bytes(skb, 6, source, sizeof(source)) != 0) return TC_ACT_OK;
  if (source[0] == 0x02 && source[1] == 't' && source[2] == 's' && source[3] == 'h') return TC_ACT_OK;
  if (length > 0 && length <= SMALL_BYTES) return keep(skb, length, SMALL_BYTES);
  if (length > 0 && length <= LARGE_BYTES) return keep(skb, length, LARGE_BYTES);
  return TC_ACT_OK;
}

char LICENSE[] SEC("license") = "GPL";
