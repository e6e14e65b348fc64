#include "ipc/client_message.h"

#include <gtest/gtest.h>

namespace twinstack::ipc {
namespace {

template <typename Message>
std::span<const std::byte> bytes_of(const Message& message) {
  return std::as_bytes(std::span(&message, 1));
}

template <typename Message>
Message made(MessageType type) {
  Message message{};
  message.head = {.type = type, .size_bytes = sizeof(Message)};
  return message;
}

TEST(ClientMessage, EachKindIsDecoded) {
  auto registration = made<Register>(MessageType::kRegister);
  registration.slot = 7;
  auto decoded = decode_client_message(bytes_of(registration), true);
  ASSERT_TRUE(decoded.has_value());
  EXPECT_EQ(std::get<Register>(*decoded).slot, 7U);
  auto query = made<Query>(MessageType::kQuery);
  query.request = 9;
  decoded = decode_client_message(bytes_of(query), false);
  ASSERT_TRUE(decoded.has_value());
  EXPECT_EQ(std::get<Query>(*decoded).request, 9U);
  EXPECT_TRUE(decode_client_message(bytes_of(made<Close>(MessageType::kClose)), false).has_value());
  EXPECT_TRUE(decode_client_message(bytes_of(made<Upload>(MessageType::kUpload)), false).has_value());
}

TEST(ClientMessage, WhatBreaksTheRulesIsRefused) {
  const auto close = made<Close>(MessageType::kClose);
  EXPECT_FALSE(decode_client_message({}, false).has_value());
  EXPECT_FALSE(decode_client_message(bytes_of(close).first(sizeof(MessageHead) - 1), false).has_value());
  EXPECT_FALSE(decode_client_message(bytes_of(close).first(sizeof(close) - 1), false).has_value());
  EXPECT_FALSE(decode_client_message(bytes_of(close), true).has_value()) << "descriptors";
  EXPECT_FALSE(decode_client_message(bytes_of(made<Register>(MessageType::kRegister)), false).has_value());
  EXPECT_FALSE(decode_client_message(bytes_of(made<Close>(MessageType::kWelcome)), false).has_value());
  auto liar = close;
  liar.head.size_bytes += 1;
  EXPECT_FALSE(decode_client_message(bytes_of(liar), false).has_value());
}

TEST(ClientMessage, AGreetingOfThisVersionOnly) {
  auto hello = made<Hello>(MessageType::kHello);
  hello.version = kLayoutVersion;
  EXPECT_TRUE(decode_hello(bytes_of(hello)).has_value());
  hello.version += 1;
  EXPECT_FALSE(decode_hello(bytes_of(hello)).has_value());
  hello.version -= 1;
  hello.head.type = MessageType::kClose;
  EXPECT_FALSE(decode_hello(bytes_of(hello)).has_value());
}

}  // namespace
}  // namespace twinstack::ipc
