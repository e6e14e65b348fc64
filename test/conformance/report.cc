#include "report.h"

#include <fmt/format.h>

#include <iterator>
#include <map>
#include <string_view>

namespace twinstack::conformance {
namespace {

struct Table {
  std::string_view title;
  std::string_view (*reason)(const Script&);  // empty: the script does not belong here
};

std::string_view reason_if(const Mark& mark, Applies applies) noexcept {
  return mark.applies == applies ? std::string_view(mark.reason) : std::string_view();
}

constexpr Table kTables[] = {
    {"Linux differs from what the script wants",
     [](const Script& script) { return reason_if(script.on_linux, Applies::kDiffers); }},
    {"The core differs from what the script wants",
     [](const Script& script) { return reason_if(script.core, Applies::kDiffers); }},
    {"Not run on Linux", [](const Script& script) { return reason_if(script.on_linux, Applies::kNo); }},
    {"Not run on the core", [](const Script& script) { return reason_if(script.core, Applies::kNo); }},
    {"Differs after a move to the engine",
     [](const Script& script) { return reason_if(script.after_handshake, Applies::kDiffers); }},
    {"Differs after the return to the kernel",
     [](const Script& script) { return reason_if(script.round_trip, Applies::kDiffers); }},
    {"Differs after a move, there or back",
     [](const Script& script) { return reason_if(script.moves, Applies::kDiffers); }},
    {"Not run with moves", [](const Script& script) { return reason_if(script.moves, Applies::kNo); }},
    {"Core and Linux depart from the letter of the clause",
     [](const Script& script) { return std::string_view(script.departs); }},
};

// What Linux cannot be told when it takes a connection back -> the scripts that see it.
std::string forgotten_text(const std::vector<Script>& scripts) {
  std::map<std::string, std::string> rows;
  for (const Script& script : scripts) {
    const auto add = [&](const std::string& what, std::string_view note) {
      if (what.empty()) return;
      std::string& row = rows[what];
      row += fmt::format("{}`{}`{}", row.empty() ? "" : ", ", script.name, note);
    };
    add(script.forgotten, script.forgotten_there_only ? " (1)" : "");
    add(script.forgotten_anywhere, " (2)");
  }
  std::string out;
  for (const auto& [what, names] : rows) out += fmt::format("| {} | {} |\n", what, names);
  return out;
}

std::string_view word_of(const Report& report) noexcept {
  if (report.differs) return "differs";
  switch (report.outcome.verdict) {
    case Verdict::kPassed:
      return "ok";
    case Verdict::kFailed:
      return "FAILED";
    case Verdict::kSkipped:
      return "skipped";
  }
  return "?";
}

// "rfc9293/x" -> 9293, for an order of numbers.
unsigned long rfc_number(const Script& script) {
  const std::size_t digits = script.clause.find_first_of("0123456789");
  return digits == std::string::npos ? 0 : std::stoul(script.clause.substr(digits));
}

std::string counts_text(const std::vector<Script>& scripts) {
  std::map<unsigned long, unsigned> counts;
  for (const Script& script : scripts) ++counts[rfc_number(script)];
  std::string out = fmt::format("{} scripts:", scripts.size());
  std::string_view separator = "";
  for (const auto& [rfc, count] : counts) {
    fmt::format_to(std::back_inserter(out), "{} RFC {} ({})", separator, rfc, count);
    separator = ",";
  }
  return out + ".\n";
}

}  // namespace

std::string report_line(const Report& report) {
  const Outcome& outcome = report.outcome;
  std::string out = fmt::format("{:<8} {}", word_of(report), report.script->name);
  if (outcome.verdict == Verdict::kFailed && outcome.line > 0) out += fmt::format(":{}", outcome.line);
  if (report.repeated) out += " (tried again)";
  if (!outcome.reason.empty()) out += ": " + outcome.reason;
  return out;
}

std::string differences_text(const std::vector<Script>& scripts) {
  std::string out;
  for (const Table& table : kTables) {
    std::string rows;
    for (const Script& script : scripts) {
      if (const auto reason = table.reason(script); !reason.empty()) {
        rows += fmt::format("  {:<60} {}\n", script.name, reason);
      }
    }
    if (!rows.empty()) out += fmt::format("\n{}:\n{}", table.title, rows);
  }
  return out;
}

std::string document_text(const std::vector<Script>& scripts) {
  std::string out = counts_text(scripts);
  for (const Table& table : kTables) {
    std::string rows;
    for (const Script& script : scripts) {
      if (const auto reason = table.reason(script); !reason.empty()) {
        rows += fmt::format("| `{}` | {} |\n", script.name, reason);
      }
    }
    if (!rows.empty()) out += fmt::format("\n**{}**\n\n| script | why |\n|---|---|\n{}", table.title, rows);
  }
  if (const std::string rows = forgotten_text(scripts); !rows.empty()) {
    out += "\n**What Linux does not take back, and where it shows**\n\n| what | scripts |\n|---|---|\n" + rows;
  }
  return out;
}

}  // namespace twinstack::conformance
