// Line: the words of one line of a script, taken from the left. What does not fit is an error that names file, line and
// word. Parts of the parser share it; nothing else uses it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "script.h"

namespace twinstack::conformance {

class Line {
 public:
  // `text`: without its newline. A word that begins with '#' and what follows it is left out.
  Line(std::string_view file, std::size_t number, std::string_view text);

  [[nodiscard]] bool at_end() const noexcept { return next_ == words_.size(); }
  [[nodiscard]] std::size_t number() const noexcept { return number_; }
  // The next word, empty at the end. take() goes on behind it.
  [[nodiscard]] std::string_view peek() const noexcept { return at_end() ? std::string_view() : words_[next_]; }
  std::string_view take() noexcept { return at_end() ? std::string_view() : words_[next_++]; }
  // Goes on behind the next word when it is `word`.
  bool accept(std::string_view word) noexcept;
  // What is left, words joined by a space.
  std::string take_rest();

  // The next word as a number: "12", "-1"; as a match: "12", "1..5", ">=3", "<3", "*"; with a unit ("20ms", "1.5s") it
  // is in microseconds. `what` names it in the error.
  Result<std::int64_t> take_number(std::string_view what);
  Result<Match> take_match(std::string_view what);
  // "20ms", "1.5s", "300us": a unit is required.
  Result<Duration> take_duration(std::string_view what);
  // An error when something is left.
  [[nodiscard]] Result<> expect_end() const;

  [[nodiscard]] std::unexpected<Error> fail(const std::string& why) const;

 private:
  std::string file_;
  std::size_t number_;
  std::vector<std::string> words_;
  std::size_t next_ = 0;
};

// The readers behind Line's; false when `text` is none.
[[nodiscard]] bool read_number(std::string_view text, std::int64_t& out) noexcept;
[[nodiscard]] bool read_match(std::string_view text, Match& out) noexcept;
[[nodiscard]] bool read_duration(std::string_view text, Duration& out) noexcept;

}  // namespace twinstack::conformance
