#include "behaviour/behaviour_fixture.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <fstream>

#include "driver/view_json.h"

namespace twinstack::testing {
namespace {

using Clock = std::chrono::steady_clock;
using driver::Json;

std::vector<std::byte>& scratch() {
  static std::vector<std::byte> bytes(65536);
  return bytes;
}

}  // namespace

bool eventually(const std::function<bool()>& done, const std::function<void()>& step,
                std::chrono::milliseconds deadline) {
  const auto end = Clock::now() + deadline;
  while (!done()) {
    if (Clock::now() > end) return false;
    if (step) step();
    ::poll(nullptr, 0, 1);
  }
  return true;
}

tcp_info info_of(int fd) {
  tcp_info info{};
  socklen_t length = sizeof(info);
  EXPECT_EQ(::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length), 0);
  return info;
}

Seen look(int fd) {
  std::array<std::byte, 4096> bytes;
  const ssize_t got = ::recv(fd, bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (got > 0) return Seen::kBytes;
  if (got == 0) return Seen::kEnd;
  if (errno == EAGAIN) return Seen::kNothing;
  return errno == ECONNRESET ? Seen::kReset : Seen::kOtherError;
}

std::size_t Talk::peer_sends(std::size_t bytes) {
  const auto part = std::span(scratch()).first(std::min(bytes, scratch().size()));
  fill_stream(seed_, to_served_sent, part);
  const ssize_t sent = ::send(peer.get(), part.data(), part.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent <= 0) return 0;
  to_served_sent += static_cast<std::uint64_t>(sent);
  return static_cast<std::size_t>(sent);
}

std::size_t Talk::served_sends(std::size_t bytes) {
  const auto part = std::span(scratch()).first(std::min(bytes, scratch().size()));
  fill_stream(seed_ + 1, to_peer_sent, part);
  const auto sent = served->send(part);
  EXPECT_TRUE(sent.has_value()) << sent.error().message();
  to_peer_sent += sent.value_or(0);
  return sent.value_or(0);
}

std::size_t Talk::peer_reads() {
  const ssize_t got = ::recv(peer.get(), scratch().data(), scratch().size(), MSG_DONTWAIT);
  EXPECT_TRUE(got > 0 || (got < 0 && errno == EAGAIN)) << "recv of the peer: " << got << ", errno " << errno;
  if (got <= 0) return 0;
  const auto bytes = static_cast<std::size_t>(got);
  EXPECT_EQ(check_stream(seed_ + 1, to_peer_read, std::span(scratch()).first(bytes)), -1);
  to_peer_read += bytes;
  return bytes;
}

std::size_t Talk::served_reads(std::size_t at_most) {
  application_.drain();
  const auto got = served->receive(std::span(scratch()).first(std::min(at_most, scratch().size())));
  EXPECT_TRUE(got.has_value()) << got.error().message();
  if (!got || !*got) return 0;
  EXPECT_NE(**got, 0U) << "the peer has not closed";
  EXPECT_EQ(check_stream(seed_, to_served_read, std::span(scratch()).first(**got)), -1);
  to_served_read += **got;
  return **got;
}

void Talk::step(std::size_t bytes) {
  peer_sends(bytes);
  peer_reads();
  served_reads();
  served_sends(bytes);
}

void Talk::exchange(std::size_t bytes) {
  std::size_t to_served = bytes;
  std::size_t to_peer = bytes;
  const auto step = [&] {
    if (to_served > 0) to_served -= peer_sends(to_served);
    if (to_peer > 0) to_peer -= served_sends(to_peer);
    served_reads();
    peer_reads();
  };
  EXPECT_TRUE(eventually([&] { return to_served + to_peer == 0 && is_settled(); }, step)) << "traffic stands still";
}

void Talk::settle() {
  const auto step = [&] {
    while (!is_settled() && served_reads() + peer_reads() > 0) {
    }
  };
  EXPECT_TRUE(eventually([&] { return is_settled(); }, step))
      << to_served_sent - to_served_read << " bytes have not reached the application, " << to_peer_sent - to_peer_read
      << " not the peer";
}

void Talk::expect_owner(ipc::Owner owner, bool with_traffic) {
  EXPECT_TRUE(eventually([&] { return served->owner() == owner; },
                         [&] {
                           if (with_traffic) step();
                           application_.drain();
                         }))
      << "owner is " << static_cast<int>(served->owner()) << ", not " << static_cast<int>(owner);
}

void Behaviour::SetUp() {
  if (const auto why = NetnsPair::why_unavailable(); !why.empty()) GTEST_SKIP() << why;
  auto pair = NetnsPair::create(netns());
  ASSERT_TRUE(pair.has_value()) << pair.error().message();
  pair_ = std::move(*pair);
  start_service(driver::Policy::kManual);
}

void Behaviour::start_service(driver::Policy policy) {
  application_.reset();
  service_.reset();
  auto service = ServiceProcess::start(*pair_, policy, options());
  ASSERT_TRUE(service.has_value()) << service.error().message();
  service_ = std::move(*service);
  auto application = RawApplication::connect(service_->socket_path());
  ASSERT_TRUE(application.has_value()) << application.error().message();
  application_ = std::move(*application);
}

std::unique_ptr<Talk> Behaviour::open(bool v6, Opening opening, RawApplication* application) {
  auto sockets = connect_pair(*pair_, v6, opening);
  EXPECT_TRUE(sockets.has_value()) << sockets.error().message();
  return adopt(std::move(*sockets), application);
}

std::unique_ptr<Talk> Behaviour::adopt(SocketPair sockets, RawApplication* application) {
  RawApplication& own = application == nullptr ? *application_ : *application;
  auto served = own.adopt(std::move(sockets.served));
  EXPECT_TRUE(served.has_value()) << served.error().message();
  auto talk = std::make_unique<Talk>(own, std::move(*served), std::move(sockets.peer), next_seed_);
  next_seed_ += 2;
  EXPECT_TRUE(eventually([&] { return talk->served->slot().kernel_cookie.load() != 0; })) << "never registered";
  return talk;
}

std::string Behaviour::sk(const Talk& talk) { return "sk:" + driver::hex(talk.served->cookie()); }

// A refusal for something that passes (a neighbour being resolved, a loss being repaired) is no failure.
void Behaviour::to_engine(Talk& talk, bool with_traffic) {
  Json reply;
  const auto ordered = [&] {
    reply = service_->ask("offload", sk(talk));
    return reply["moved"] == 1 || reply["already"] == 1;
  };
  ASSERT_TRUE(eventually(ordered, [&] {
    if (with_traffic) talk.step();
  })) << reply.dump();
  talk.expect_owner(ipc::Owner::kEngine, with_traffic);
}

void Behaviour::to_kernel(Talk& talk, bool with_traffic) {
  const auto reply = service_->ask("upload", sk(talk));
  ASSERT_EQ(reply["matched"], 1) << reply.dump();
  talk.expect_owner(ipc::Owner::kKernel, with_traffic);
}

void Behaviour::wait_until_parked(const Talk& talk) {
  constexpr unsigned kEstablished = 1;  // TCP_ESTABLISHED
  EXPECT_TRUE(eventually([&] {
    const tcp_info info = info_of(talk.served->fd());
    return info.tcpi_bytes_received == 0 && info.tcpi_state == kEstablished;
  }));
}

Json Behaviour::line(const Talk& talk) { return service_->find(talk.served->cookie()); }

ipc::HwConnState Behaviour::hardware(const Talk& talk) {
  const auto state = application_->query(*talk.served);
  EXPECT_TRUE(state.has_value()) << state.error().message();
  EXPECT_TRUE(state.has_value() && state->has_value()) << "the engine does not own it";
  return state.has_value() ? state->value_or(ipc::HwConnState{}) : ipc::HwConnState{};
}

bool Behaviour::is_in_engine(const Talk& talk) {
  const auto state = application_->query(*talk.served);
  EXPECT_TRUE(state.has_value()) << state.error().message();
  return state.has_value() && state->has_value();
}

// The served side counts each silent disconnect of a move as a reset of an established connection: it tells by what it
// has sent.
void Behaviour::expect_no_reset() const {
  EXPECT_EQ(counter(Side::kA, "TcpEstabResets"), 0U);
  EXPECT_EQ(counter(Side::kA, "TcpOutRsts"), 0U);
  EXPECT_EQ(counter(Side::kB, "TcpOutRsts"), 0U);
}

void Behaviour::expect_nothing_left() {
  EXPECT_TRUE(eventually([&] { return service_->ask("ls", "all")["connections"].empty(); }))
      << service_->ask("ls", "all").dump();
  const Json stats = service_->ask("stats");
  EXPECT_EQ(stats["connections"], 0);
  EXPECT_EQ(stats["engine_connections"], 0);
  EXPECT_EQ(steered_flows(), 0U);
}

std::set<int> Behaviour::held_maps() const {
  std::set<int> ids;  // a line "map_id: N" in the description of the descriptors
  const std::string fdinfo = "/proc/" + std::to_string(service_->pid()) + "/fdinfo";
  for (const auto& entry : std::filesystem::directory_iterator(fdinfo)) {
    std::ifstream file(entry.path());
    std::string word;
    while (file >> word)
      if (int id = 0; word == "map_id:" && file >> id) ids.insert(id);
  }
  return ids;
}

std::size_t Behaviour::steered_flows() const {
  for (const int id : held_maps()) {
    const std::string map = "id " + std::to_string(id);
    if (shell(Side::kB, "bpftool map show -j " + map).find("\"ts_flows\"") == std::string::npos) continue;
    const Json entries = Json::parse(shell(Side::kB, "bpftool map dump -j " + map), nullptr, false);
    EXPECT_TRUE(entries.is_array()) << entries.dump();
    return entries.size();
  }
  ADD_FAILURE() << "the service's steering map was not found";
  return 0;
}

std::string Behaviour::shell(Side side, const std::string& command) const {
  const auto output = pair_->run(side, command);
  EXPECT_TRUE(output.has_value()) << output.error().message();
  return output ? output->text : "";
}

}  // namespace twinstack::testing
