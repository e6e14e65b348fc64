// stream_peer: both ends of a stress of TCP streams. Every connection carries a seeded pseudo-random stream in each
// direction at once; every received byte is checked. Prints one JSON line at the end; exit code 1 if anything was
// wrong.
//
//   stream_peer server --port 7000 &
//   stream_peer client --host 127.0.0.1 --port 7000 --connections 8 --bytes 10000000
#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>
#include <string>

#include "sockets.h"
#include "stream_loop.h"
#include "stream_threads.h"

namespace twinstack::peers {
namespace {

void add_behaviour(CLI::App& app, StreamOptions& options) {
  static const std::map<std::string, LoopKind> kLoops{{"level", LoopKind::kLevel},
                                                      {"edge", LoopKind::kEdge},
                                                      {"poll", LoopKind::kPoll},
                                                      {"threads", LoopKind::kThreads}};
  static const std::map<std::string, IoKind> kIos{{"rw", IoKind::kReadWrite},
                                                  {"sendrecv", IoKind::kSendRecv},
                                                  {"vector", IoKind::kVector},
                                                  {"message", IoKind::kMessage}};
  StreamBehaviour& b = options.behaviour;
  app.add_option("--loop", options.loop, "level, edge (epoll), poll, or threads (blocking I/O)")
      ->transform(CLI::CheckedTransformer(kLoops));
  app.add_option("--io", b.io, "rw, sendrecv, vector, message: family of calls")
      ->transform(CLI::CheckedTransformer(kIos));
  app.add_flag_callback("--edge", [&options] { options.loop = LoopKind::kEdge; }, "same as --loop edge");
  app.add_flag_callback("--threads", [&options] { options.loop = LoopKind::kThreads; }, "same as --loop threads");
  app.add_flag_callback("--poll", [&options] { options.loop = LoopKind::kPoll; }, "same as --loop poll");
  app.add_option("--write-min", b.write_min_bytes, "smallest write, bytes")->check(CLI::Range(1, 1 << 24));
  app.add_option("--write-max", b.write_max_bytes, "largest write, bytes")->check(CLI::Range(1, 1 << 24));
  app.add_option("--read-max", b.read_max_bytes, "largest read, bytes")->check(CLI::Range(1, 1 << 24));
  app.add_option("--pause-permille", b.pause_permille, "chance of a pause after a write");
  app.add_option("--pause-max-us", b.pause_max_us, "longest such pause");
  app.add_option("--slow-reader-us", b.slow_reader_us, "pause after every read");
  app.add_option("--rate", b.rate_bytes_per_s, "bytes per second that each connection writes; 0 = no limit");
  app.add_option("--buffer", options.buffer_bytes, "SO_RCVBUF and SO_SNDBUF, bytes; 0 = the system's way")
      ->check(CLI::Range(0, 1 << 24));
  app.add_option("--stall-limit", options.stall_limit_s, "seconds without progress that count as a failure");
}

void add_client(CLI::App& app, StreamOptions& options) {
  app.add_option("-H,--host", options.host, "server's address (numeric)")->required();
  app.add_option("-p,--port", options.port, "server's port")->required();
  app.add_option("-c,--connections", options.connections, "connections at a time")->check(CLI::Range(1, 60000));
  app.add_option("--total", options.total_connections, "connections in all, one after the other; 0 = as --connections");
  app.add_option_function<std::uint64_t>(
      "-n,--bytes", [&options](std::uint64_t bytes) { options.bytes_up = options.bytes_down = bytes; },
      "bytes in each direction of each connection");
  app.add_option("--bytes-up", options.bytes_up, "bytes client -> server");
  app.add_option("--bytes-down", options.bytes_down, "bytes server -> client");
  app.add_option("-d,--duration", options.duration_s, "send for so many seconds instead");
  app.add_option("--request", options.request_bytes, "request/response pattern: bytes of a request");
  app.add_option("--response", options.response_bytes, "bytes of its response");
  app.add_option("--seed", options.seed, "seed of the streams");
}

int run(Role role, StreamOptions& options) {
  raise_descriptor_limit();
  if (options.behaviour.write_max_bytes < options.behaviour.write_min_bytes) {
    options.behaviour.write_max_bytes = options.behaviour.write_min_bytes;
  }
  if ((options.request_bytes == 0) != (options.response_bytes == 0)) {
    std::fprintf(stderr, "stream_peer: --request and --response go together\n");
    return 2;
  }
  StreamReport report(role);
  const auto result = options.loop == LoopKind::kThreads ? run_stream_threads(role, options, report)
                                                         : run_stream_loop(role, options, report);
  if (!result) {
    std::fprintf(stderr, "stream_peer: %s\n", result.error().message().c_str());
    return 2;
  }
  return report.print() ? 0 : 1;
}

}  // namespace
}  // namespace twinstack::peers

int main(int argc, char** argv) {
  using namespace twinstack::peers;
  StreamOptions options;
  CLI::App app("Checks TCP byte streams in both directions; prints one JSON line at the end");
  app.require_subcommand(1);
  CLI::App* server = app.add_subcommand("server", "accept connections; prints 'ready PORT'; ends at SIGTERM");
  CLI::App* client = app.add_subcommand("client", "open connections");
  server->add_option("-b,--bind", options.host, "address to listen on (numeric; :: for both families)");
  server->add_option("-p,--port", options.port, "TCP port; 0 = any");
  server->add_option("--exit-after", options.exit_after_connections, "end after so many connections");
  add_behaviour(*server, options);
  add_client(*client, options);
  add_behaviour(*client, options);
  CLI11_PARSE(app, argc, argv);
  return run(server->parsed() ? Role::kServer : Role::kClient, options);
}
