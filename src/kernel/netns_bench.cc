#include "kernel/netns_bench.h"

#include <arpa/inet.h>
#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/tcp.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <sstream>

#include "hold.skel.h"
#include "kernel/address.h"

namespace twinstack::kernel::testing {
namespace {

// virtio_net_hdr: <linux/virtio_net.h> is no C++.
struct VnetHeader {
  std::uint8_t flags = 1;     // VIRTIO_NET_HDR_F_NEEDS_CSUM
  std::uint8_t gso_type = 0;  // 1: TCPV4, 4: TCPV6
  std::uint16_t hdr_len = 0;
  std::uint16_t gso_size = 0;
  std::uint16_t csum_start = 0;
  std::uint16_t csum_offset = 0;
};
static_assert(sizeof(VnetHeader) == 10);

constexpr std::int64_t kDeadlineNs = 30'000'000'000;

std::int64_t monotonic_ns() {
  timespec ts{};
  ::clock_gettime(CLOCK_MONOTONIC, &ts);
  return static_cast<std::int64_t>(ts.tv_sec) * 1'000'000'000 + ts.tv_nsec;
}

Result<> set_non_blocking(int fd) {
  if (::fcntl(fd, F_SETFL, O_NONBLOCK) != 0) return system_error("fcntl(O_NONBLOCK)");
  return {};
}

}  // namespace

std::byte pattern(std::uint64_t offset, unsigned stream) noexcept {
  const std::uint64_t mixed = (offset + 1) * 0x9e3779b97f4a7c15U + stream * 0x5851f42d4c957f2dU;
  return static_cast<std::byte>(mixed >> 56);
}

long PatternEnd::write_some(std::size_t bytes) {
  const std::size_t wanted = std::min(bytes, buffer_.size());
  for (std::size_t i = 0; i < wanted; ++i) buffer_[i] = pattern(written_ + i, writes_);
  const ssize_t sent = ::send(fd_, buffer_.data(), wanted, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0) return errno == EAGAIN ? 0 : -errno;
  written_ += static_cast<std::uint64_t>(sent);
  return sent;
}

long PatternEnd::read_some(std::size_t bytes) {
  const ssize_t got = ::recv(fd_, buffer_.data(), std::min(bytes, buffer_.size()), MSG_DONTWAIT);
  if (got < 0) return errno == EAGAIN ? 0 : -errno;
  ended_ = got == 0;
  for (std::size_t i = 0; i < static_cast<std::size_t>(got); ++i) wrong_ += buffer_[i] != pattern(read_ + i, reads_);
  read_ += static_cast<std::uint64_t>(got);
  return got;
}

Peer::Peer(UniqueFd socket, std::uint64_t write_limit, std::size_t read_bytes_per_turn)
    : socket_(std::move(socket)),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      write_limit_(write_limit),
      read_bytes_per_turn_(read_bytes_per_turn),
      end_(socket_.get(), 1, 0),
      thread_([this] { run(); }) {}

Peer::~Peer() {
  stop_ = true;
  const std::uint64_t one = 1;
  static_cast<void>(::write(wake_.get(), &one, sizeof one));
  thread_.join();
}

bool Peer::finish(std::uint64_t expected) {
  stop_writing_ = true;
  const std::int64_t deadline = monotonic_ns() + kDeadlineNs;
  while (read_.load() < expected && error_.load() == 0 && monotonic_ns() < deadline) ::sched_yield();
  return read_.load() >= expected;
}

void Peer::run() {
  while (!stop_ && error_ == 0) {
    const bool may_write = !stop_writing_ && end_.written() < write_limit_;
    std::array<pollfd, 2> waits{pollfd{socket_.get(), static_cast<short>(POLLIN | (may_write ? POLLOUT : 0)), 0},
                                pollfd{wake_.get(), POLLIN, 0}};
    if (::poll(waits.data(), waits.size(), 10) < 0) continue;
    const long got = end_.read_some(read_bytes_per_turn_);
    const long sent =
        may_write ? end_.write_some(std::min<std::uint64_t>(64U << 10, write_limit_ - end_.written())) : 0;
    if (got < 0 || sent < 0) error_ = static_cast<int>(got < 0 ? -got : -sent);
    if (end_.ended()) error_ = EPIPE;
    written_ = end_.written();
    read_ = end_.read();
    wrong_ = end_.wrong();
  }
}

Result<std::unique_ptr<WireInjector>> WireInjector::open(const NetnsPair& pair) {
  std::unique_ptr<WireInjector> made(new WireInjector);
  ASSIGN_OR_RETURN(made->socket_, pair.socket(Side::kB, AF_PACKET, SOCK_RAW));
  ifreq request{};
  const std::string name = NetnsPair::interface(Side::kB);
  std::copy(name.begin(), name.end(), std::begin(request.ifr_name));
  if (::ioctl(made->socket_.get(), SIOCGIFHWADDR, &request) != 0) return system_error("SIOCGIFHWADDR");
  made->source_mac_ = {0x02, 't', 's', 'h', 'l', 'd'};  // lets it past the hold
  if (::ioctl(made->socket_.get(), SIOCGIFINDEX, &request) != 0) return system_error("SIOCGIFINDEX");
  sockaddr_ll to{};
  to.sll_family = AF_PACKET;
  to.sll_ifindex = request.ifr_ifindex;
  if (::bind(made->socket_.get(), reinterpret_cast<sockaddr*>(&to), sizeof to) != 0) return system_error("bind");
  const int on = 1;
  if (::setsockopt(made->socket_.get(), SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on) != 0) {
    return system_error("PACKET_VNET_HDR");
  }
  ASSIGN_OR_RETURN(const UniqueFd probe, pair.socket(Side::kA, AF_INET, SOCK_DGRAM));
  ifreq ours{};
  const std::string other = NetnsPair::interface(Side::kA);
  std::copy(other.begin(), other.end(), std::begin(ours.ifr_name));
  if (::ioctl(probe.get(), SIOCGIFHWADDR, &ours) != 0) return system_error("SIOCGIFHWADDR");
  std::memcpy(made->destination_mac_.data(), ours.ifr_hwaddr.sa_data, 6);
  return made;
}

Result<> WireInjector::inject(const LatePacket& packet) {
  const bool v6 = (static_cast<unsigned>(packet.ip_header[0]) >> 4) == 6;
  const std::size_t tcp_header = (static_cast<std::size_t>(packet.tcp[12]) >> 4) * 4;
  const std::size_t headers = 14 + packet.ip_header.size() + tcp_header;
  VnetHeader head;  // the checksum field holds the pseudo-header sum: these packets never left the host
  head.csum_start = static_cast<std::uint16_t>(14 + packet.ip_header.size());
  head.csum_offset = 16;
  if (packet.tcp.size() - tcp_header > 1400) {
    head.gso_type = v6 ? 4 : 1;
    head.gso_size = 1400;
    head.hdr_len = static_cast<std::uint16_t>(headers);
  }
  std::array<std::uint8_t, 14> ethernet{};
  std::copy(destination_mac_.begin(), destination_mac_.end(), ethernet.begin());
  std::copy(source_mac_.begin(), source_mac_.end(), ethernet.begin() + 6);
  ethernet[12] = v6 ? 0x86 : 0x08;
  ethernet[13] = v6 ? 0xdd : 0x00;
  std::array<iovec, 4> parts{iovec{&head, sizeof head}, iovec{ethernet.data(), ethernet.size()},
                             iovec{const_cast<std::byte*>(packet.ip_header.data()), packet.ip_header.size()},
                             iovec{const_cast<std::byte*>(packet.tcp.data()), packet.tcp.size()}};
  msghdr message{};
  message.msg_iov = parts.data();
  message.msg_iovlen = parts.size();
  if (::sendmsg(socket_.get(), &message, 0) < 0) return system_error("inject");
  return {};
}

Result<> WireInjector::inject_frame(std::span<const std::byte> frame) {
  if (frame.size() < 54) return {};
  const bool v6 = frame[12] == std::byte{0x86};
  const std::size_t ip_bytes = v6 ? 40 : (static_cast<std::size_t>(frame[14]) & 0xf) * 4;
  const std::byte protocol = v6 ? frame[20] : frame[23];
  const bool arp = frame[12] == std::byte{0x08} && frame[13] == std::byte{0x06};
  if (arp || protocol != std::byte{IPPROTO_TCP}) return {};  // neighbour discovery repeats itself
  return inject(LatePacket{.ip_header = frame.subspan(14, ip_bytes), .tcp = frame.subspan(14 + ip_bytes)});
}

Result<std::unique_ptr<IngressHold>> IngressHold::attach(const NetnsPair& pair) {
  std::unique_ptr<IngressHold> made(new IngressHold);
  made->skeleton_ = hold_bpf__open_and_load();
  if (made->skeleton_ == nullptr) return system_error("load the hold program");
  made->ring_ = ring_buffer__new(bpf_map__fd(made->skeleton_->maps.held), &IngressHold::on_frame, made.get(), nullptr);
  if (made->ring_ == nullptr) return system_error("map the hold ring");
  int rc = 0;
  TRY(pair.in(Side::kA, [&] {
    bpf_tc_hook hook{};
    hook.sz = sizeof hook;
    hook.ifindex = static_cast<int>(::if_nametoindex(NetnsPair::interface(Side::kA).c_str()));
    hook.attach_point = BPF_TC_INGRESS;
    bpf_tc_opts options{};
    options.sz = sizeof options;
    options.prog_fd = bpf_program__fd(made->skeleton_->progs.twinstack_hold);
    options.handle = 1;
    options.priority = 1;
    rc = bpf_tc_hook_create(&hook);
    if (rc == 0) rc = bpf_tc_attach(&hook, &options);
  }));
  if (rc != 0) return system_error("attach the hold program", -rc);
  return made;
}

IngressHold::~IngressHold() {
  ring_buffer__free(ring_);
  hold_bpf__destroy(skeleton_);
}

void IngressHold::set(bool on) { std::atomic_ref<std::uint32_t>(skeleton_->bss->hold_on).store(on ? 1 : 0); }

std::uint64_t IngressHold::lost() const noexcept { return skeleton_->bss->hold_lost; }

Result<std::size_t> IngressHold::inject(WireInjector& injector) {
  injector_ = &injector;
  const int count = ring_buffer__consume(ring_);
  if (count < 0) return system_error("inject what was held", -count);
  return static_cast<std::size_t>(count);
}

int IngressHold::on_frame(void* context, void* data, std::size_t size_bytes) {
  std::uint32_t length = 0;
  std::memcpy(&length, data, sizeof length);
  if (length > size_bytes - sizeof length) return -EBADMSG;
  const auto* bytes = static_cast<const std::byte*>(data) + sizeof length;
  const auto done = static_cast<IngressHold*>(context)->injector_->inject_frame({bytes, length});
  return done.has_value() ? 0 : -EIO;
}

Result<std::unique_ptr<Bench>> Bench::create(const twinstack::testing::NetnsOptions& options) {
  auto made = std::make_unique<Bench>();
  ASSIGN_OR_RETURN(made->pair_, NetnsPair::create(options));
  ASSIGN_OR_RETURN(made->late_filter_, LateFilter::load());
  ASSIGN_OR_RETURN(made->congestion_, CongestionHook::load());
  Result<SockDiag> diag = error(ErrorCode::kNotFound, "not opened");
  TRY(made->pair_->in(Side::kA, [&] { diag = SockDiag::open(); }));
  if (!diag.has_value()) return std::unexpected(diag.error());
  made->diag_ = std::make_unique<SockDiag>(std::move(*diag));
  made->shared = {
      .late_filter = made->late_filter_.get(), .congestion = made->congestion_.get(), .diag = made->diag_.get()};
  return made;
}

namespace {

// Address of `side` for a listener and a dialler in namespaces a and b.
SocketAddress address_of(Side side, Family family, const NetnsPair& pair) {
  SocketAddress made;
  auto& v6 = reinterpret_cast<sockaddr_in6&>(made.storage);
  auto& v4 = reinterpret_cast<sockaddr_in&>(made.storage);
  if (family == Family::kV4) {
    v4.sin_family = AF_INET;
    ::inet_pton(AF_INET, NetnsPair::address_v4(side).c_str(), &v4.sin_addr);
    made.length = sizeof v4;
    return made;
  }
  std::string text = NetnsPair::address_v6(side);
  if (family == Family::kV4OnV6Socket) text = "::ffff:" + NetnsPair::address_v4(side);
  v6.sin6_family = AF_INET6;
  if (family == Family::kV6LinkLocal) {
    text = side == Side::kA ? "fe80::a" : "fe80::b";
    static_cast<void>(pair.in(twinstack::testing::other(side), [&] {
      v6.sin6_scope_id = ::if_nametoindex(NetnsPair::interface(twinstack::testing::other(side)).c_str());
    }));
  }
  ::inet_pton(AF_INET6, text.c_str(), &v6.sin6_addr);
  made.length = sizeof v6;
  return made;
}

std::uint32_t own_scope(Side side, const NetnsPair& pair) {
  std::uint32_t index = 0;
  static_cast<void>(pair.in(side, [&] { index = ::if_nametoindex(NetnsPair::interface(side).c_str()); }));
  return index;
}

}  // namespace

Result<Connection> Bench::connect(Family family, bool passive) {
  const int domain = family == Family::kV4 ? AF_INET : AF_INET6;
  const Side listening = passive ? Side::kA : Side::kB;
  const Side dialling = twinstack::testing::other(listening);
  if (family == Family::kV6LinkLocal) {
    for (const Side side : {Side::kA, Side::kB}) {
      TRY(pair_->run_ok(side, std::string("ip addr replace ") + (side == Side::kA ? "fe80::a" : "fe80::b") +
                                  "/64 dev " + NetnsPair::interface(side) + " nodad"));
    }
  }
  ASSIGN_OR_RETURN(UniqueFd listener, pair_->socket(listening, domain, SOCK_STREAM));
  ASSIGN_OR_RETURN(UniqueFd dialler, pair_->socket(dialling, domain, SOCK_STREAM));
  SocketAddress to = address_of(listening, family, *pair_);
  SocketAddress bound = to;
  if (family == Family::kV6LinkLocal) {
    reinterpret_cast<sockaddr_in6&>(bound.storage).sin6_scope_id = own_scope(listening, *pair_);
  }
  const int on = 1;
  ::setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (::bind(listener.get(), bound.get(), bound.length) != 0) return system_error("bind listener");
  if (::listen(listener.get(), 8) != 0) return system_error("listen");
  SocketAddress name{.length = sizeof(sockaddr_storage)};
  if (::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&name.storage), &name.length) != 0) {
    return system_error("getsockname");
  }
  reinterpret_cast<sockaddr_in&>(to.storage).sin_port = reinterpret_cast<sockaddr_in&>(name.storage).sin_port;
  if (::connect(dialler.get(), to.get(), to.length) != 0) return system_error("connect");
  UniqueFd accepted(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!accepted) return system_error("accept");
  TRY(set_non_blocking(accepted.get()));
  TRY(set_non_blocking(dialler.get()));
  if (passive) return Connection{std::move(accepted), std::move(dialler)};
  return Connection{std::move(dialler), std::move(accepted)};
}

