#include "driver/filter.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <fnmatch.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace twinstack::driver {
namespace {

struct Token {
  enum class Kind : std::uint8_t { kWord, kQuoted, kOperator, kOpen, kClose, kEnd };
  Kind kind = Kind::kEnd;
  std::string text;
  std::size_t column = 1;
};

std::unexpected<Error> wrong(std::size_t column, std::string_view what) {
  return error(ErrorCode::kInvalid, fmt::format("filter, column {}: {}", column, what));
}

std::unexpected<Error> wrong(const Token& token, std::string_view what) {
  return wrong(token.column, token.kind == Token::Kind::kEnd ? fmt::format("{}, but the filter ends here", what)
                                                             : fmt::format("{}, not '{}'", what, token.text));
}

bool is_blank(char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; }

// Text -> tokens. Operators need no blanks around them (sport>=1024), and inside [...] there are none: brackets hold
// IPv6 addresses and the sets of globs.
class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text) {}
  Result<std::vector<Token>> run();

 private:
  static bool is_operator(char c) { return std::string_view("=!<>&|").find(c) != std::string_view::npos; }
  Result<Token> quoted();
  Token operators();
  Token word();
  Token take(Token::Kind kind, std::size_t end);

  std::string_view text_;
  std::size_t at_ = 0;
};

Token Lexer::take(Token::Kind kind, std::size_t end) {
  Token token{kind, std::string(text_.substr(at_, end - at_)), at_ + 1};
  at_ = end;
  return token;
}

Result<Token> Lexer::quoted() {
  const std::size_t end = text_.find('"', at_ + 1);
  if (end == std::string_view::npos) return wrong(at_ + 1, "this quote is never closed");
  Token token{Token::Kind::kQuoted, std::string(text_.substr(at_ + 1, end - at_ - 1)), at_ + 1};
  at_ = end + 1;
  return token;
}

Token Lexer::operators() {
  constexpr std::array<std::string_view, 6> kTwo = {"==", "!=", "<=", ">=", "&&", "||"};
  const bool two = std::ranges::find(kTwo, text_.substr(at_, 2)) != kTwo.end();
  return take(Token::Kind::kOperator, at_ + (two ? 2 : 1));
}

Token Lexer::word() {
  std::size_t end = at_;
  bool in_brackets = false;
  for (; end < text_.size(); ++end) {
    const char c = text_[end];
    if (is_blank(c) || c == '"') break;
    if (c == '[') in_brackets = true;
    if (c == ']') in_brackets = false;
    if (!in_brackets && (is_operator(c) || c == '(' || c == ')')) break;
  }
  return take(Token::Kind::kWord, end);
}

Result<std::vector<Token>> Lexer::run() {
  std::vector<Token> tokens;
  for (;;) {
    while (at_ < text_.size() && is_blank(text_[at_])) ++at_;
    if (at_ == text_.size()) break;
    const char c = text_[at_];
    if (c == '"') {
      ASSIGN_OR_RETURN(Token token, quoted());
      tokens.push_back(std::move(token));
    } else if (c == '(' || c == ')') {
      tokens.push_back(take(c == '(' ? Token::Kind::kOpen : Token::Kind::kClose, at_ + 1));
    } else {
      tokens.push_back(is_operator(c) ? operators() : word());
    }
  }
  tokens.push_back(Token{Token::Kind::kEnd, "", text_.size() + 1});
  return tokens;
}

