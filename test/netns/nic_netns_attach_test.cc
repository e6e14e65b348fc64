// Attaching to a real interface, the steering map, and which frames the XDP program takes.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "netns/nic_netns_util.h"

namespace twinstack::nic {
namespace {

TEST_F(NicNetns, ScopedNetnsEntersAndComesBack) {
  make_bench();
  const auto home = current_netns_id();
  const auto target = netns_id(bench->fd(Side::kA));
  ASSERT_TRUE(home.has_value() && target.has_value());
  {
    const auto inside = ScopedNetns::enter(bench->name(Side::kA));
    ASSERT_TRUE(inside.has_value()) << inside.error().message();
    EXPECT_EQ(*current_netns_id(), *target);
    const auto again = ScopedNetns::enter(bench->fd(Side::kA));
    ASSERT_TRUE(again.has_value());
    EXPECT_EQ(*current_netns_id(), *target);
  }
  EXPECT_EQ(*current_netns_id(), *home);
  const auto missing = ScopedNetns::enter("ts-no-such-namespace");
  ASSERT_FALSE(missing.has_value());
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
}

TEST_F(NicNetns, AttachPicksGenericOnVethAndLeavesNothingBehind) {
  make_bench({.queues = 2, .mtu_bytes = 1400});
  {
    const auto nic = attach(Side::kB);
    ASSERT_NE(nic, nullptr);
    EXPECT_EQ(nic->mode(), XdpMode::kGeneric);
    EXPECT_NE(nic->mode_reason().find("veth"), std::string::npos) << nic->mode_reason();
    EXPECT_EQ(nic->interface().queues, 2U);
    EXPECT_EQ(nic->interface().mtu_bytes, 1400U);
    EXPECT_EQ(nic->checksum_mode(), ChecksumMode::kAcceptPartial);
    EXPECT_NE(link_text(Side::kB).find("xdpgeneric"), std::string::npos) << link_text(Side::kB);
    EXPECT_NE(link_text(Side::kB).find("id " + std::to_string(nic->program_id())), std::string::npos);
  }
  EXPECT_EQ(link_text(Side::kB).find("xdp"), std::string::npos) << link_text(Side::kB);
}

TEST_F(NicNetns, InterfacesOnWhichNothingCanMoveAreRefused) {
  make_bench();
  ASSERT_TRUE(bench->run_ok(Side::kB, "ip link set lo up && ip tuntap add dev ts-tun mode tun").has_value());
  for (const char* name : {"lo", "ts-tun"}) {
    const auto refused = try_attach(Side::kB, {.interface = name});
    ASSERT_FALSE(refused.has_value()) << name;
    EXPECT_EQ(refused.error().code, ErrorCode::kUnsupported);
    EXPECT_NE(refused.error().message().find(name), std::string::npos) << refused.error().message();
    EXPECT_NE(refused.error().message().find("use the Ethernet interface"), std::string::npos);
  }
  ASSERT_TRUE(bench->run_ok(Side::kB, "ip tuntap add dev ts-tap mode tap").has_value());
  EXPECT_NE(attach(Side::kB, {.interface = "ts-tap"}), nullptr);
}

TEST_F(NicNetns, AttachedWithoutLinkItIsTakenOffByTheDestructor) {
  make_bench();
  {
    const auto nic = attach(Side::kB, {.interface = {}, .without_link = true});
    ASSERT_NE(nic, nullptr);
    EXPECT_NE(link_text(Side::kB).find("id " + std::to_string(nic->program_id())), std::string::npos);
  }
  EXPECT_EQ(link_text(Side::kB).find("xdp"), std::string::npos) << link_text(Side::kB);
}

TEST_F(NicNetns, ProgramIsGoneWhenItsProcessIsKilled) {
  make_bench();
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t pid = ::fork();
  if (pid == 0) {
    const auto nic = try_attach(Side::kB);
    const char word = nic.has_value() ? 'y' : 'n';
    if (::write(ready[1], &word, 1) == 1) ::pause();
    ::_exit(0);
  }
  char word = 0;
  ASSERT_EQ(::read(ready[0], &word, 1), 1);
  EXPECT_EQ(word, 'y');
  EXPECT_NE(link_text(Side::kB).find("xdpgeneric"), std::string::npos);
  ASSERT_EQ(::kill(pid, SIGKILL), 0);
  ASSERT_EQ(::waitpid(pid, nullptr, 0), pid);
  EXPECT_EQ(link_text(Side::kB).find("xdp"), std::string::npos) << link_text(Side::kB);
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST_F(NicNetns, RefusalsSayWhatToMend) {
  make_bench();
  const auto missing = try_attach(Side::kB, {.interface = "ts-nothing"});
  ASSERT_FALSE(missing.has_value());
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  EXPECT_NE(missing.error().message().find("ts-nothing"), std::string::npos);

  const auto first = attach(Side::kB);
  ASSERT_NE(first, nullptr);
  const auto second = try_attach(Side::kB);
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code, ErrorCode::kNoResource);
  EXPECT_NE(second.error().message().find("id " + std::to_string(first->program_id())), std::string::npos)
      << second.error().message();

  const auto no_queue = AfXdpLink::open(*first, {.queue = 1});
  ASSERT_FALSE(no_queue.has_value());
  EXPECT_EQ(no_queue.error().code, ErrorCode::kNotFound);
  const auto link = open(*first);
  ASSERT_NE(link, nullptr);
  const auto taken = AfXdpLink::open(*first, {.queue = 0});
  ASSERT_FALSE(taken.has_value());
  EXPECT_EQ(taken.error().code, ErrorCode::kNoResource) << taken.error().message();
}

TEST_F(NicNetns, ZeroCopyIsRefusedByVeth) {
  make_bench();
  const auto nic = attach(Side::kB, {.interface = {}, .mode = XdpMode::kZeroCopy});
  ASSERT_NE(nic, nullptr);
  const auto link = AfXdpLink::open(*nic, {});
  ASSERT_FALSE(link.has_value());
  EXPECT_EQ(link.error().code, ErrorCode::kUnsupported) << link.error().message();
}

// As on a kernel before 6.6: a frame of several buffers would stand in the send ring for ever.
TEST_F(NicNetns, FramesBeyondOneBufferNeedMultiBuffer) {
  const auto open_with = [this](std::uint32_t mtu_bytes, bool without_multi_buffer) {
    bench.reset();
    make_bench({.mtu_bytes = mtu_bytes});
    auto nic = attach(Side::kB);
    return AfXdpLink::open(*nic, {.without_multi_buffer = without_multi_buffer});
  };
  const auto refused = open_with(3827, true);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kUnsupported);
  const std::string why = refused.error().message();
  for (const std::string& word : {std::string("MTU 3827"), std::string("3826 or less"), NetnsPair::interface(Side::kB)})
    EXPECT_NE(why.find(word), std::string::npos) << why;
  EXPECT_TRUE(open_with(3826, true).has_value());
  EXPECT_TRUE(open_with(1500, true).has_value());
  EXPECT_TRUE(open_with(9000, false).has_value());
}

TEST_F(NicNetns, WithoutPrivilegesTheMessageNamesThem) {
  make_bench();
  int report[2];
  ASSERT_EQ(::pipe(report), 0);
  const pid_t pid = ::fork();
  if (pid == 0) {
    const auto inside = ScopedNetns::enter(bench->name(Side::kB));
    if (::setresuid(65534, 65534, 65534) != 0) ::_exit(1);
    const auto nic = XdpAttachment::attach({.interface = NetnsPair::interface(Side::kB)});
    const std::string text = nic.has_value() ? "attached" : nic.error().message();
    ::_exit(::write(report[1], text.data(), text.size()) == static_cast<ssize_t>(text.size()) ? 0 : 1);
  }
  ASSERT_EQ(::waitpid(pid, nullptr, 0), pid);
  char text[512] = {};
  ASSERT_GT(::read(report[0], text, sizeof text - 1), 0);
  EXPECT_NE(std::string(text).find("CAP_BPF"), std::string::npos) << text;
  ::close(report[0]);
  ::close(report[1]);
}

TEST_F(NicNetns, SteeringMapAddsRemovesAndFills) {
  make_bench();
  const auto nic = attach(Side::kB, {.interface = {}, .mode = XdpMode::kAuto, .max_flows = 8});
  ASSERT_NE(nic, nullptr);
  Steering& steering = nic->steering();
  std::vector<SteeredFlow> flows(8);
  std::vector<FlowKey> keys;
  for (std::uint16_t i = 0; i < 8; ++i) {
    flows[i] = {.flow = {.local = IpAddress::from_v4({10, 0, 0, 1}),
                         .remote = IpAddress::from_v4({10, 0, 0, 2}),
                         .local_port = 80,
                         .remote_port = static_cast<std::uint16_t>(1000 + i)},
                .generation = i};
    keys.push_back(flows[i].flow);
  }
  FlowKey extra = keys[0];
  extra.remote_port = 9999;

  EXPECT_EQ(steering.capacity(), 8U);
  EXPECT_FALSE(steering.contains(keys[3]));
  ASSERT_TRUE(steering.add(keys[3], 7).has_value());
  EXPECT_EQ(steering.state(keys[3])->generation, 7U);
  EXPECT_EQ(steering.size(), 1U);
  ASSERT_TRUE(steering.add(keys[3], 8).has_value());
  EXPECT_EQ(steering.state(keys[3])->generation, 8U);
  EXPECT_EQ(steering.size(), 1U);
  EXPECT_EQ(*steering.remove(keys[3]), true);
  EXPECT_EQ(*steering.remove(keys[3]), false);

  ASSERT_TRUE(steering.add_many(flows).has_value());
  EXPECT_EQ(steering.size(), 8U);
  const auto full = steering.add(extra, 1);
  ASSERT_FALSE(full.has_value());
  EXPECT_EQ(full.error().code, ErrorCode::kNoResource);
  EXPECT_FALSE(steering.contains(extra));
  ASSERT_TRUE(steering.remove(keys[2]).has_value());
  ASSERT_TRUE(steering.remove_many(keys).has_value());
  EXPECT_EQ(steering.size(), 0U);

  ASSERT_TRUE(steering.add(extra, 1).has_value());
  EXPECT_EQ(steering.add_many(flows).error().code, ErrorCode::kNoResource);  // one too many: none is added
  EXPECT_EQ(steering.size(), 1U);
}

class NicNetnsQueues : public NicNetns, public ::testing::WithParamInterface<XdpMode> {};
INSTANTIATE_TEST_SUITE_P(Modes, NicNetnsQueues, ::testing::Values(XdpMode::kGeneric, XdpMode::kNative),
                         [](const auto& param) { return std::string(name(param.param)); });

TEST_P(NicNetnsQueues, EachQueueHasItsOwnLink) {
  make_bench({.queues = 4});
  const auto sender = attach(Side::kA, {.interface = {}, .mode = GetParam()});
  const auto receiver = attach(Side::kB, {.interface = {}, .mode = GetParam()});
  ASSERT_TRUE(sender != nullptr && receiver != nullptr);
  const FlowKey flow = crafted_flow();
  ASSERT_TRUE(receiver->steering().add(flow, 1).has_value());
  std::vector<std::unique_ptr<AfXdpLink>> links;
  for (std::uint32_t queue = 0; queue < 4; ++queue) {
    links.push_back(open(*receiver, {.queue = queue, .rx_frames = 256, .tx_frames = 256}));
    ASSERT_NE(links.back(), nullptr);
  }
  std::set<std::uint32_t> queues_seen;
  for (std::uint32_t queue = 0; queue < 4; ++queue) {
    const auto from = open(*sender, {.queue = queue, .rx_frames = 256, .tx_frames = 256});
    ASSERT_NE(from, nullptr);
    EXPECT_EQ(from->info().queue, queue);
    const std::vector<std::byte> sent = crafted_frame(from->info().mac, links[0]->info().mac);
    send_frame(*from, sent);
    const auto [arrived_at, kept] = collect_from_any(links);
    ASSERT_EQ(kept.size(), 1U) << "queue " << queue;
    EXPECT_EQ(flat(kept[0].frame()), sent);
    EXPECT_EQ(receiver->steering().state(flow)->rx_queue, arrived_at);
    // veth's receive queue is the peer's transmit queue; without a driver's program nobody records it, and the stack
    // reads the sender's number one too low.
    EXPECT_EQ(arrived_at, GetParam() == XdpMode::kNative ? queue : std::max(queue, 1U) - 1);
    queues_seen.insert(arrived_at);
  }
  EXPECT_EQ(receiver->steering().state(flow)->packets, 4U);
  EXPECT_GE(queues_seen.size(), 3U);
}

// Frames that the program must leave to the kernel although addresses and ports are those of a steered flow.
TEST_F(NicNetns, WhatTheProgramDoesNotUnderstandIsNotSteered) {
  make_bench();
  const auto sender = attach(Side::kA);
  const auto receiver = attach(Side::kB);
  ASSERT_TRUE(sender != nullptr && receiver != nullptr);
  const auto from = open(*sender);
  const auto to = open(*receiver);
  ASSERT_TRUE(from != nullptr && to != nullptr);
  const FlowKey flow = crafted_flow();
  ASSERT_TRUE(receiver->steering().add(flow, 1).has_value());
  const std::vector<std::byte> good = crafted_frame(from->info().mac, to->info().mac);
  const auto send = [&](const std::vector<std::byte>& frame) { send_frame(*from, frame); };
  const auto with = [&](std::size_t at, unsigned value) {
    auto frame = good;
    frame[at] = static_cast<std::byte>(value);
    return frame;
  };
  send(with(20, 0x20));  // IPv4: more fragments
  send(with(21, 0x01));  // a later fragment
  send(with(14, 0x46));  // options
  send(with(23, 17));    // UDP
  send(with(12, 0x81));  // another EtherType
  for (std::size_t bytes = 14; bytes < good.size(); ++bytes)
    send({good.begin(), good.begin() + static_cast<long>(bytes)});
  auto tagged = good;
  const std::array<std::byte, 4> vlan = {std::byte{0x81}, std::byte{0}, std::byte{0}, std::byte{5}};
  tagged.insert(tagged.begin() + 12, vlan.begin(), vlan.end());
  send(tagged);
  EXPECT_EQ(receiver->steering().state(flow)->packets, 0U);
  send(good);
  const auto kept = collect(*to, [](const auto& frames) { return !frames.empty(); });
  ASSERT_EQ(kept.size(), 1U);
  EXPECT_EQ(flat(kept[0].frame()), good);
  EXPECT_EQ(receiver->steering().state(flow)->packets, 1U);
}

}  // namespace
}  // namespace twinstack::nic