Result<std::unique_ptr<LinuxKernelConn>> Bench::take(int socket) {
  UniqueFd copy(::fcntl(socket, F_DUPFD_CLOEXEC, 0));
  if (!copy) return system_error("dup");
  return LinuxKernelConn::create(std::move(copy), shared);
}

std::uint64_t Bench::counter(Side side, const std::string& group, const std::string& name) const {
  const auto text = pair_->run_ok(side, "cat /proc/net/snmp /proc/net/netstat");
  if (!text.has_value()) return ~std::uint64_t{0};
  std::istringstream lines(*text);
  std::string names;
  std::string values;
  while (std::getline(lines, names) && std::getline(lines, values)) {
    if (!names.starts_with(group + ":")) continue;
    std::istringstream name_words(names);
    std::istringstream value_words(values);
    std::string word;
    std::string value;
    while (name_words >> word && value_words >> value) {
      if (word == name) return std::stoull(value);
    }
  }
  return ~std::uint64_t{0};
}

std::int64_t Costs::now_ns() { return monotonic_ns(); }

double Costs::median_us(const std::string& name) {
  auto& all = samples_[name];
  if (all.empty()) return 0;
  std::sort(all.begin(), all.end());
  return static_cast<double>(all[all.size() / 2]) / 1000;
}

void Costs::print(const std::string& title) {
  std::printf("%s\n", title.c_str());
  for (auto& [name, all] : samples_) {
    std::sort(all.begin(), all.end());
    const auto at = [&](double part) {
      return static_cast<double>(all[static_cast<std::size_t>(part * static_cast<double>(all.size() - 1))]) / 1000;
    };
    std::printf("  %-16s median %7.1f us  p99 %7.1f us  max %8.1f us  (%zu)\n", name.c_str(), at(0.5), at(0.99),
                at(1.0), all.size());
  }
}

}  // namespace twinstack::kernel::testing
