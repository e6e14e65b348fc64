/* What src/preload needs of the layer beside the ts_* functions. C. */
#ifndef TWINSTACK_SOCKETS_PRELOAD_HOOKS_H
#define TWINSTACK_SOCKETS_PRELOAD_HOOKS_H

#ifdef __cplusplus
extern "C" {
#endif

/* libc is about to close `fd` by itself (fclose). */
void twinstack_forget_descriptor(int fd);

#ifdef __cplusplus
}
#endif

#endif
