// report: what the program says of a collection and its run, as text.
#pragma once

#include <string>
#include <vector>

#include "collection.h"
#include "script.h"

namespace twinstack::conformance {

// "FAILED   rfc9293/x:12: why", without the trace.
[[nodiscard]] std::string report_line(const Report& report);

// The known differences: scripts that fail, or cannot be run, on one backend, and why; and those that want something
// else than the letter of their clause.
[[nodiscard]] std::string differences_text(const std::vector<Script>& scripts);

// The same as Markdown, with the number of scripts for each RFC: what docs/conformance.md holds.
[[nodiscard]] std::string document_text(const std::vector<Script>& scripts);

}  // namespace twinstack::conformance