template <typename T>
std::optional<T> number(std::string_view text, int base = 10) {
  T value{};
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (failure != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

enum class Comparison : std::uint8_t { kEqual, kNotEqual, kLess, kLessOrEqual, kGreater, kGreaterOrEqual };

std::optional<Comparison> comparison(const Token& token) {
  struct Name {
    std::string_view text;
    Comparison comparison;
  };
  // The words are those that ss takes.
  constexpr std::array<Name, 16> kNames = {{{"=", Comparison::kEqual},
                                            {"==", Comparison::kEqual},
                                            {"eq", Comparison::kEqual},
                                            {"!=", Comparison::kNotEqual},
                                            {"ne", Comparison::kNotEqual},
                                            {"neq", Comparison::kNotEqual},
                                            {"<", Comparison::kLess},
                                            {"lt", Comparison::kLess},
                                            {"<=", Comparison::kLessOrEqual},
                                            {"le", Comparison::kLessOrEqual},
                                            {"leq", Comparison::kLessOrEqual},
                                            {">", Comparison::kGreater},
                                            {"gt", Comparison::kGreater},
                                            {">=", Comparison::kGreaterOrEqual},
                                            {"ge", Comparison::kGreaterOrEqual},
                                            {"geq", Comparison::kGreaterOrEqual}}};
  if (token.kind != Token::Kind::kOperator && token.kind != Token::Kind::kWord) return std::nullopt;
  const auto* found = std::ranges::find(kNames, std::string_view(token.text), &Name::text);
  if (found == kNames.end()) return std::nullopt;
  return found->comparison;
}

bool holds(std::uint16_t left, Comparison comparison, std::uint16_t right) {
  switch (comparison) {
    case Comparison::kEqual:
      return left == right;
    case Comparison::kNotEqual:
      return left != right;
    case Comparison::kLess:
      return left < right;
    case Comparison::kLessOrEqual:
      return left <= right;
    case Comparison::kGreater:
      return left > right;
    case Comparison::kGreaterOrEqual:
      return left >= right;
  }
  return false;
}

// What `src` and `dst` compare with; nothing set matches every endpoint.
struct Endpoint {
  std::optional<IpAddress> address;
  unsigned prefix_bits = 128;  // of the 16 bytes: an IPv4 prefix has 96 more
  std::optional<std::uint16_t> port;

  [[nodiscard]] bool matches(const IpAddress& other, std::uint16_t other_port) const;
};

bool Endpoint::matches(const IpAddress& other, std::uint16_t other_port) const {
  if (port.has_value() && *port != other_port) return false;
  if (!address.has_value()) return true;
  if (address->is_v4() != other.is_v4()) return false;  // ::/0 is every IPv6 address, not every address
  const std::size_t whole = prefix_bits / 8;
  if (!std::equal(other.bytes.begin(), other.bytes.begin() + static_cast<std::ptrdiff_t>(whole),
                  address->bytes.begin()))
    return false;
  if (prefix_bits % 8 == 0) return true;
  const unsigned mask = 0xffU << (8 - prefix_bits % 8) & 0xffU;
  return (other.bytes[whole] & mask) == (address->bytes[whole] & mask);
}

struct EndpointText {
  std::string_view address;
  std::string_view prefix;
  std::string_view port;
  bool has_prefix = false;
  bool has_port = false;
};

// Cuts "ADDR/PREFIX:PORT" into its parts. In brackets everything up to ']' is the address; without them text with two
// or more colons is an IPv6 address without a port, as ss takes it.
std::optional<EndpointText> cut(std::string_view text) {
  EndpointText parts;
  if (text.starts_with('[')) {
    const std::size_t close = text.find(']');
    if (close == std::string_view::npos) return std::nullopt;
    parts.address = text.substr(1, close - 1);
    text.remove_prefix(close + 1);
    if (!text.empty() && text.front() != '/' && text.front() != ':') return std::nullopt;
  } else if (std::ranges::count(text, ':') >= 2) {
    parts.address = text;
    text = {};
  } else {
    const std::size_t end = std::min(text.find_first_of("/:"), text.size());
    parts.address = text.substr(0, end);
    text.remove_prefix(end);
  }
  if (const std::size_t colon = text.find(':'); colon != std::string_view::npos) {
    parts.has_port = true;
    parts.port = text.substr(colon + 1);
    text = text.substr(0, colon);
  }
  // The prefix stands behind the bracket or inside it: [fd00::]/16 and [fd00::/16].
  if (text.empty() && parts.address.find('/') != std::string_view::npos) {
    text = parts.address.substr(parts.address.find('/'));
    parts.address = parts.address.substr(0, parts.address.size() - text.size());
  }
  if (!text.empty()) {
    parts.has_prefix = true;
    parts.prefix = text.substr(1);
  }
  return parts;
}

Result<Endpoint> parse_endpoint(const Token& token) {
  constexpr std::string_view kShape = "expected ADDR[/PREFIX][:PORT] (IPv6 with a port in brackets)";
  const std::optional<EndpointText> parts = cut(token.text);
  if (!parts.has_value() || token.text.empty()) return wrong(token, kShape);
  Endpoint endpoint;
  if (parts->has_port && parts->port != "*") {
    endpoint.port = number<std::uint16_t>(parts->port);
    if (!endpoint.port.has_value()) return wrong(token, "expected a port from 0 to 65535 after the ':'");
  }
  if (parts->address.empty() || parts->address == "*") {
    if (parts->has_prefix || (parts->address.empty() && !parts->has_port)) return wrong(token, kShape);
    return endpoint;
  }
  const Result<IpAddress> address = parse_address(parts->address);
  if (!address.has_value()) return wrong(token, kShape);
  endpoint.address = *address;
  if (!parts->has_prefix) return endpoint;
  const unsigned most = address->is_v4() ? 32 : 128;
  const std::optional<unsigned> bits = number<unsigned>(parts->prefix);
  if (!bits.has_value() || *bits > most) return wrong(token, fmt::format("expected a prefix from 0 to {}", most));
  endpoint.prefix_bits = 128 - most + *bits;
  return endpoint;
}

bool equal_ignoring_case(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, [](char x, char y) {
    return std::tolower(static_cast<unsigned char>(x)) == std::tolower(static_cast<unsigned char>(y));
  });
}

ConnectionFilter negated_if(bool negate, ConnectionFilter filter) {
  if (!negate) return filter;
  return [inner = std::move(filter)](const ConnectionView& view) { return !inner(view); };
}

// Tokens -> filter, by recursive descent: one function per line of the grammar.
class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}
  Result<ConnectionFilter> run();

 private:
  using Kind = Token::Kind;
  using Predicate = Result<ConnectionFilter> (Parser::*)();

  Result<ConnectionFilter> parse_or();
  Result<ConnectionFilter> parse_and();
  Result<ConnectionFilter> parse_not();
  Result<ConnectionFilter> parse_parentheses();
  Result<ConnectionFilter> parse_predicate();

  Result<ConnectionFilter> parse_pid();
  Result<ConnectionFilter> parse_program();
  Result<ConnectionFilter> parse_stack();
  Result<ConnectionFilter> parse_state();
  Result<ConnectionFilter> parse_host(bool local);
  Result<ConnectionFilter> parse_port(bool local);
  Result<ConnectionFilter> parse_src() { return parse_host(true); }
  Result<ConnectionFilter> parse_dst() { return parse_host(false); }
  Result<ConnectionFilter> parse_sport() { return parse_port(true); }
  Result<ConnectionFilter> parse_dport() { return parse_port(false); }
  static Result<ConnectionFilter> parse_identifier(const Token& token);

  [[nodiscard]] const Token& peek() const { return tokens_[at_]; }
  Token next() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  [[nodiscard]] bool is_word(std::string_view word, std::string_view symbol, std::string_view other = {}) const;
  Result<bool> take_negation();
  Result<std::string> take_word(std::string_view expected);

  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  int depth_ = 0;
};

