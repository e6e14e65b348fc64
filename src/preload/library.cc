// libtwinstack.so: the socket layer under its own names; all of it is in src/sockets.
#include "twinstack/twinstack.h"

extern "C" const char* ts_version(void) { return TWINSTACK_VERSION; }
