#include "ipc/client_message.h"

#include <cstring>

namespace twinstack::ipc {
namespace {

template <typename Message>
Result<Message> decode(std::span<const std::byte> bytes) {
  Message message;
  if (bytes.size() != sizeof(message)) return error(ErrorCode::kProtocol, "a message of the wrong size");
  std::memcpy(&message, bytes.data(), sizeof(message));
  if (message.head.size_bytes != sizeof(message))
    return error(ErrorCode::kProtocol, "a message that lies about its size");
  return message;
}

}  // namespace

Result<Hello> decode_hello(std::span<const std::byte> bytes) {
  ASSIGN_OR_RETURN(const Hello hello, decode<Hello>(bytes));
  if (hello.head.type != MessageType::kHello) return error(ErrorCode::kProtocol, "no greeting");
  if (hello.version != kLayoutVersion) return error(ErrorCode::kProtocol, "a library of another version");
  return hello;
}

Result<ClientMessage> decode_client_message(std::span<const std::byte> bytes, bool brings_descriptors) {
  MessageHead head;
  if (bytes.size() < sizeof(head)) return error(ErrorCode::kProtocol, "a message without head");
  std::memcpy(&head, bytes.data(), sizeof(head));
  if (head.type != MessageType::kRegister && brings_descriptors)
    return error(ErrorCode::kProtocol, "descriptors with a message that has none");
  if (head.type == MessageType::kRegister && !brings_descriptors)
    return error(ErrorCode::kProtocol, "a registration without the socket");
  switch (head.type) {
    case MessageType::kRegister: {
      ASSIGN_OR_RETURN(const Register message, decode<Register>(bytes));
      return message;
    }
    case MessageType::kClose: {
      ASSIGN_OR_RETURN(const Close message, decode<Close>(bytes));
      return message;
    }
    case MessageType::kUpload: {
      ASSIGN_OR_RETURN(const Upload message, decode<Upload>(bytes));
      return message;
    }
    case MessageType::kQuery: {
      ASSIGN_OR_RETURN(const Query message, decode<Query>(bytes));
      return message;
    }
    default:
      return error(ErrorCode::kProtocol, "an unknown message");
  }
}

}  // namespace twinstack::ipc
