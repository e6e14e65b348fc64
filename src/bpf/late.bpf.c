/* The late-packet filter: a socket filter on the kernel socket of a connection that moves or is away. Copies each
 * packet into the ring buffer, whole, and drops it before the kernel's TCP looks at it: no ACK, no RST, no state
 * changed. Runs in softirq on the CPU that received the packet; a full ring drops the packet and counts it.
 *
 * A record has a head and up to 64 KB behind it, and bpf_ringbuf_reserve() takes constant sizes only (dynptr needs
 * Linux 5.19), so records come in four size classes; the head says what is used. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "bpf/shared.h"

#define MAX_IP_BYTES 60
#define MIN_TCP_BYTES 20

struct {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, 16 << 20);
} ring SEC(".maps");

__u64 late_packets = 0;
__u64 late_ring_full = 0;
__u64 late_too_long = 0;
__u64 late_unreadable = 0;

/* Bytes of the IP header, 0 when it cannot be read. */
static __always_inline __u32 ip_header_bytes(struct __sk_buff* skb) {
  __u8 first;
  if (skb->protocol == bpf_htons(ETH_P_IPV6)) return sizeof(struct ipv6hdr);
  if (bpf_skb_load_bytes_relative(skb, 0, &first, 1, BPF_HDR_START_NET) != 0) return 0;
  return (first & 0xf) * 4;
}

/* Payload may lie in page fragments, which only the non-relative load reads; offset 0 is the TCP header here. */
static __always_inline int fill(struct __sk_buff* skb, struct ts_late_head* head, __u32 ip_bytes, __u32 tcp_bytes,
                                __u32 room) {
  __u8* bytes = (__u8*)(head + 1);
  if (ip_bytes < sizeof(struct iphdr) || ip_bytes > MAX_IP_BYTES) return -1;
  if (tcp_bytes < MIN_TCP_BYTES || tcp_bytes > room - MAX_IP_BYTES - sizeof(*head)) return -1;
  head->cookie = bpf_get_socket_cookie(skb);
  head->ip_bytes = ip_bytes;
  head->tcp_bytes = tcp_bytes;
  if (bpf_skb_load_bytes_relative(skb, 0, bytes, ip_bytes, BPF_HDR_START_NET) != 0) return -1;
  return bpf_skb_load_bytes(skb, 0, bytes + ip_bytes, tcp_bytes) == 0 ? 0 : -1;
}

#define HAND_OVER(skb, ip_bytes, tcp_bytes, room)                      \
  do {                                                                 \
    struct ts_late_head* head = bpf_ringbuf_reserve(&ring, (room), 0); \
    if (!head) {                                                       \
      __sync_fetch_and_add(&late_ring_full, 1);                        \
      return 0;                                                        \
    }                                                                  \
    if (fill((skb), head, (ip_bytes), (tcp_bytes), (room)) != 0) {     \
      bpf_ringbuf_discard(head, 0);                                    \
      __sync_fetch_and_add(&late_unreadable, 1);                       \
      return 0;                                                        \
    }                                                                  \
    bpf_ringbuf_submit(head, 0);                                       \
    __sync_fetch_and_add(&late_packets, 1);                            \
    return 0;                                                          \
  } while (0)

#define OVERHEAD (MAX_IP_BYTES + sizeof(struct ts_late_head))

SEC("socket")
int twinstack_late(struct __sk_buff* skb) {
  __u32 ip_bytes = ip_header_bytes(skb);
  __u32 tcp_bytes = skb->len;
  if (tcp_bytes <= 256 - OVERHEAD) HAND_OVER(skb, ip_bytes, tcp_bytes, 256);
  if (tcp_bytes <= 2048 - OVERHEAD) HAND_OVER(skb, ip_bytes, tcp_bytes, 2048);
  if (tcp_bytes <= 16384 - OVERHEAD) HAND_OVER(skb, ip_bytes, tcp_bytes, 16384);
  if (tcp_bytes <= TS_LATE_MAX_BYTES) HAND_OVER(skb, ip_bytes, tcp_bytes, (TS_LATE_MAX_BYTES + 128));
  __sync_fetch_and_add(&late_too_long, 1);
  return 0;
}

char LICENSE[] SEC("license") = "GPL";