bool Parser::is_word(std::string_view word, std::string_view symbol, std::string_view other) const {
  if (peek().kind == Kind::kWord) return peek().text == word;
  return peek().kind == Kind::kOperator && (peek().text == symbol || (!other.empty() && peek().text == other));
}

Result<ConnectionFilter> Parser::run() {
  if (peek().kind == Kind::kEnd) return wrong(1, "the filter is empty; say `all` for every connection");
  ASSIGN_OR_RETURN(ConnectionFilter filter, parse_or());
  if (peek().kind != Kind::kEnd) return wrong(peek(), "expected 'and', 'or' or the end");
  return filter;
}

Result<ConnectionFilter> Parser::parse_or() {
  std::vector<ConnectionFilter> any;
  for (;;) {
    ASSIGN_OR_RETURN(ConnectionFilter one, parse_and());
    any.push_back(std::move(one));
    if (!is_word("or", "|", "||")) break;
    next();
  }
  if (any.size() == 1) return std::move(any.front());
  return [any = std::move(any)](const ConnectionView& view) {
    return std::ranges::any_of(any, [&view](const ConnectionFilter& one) { return one(view); });
  };
}

Result<ConnectionFilter> Parser::parse_and() {
  std::vector<ConnectionFilter> every;
  for (;;) {
    ASSIGN_OR_RETURN(ConnectionFilter one, parse_not());
    every.push_back(std::move(one));
    if (is_word("and", "&", "&&")) {
      next();
    } else if (peek().kind == Kind::kEnd || peek().kind == Kind::kClose || is_word("or", "|", "||")) {
      break;
    }
  }
  if (every.size() == 1) return std::move(every.front());
  return [every = std::move(every)](const ConnectionView& view) {
    return std::ranges::all_of(every, [&view](const ConnectionFilter& one) { return one(view); });
  };
}

