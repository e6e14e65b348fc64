/* XDP, never attached to an interface: run by BPF_PROG_TEST_RUN with live frames, it hands frames into the kernel's
 * receive path (src/nic/af_xdp/injector.h). The kernel runs it once per frame on copies of one and the same input; so
 * that one system call can carry many different frames, each run takes the next frame of a map that user space has
 * filled. With an empty list the input passes as it is.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "bpf/shared.h"

char LICENSE[] SEC("license") = "GPL";

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, TS_INJECT_FRAMES);
  __type(key, __u32);
  __type(value, struct ts_inject_frame);
} ts_frames SEC(".maps");

/* Set by user space before each call. */
__u32 ts_frame_count = 0;
__u32 ts_next_frame = 0;

SEC("xdp")
int ts_pass_xdp(struct xdp_md* ctx) {
  if (ts_frame_count == 0) return XDP_PASS;
  __u32 index = ts_next_frame;
  if (index >= ts_frame_count) return XDP_DROP;
  ts_next_frame = index + 1;
  struct ts_inject_frame* frame = bpf_map_lookup_elem(&ts_frames, &index);
  if (!frame) return XDP_DROP;
  __u32 bytes = frame->length_bytes;
  if (bytes < 14 || bytes > TS_INJECT_BYTES) return XDP_DROP;
  long now = (long)bpf_xdp_get_buff_len(ctx);
  if (bpf_xdp_adjust_tail(ctx, (int)(bytes - now)) != 0) return XDP_DROP;
  if (bpf_xdp_store_bytes(ctx, 0, frame->bytes, bytes) != 0) return XDP_DROP;
  return XDP_PASS;
}
