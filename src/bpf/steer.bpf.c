/* XDP: TCP packets of steered connections go to the AF_XDP socket of their receive queue, everything else to the
 * kernel. One program and one pair of maps per interface. Runs in native and in generic mode; `frags` because frames
 * may lie in several buffers (GSO super-packets, jumbo frames): only the first one is looked at.
 *
 * Frames that PacketInjector puts into the kernel come by here again in generic mode: it gives them the interface's own
 * MAC as source too, which no frame from a link has, and they are passed on whatever the map says.
 *
 * It passes on, and never drops, whatever it does not understand: VLAN tags, IPv4 options and fragments, IPv6 extension
 * headers, truncated packets, a steered flow on a queue without a socket. The late-packet filter on the kernel socket
 * catches what belongs to an offloaded connection all the same.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "bpf/shared.h"

char LICENSE[] SEC("license") = "GPL";

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 65536); /* set by user space before loading */
  __type(key, struct ts_flow);
  __type(value, struct ts_steer);
} ts_flows SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_XSKMAP);
  __uint(max_entries, TS_MAX_QUEUES);
  __type(key, __u32);
  __type(value, __u32);
} ts_sockets SEC(".maps");

#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV4_OFFSET 0x1fff

static __always_inline int is_injected(const struct ethhdr* eth) {
  const __u16* destination = (const __u16*)eth->h_dest;
  const __u16* source = (const __u16*)eth->h_source;
  return destination[0] == source[0] && destination[1] == source[1] && destination[2] == source[2];
}

/* Fills the addresses of `key` from an IPv4 header; the TCP header behind it, or NULL. */
static __always_inline struct tcphdr* ipv4_flow(struct iphdr* ip, void* data_end, struct ts_flow* key) {
  if ((void*)(ip + 1) > data_end) return NULL;
  if (ip->version != 4 || ip->ihl != 5 || ip->protocol != IPPROTO_TCP) return NULL;
  if (ip->frag_off & bpf_htons(IPV4_MORE_FRAGMENTS | IPV4_OFFSET)) return NULL;
  key->local[10] = key->local[11] = key->remote[10] = key->remote[11] = 0xff;
  __builtin_memcpy(key->local + 12, &ip->daddr, 4);
  __builtin_memcpy(key->remote + 12, &ip->saddr, 4);
  return (struct tcphdr*)(ip + 1);
}

/* An IPv4-mapped address in an IPv6 header would meet the key of an IPv4 connection. */
static __always_inline int is_mapped(const struct in6_addr* address) {
  return address->s6_addr32[0] == 0 && address->s6_addr32[1] == 0 && address->s6_addr32[2] == bpf_htonl(0xffff);
}

static __always_inline struct tcphdr* ipv6_flow(struct ipv6hdr* ip, void* data_end, struct ts_flow* key) {
  if ((void*)(ip + 1) > data_end) return NULL;
  if (ip->version != 6 || ip->nexthdr != IPPROTO_TCP) return NULL;
  if (is_mapped(&ip->daddr) || is_mapped(&ip->saddr)) return NULL;
  __builtin_memcpy(key->local, &ip->daddr, 16);
  __builtin_memcpy(key->remote, &ip->saddr, 16);
  return (struct tcphdr*)(ip + 1);
}

SEC("xdp.frags")
int ts_steer_xdp(struct xdp_md* ctx) {
  void* data = (void*)(long)ctx->data;
  void* data_end = (void*)(long)ctx->data_end;
  struct ethhdr* eth = data;
  struct ts_flow key = {};
  struct tcphdr* tcp = NULL;

  if ((void*)(eth + 1) > data_end) return XDP_PASS;
  if (is_injected(eth)) return XDP_PASS;
  if (eth->h_proto == bpf_htons(ETH_P_IP)) {
    tcp = ipv4_flow((struct iphdr*)(eth + 1), data_end, &key);
  } else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
    tcp = ipv6_flow((struct ipv6hdr*)(eth + 1), data_end, &key);
  }
  if (!tcp || (void*)(tcp + 1) > data_end) return XDP_PASS;
  key.local_port = bpf_ntohs(tcp->dest);
  key.remote_port = bpf_ntohs(tcp->source);

  struct ts_steer* steer = bpf_map_lookup_elem(&ts_flows, &key);
  if (!steer) return XDP_PASS;
  __sync_fetch_and_add(&steer->packets, 1);
  if (steer->rx_queue != ctx->rx_queue_index) steer->rx_queue = ctx->rx_queue_index;
  if (!steer->generation) return XDP_PASS; /* watched only */
  /* The flags are the verdict when no socket sits on that queue. */
  return (int)bpf_redirect_map(&ts_sockets, ctx->rx_queue_index, XDP_PASS);
}