Result<ConnectionFilter> Parser::parse_not() {
  if (!is_word("not", "!")) return peek().kind == Kind::kOpen ? parse_parentheses() : parse_predicate();
  if (++depth_ > kMaxFilterDepth) return wrong(peek().column, "nested too deeply");
  next();
  ASSIGN_OR_RETURN(ConnectionFilter inner, parse_not());
  --depth_;
  return negated_if(true, std::move(inner));
}

Result<ConnectionFilter> Parser::parse_parentheses() {
  if (++depth_ > kMaxFilterDepth) return wrong(peek().column, "nested too deeply");
  const std::size_t opened = next().column;
  ASSIGN_OR_RETURN(ConnectionFilter inner, parse_or());
  if (peek().kind != Kind::kClose) return wrong(peek(), fmt::format("expected the ')' of column {}", opened));
  next();
  --depth_;
  return inner;
}

Result<ConnectionFilter> Parser::parse_predicate() {
  struct Entry {
    std::string_view word;
    Predicate predicate;
  };
  static constexpr std::array<Entry, 8> kPredicates = {{{"pid", &Parser::parse_pid},
                                                        {"program", &Parser::parse_program},
                                                        {"stack", &Parser::parse_stack},
                                                        {"state", &Parser::parse_state},
                                                        {"src", &Parser::parse_src},
                                                        {"dst", &Parser::parse_dst},
                                                        {"sport", &Parser::parse_sport},
                                                        {"dport", &Parser::parse_dport}}};
  const Token token = next();
  if (token.kind == Kind::kWord) {
    if (token.text == "all") return [](const ConnectionView&) { return true; };
    if (token.text.starts_with("sk:") || token.text.starts_with("hw:")) return parse_identifier(token);
    const auto* found = std::ranges::find(kPredicates, std::string_view(token.text), &Entry::word);
    if (found != kPredicates.end()) return (this->*found->predicate)();
  }
  return wrong(token, "expected all, sk:, hw:, pid, program, stack, state, src, dst, sport, dport, not or '('");
}

Result<ConnectionFilter> Parser::parse_identifier(const Token& token) {
  std::string_view digits = std::string_view(token.text).substr(3);
  if (digits.starts_with("0x")) digits.remove_prefix(2);
  const std::optional<std::uint64_t> id = number<std::uint64_t>(digits, 16);
  if (!id.has_value() || *id == 0) return wrong(token, "expected a hexadecimal identifier other than 0 after the ':'");
  if (token.text.starts_with("sk:")) return [id](const ConnectionView& view) { return view.cookie == *id; };
  return [id](const ConnectionView& view) { return view.hw_conn_id == *id; };
}

// The optional = or != between a word and its value: true for !=.
Result<bool> Parser::take_negation() {
  const std::optional<Comparison> found = comparison(peek());
  if (!found.has_value()) return false;
  if (*found != Comparison::kEqual && *found != Comparison::kNotEqual) return wrong(peek(), "expected '=' or '!='");
  next();
  return *found == Comparison::kNotEqual;
}

Result<std::string> Parser::take_word(std::string_view expected) {
  if (peek().kind != Kind::kWord && peek().kind != Kind::kQuoted) return wrong(peek(), expected);
  return next().text;
}

Result<ConnectionFilter> Parser::parse_pid() {
  ASSIGN_OR_RETURN(const bool negate, take_negation());
  const Token token = peek();
  ASSIGN_OR_RETURN(const std::string word, take_word("expected a process number after 'pid'"));
  const std::optional<int> pid = number<int>(word);
  if (!pid.has_value() || *pid <= 0) return wrong(token, "expected a process number after 'pid'");
  return negated_if(negate, [pid](const ConnectionView& view) { return view.pid == *pid; });
}

