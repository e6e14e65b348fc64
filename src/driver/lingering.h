// Lingering: what a program may pass to hold up whoever closes it. Test only.
#pragma once

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <vector>

#include "base/unique_fd.h"

namespace twinstack::driver {

// A socket whose last close sleeps until the peer is closed, `most_seconds` at most.
struct Lingering {
  explicit Lingering(int most_seconds) {
    const UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(::bind(listener.get(), generic, length), 0);
    EXPECT_EQ(::listen(listener.get(), 1), 0);
    EXPECT_EQ(::getsockname(listener.get(), generic, &length), 0);
    socket.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(::connect(socket.get(), generic, length), 0);
    peer.reset(::accept(listener.get(), nullptr, nullptr));
    const std::vector<char> bytes(1 << 20);
    while (::send(socket.get(), bytes.data(), bytes.size(), MSG_DONTWAIT) > 0) {
    }
    const linger how{.l_onoff = 1, .l_linger = most_seconds};
    EXPECT_EQ(::setsockopt(socket.get(), SOL_SOCKET, SO_LINGER, &how, sizeof(how)), 0);
  }
  UniqueFd socket;
  UniqueFd peer;
};

}  // namespace twinstack::driver