Result<ConnectionFilter> Parser::parse_program() {
  ASSIGN_OR_RETURN(const bool negate, take_negation());
  ASSIGN_OR_RETURN(std::string glob, take_word("expected a program's name or a glob after 'program'"));
  return negated_if(negate, [glob = std::move(glob)](const ConnectionView& view) {
    return ::fnmatch(glob.c_str(), view.program.c_str(), 0) == 0;
  });
}

Result<ConnectionFilter> Parser::parse_stack() {
  constexpr std::array<std::string_view, 4> kStacks = {"kernel", "engine", "to-kernel", "to-engine"};
  ASSIGN_OR_RETURN(const bool negate, take_negation());
  const Token token = peek();
  ASSIGN_OR_RETURN(std::string stack, take_word("expected kernel or engine after 'stack'"));
  if (std::ranges::find(kStacks, stack) == kStacks.end())
    return wrong(token, "expected kernel, engine, to-kernel or to-engine after 'stack'");
  return negated_if(negate, [stack = std::move(stack)](const ConnectionView& view) { return view.stack == stack; });
}

Result<ConnectionFilter> Parser::parse_state() {
  constexpr std::array<std::string_view, 12> kStates = {"ESTAB",      "SYN-SENT",  "SYN-RECV", "FIN-WAIT-1",
                                                        "FIN-WAIT-2", "TIME-WAIT", "CLOSED",   "CLOSE-WAIT",
                                                        "LAST-ACK",   "LISTEN",    "CLOSING",  "UNKNOWN"};
  ASSIGN_OR_RETURN(const bool negate, take_negation());
  const Token token = peek();
  ASSIGN_OR_RETURN(std::string state, take_word("expected a TCP state after 'state'"));
  if (equal_ignoring_case(state, "established")) state = "ESTAB";
  if (std::ranges::none_of(kStates, [&state](std::string_view known) { return equal_ignoring_case(known, state); }))
    return wrong(token, "expected a TCP state (established, close-wait, ...) after 'state'");
  return negated_if(negate, [state = std::move(state)](const ConnectionView& view) {
    return equal_ignoring_case(view.state, state);
  });
}

Result<ConnectionFilter> Parser::parse_host(bool local) {
  ASSIGN_OR_RETURN(const bool negate, take_negation());
  const Token token = peek();
  TRY(take_word("expected ADDR[/PREFIX][:PORT]"));
  ASSIGN_OR_RETURN(const Endpoint endpoint, parse_endpoint(token));
  return negated_if(negate, [endpoint, local](const ConnectionView& view) {
    return local ? endpoint.matches(view.flow.local, view.flow.local_port)
                 : endpoint.matches(view.flow.remote, view.flow.remote_port);
  });
}

Result<ConnectionFilter> Parser::parse_port(bool local) {
  const std::optional<Comparison> given = comparison(peek());
  if (given.has_value()) next();
  const Comparison relation = given.value_or(Comparison::kEqual);
  const Token token = peek();
  ASSIGN_OR_RETURN(const std::string word, take_word("expected a port number (names of services are not known here)"));
  const std::string_view digits = std::string_view(word).substr(word.starts_with(':') ? 1 : 0);
  const std::optional<std::uint16_t> port = number<std::uint16_t>(digits);
  if (!port.has_value()) return wrong(token, "expected a port number from 0 to 65535");
  return [port = *port, relation, local](const ConnectionView& view) {
    return holds(local ? view.flow.local_port : view.flow.remote_port, relation, port);
  };
}

}  // namespace

Result<IpAddress> parse_address(std::string_view text) {
  const std::string copy(text);  // inet_pton() wants an end mark
  std::array<std::uint8_t, 4> v4{};
  if (::inet_pton(AF_INET, copy.c_str(), v4.data()) == 1) return IpAddress::from_v4(v4);
  IpAddress address;
  if (::inet_pton(AF_INET6, copy.c_str(), address.bytes.data()) == 1) return address;
  return error(ErrorCode::kInvalid, fmt::format("'{}' is no IP address", text));
}

Result<ConnectionFilter> parse_filter(std::string_view text) {
  if (text.size() > kMaxFilterBytes)
    return wrong(kMaxFilterBytes + 1, fmt::format("a filter has at most {} bytes", kMaxFilterBytes));
  ASSIGN_OR_RETURN(std::vector<Token> tokens, Lexer(text).run());
  return Parser(std::move(tokens)).run();
}

}  // namespace twinstack::driver
