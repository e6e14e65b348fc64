// collection: the scripts of a folder, the run of all of them on one kind of endpoint, several at a time, and what the
// marks of a script make of an outcome.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "endpoint.h"
#include "runner.h"
#include "script.h"

namespace twinstack::conformance {

enum class Backend : std::uint8_t { kCore, kLinux };

// Every *.tcp below `folder` whose name contains `filter`, in the order of names. The first that is no script is the
// error.
Result<std::vector<Script>> load_scripts(const std::string& folder, const std::string& filter);

// A script with what came of it on a backend. `outcome` is as judged: a script that is marked as differing there passes
// by failing, and one that passes all the same has failed, since its mark is wrong.
struct Report {
  const Script* script = nullptr;
  Outcome outcome;
  bool differs = false;  // failed as its mark says
  bool repeated = false;
};

struct CollectionOptions {
  Backend backend = Backend::kCore;
  MovePlan moves = MovePlan::kNone;
  bool forgets = true;  // the kernel that a connection comes back to, as Linux
  bool v6 = false;
  unsigned workers = 0;
  // Real time on a busy machine: so many tries before a failure counts.
  unsigned tries = 0;
  Duration longest = Duration::max();  // of a script; what takes longer is skipped
};

using MakeEndpoint = std::function<Result<std::unique_ptr<Endpoint>>()>;

// Runs `scripts`, each worker on an endpoint of its own. Reports in the order of the scripts. An error when an endpoint
// cannot be made.
Result<std::vector<Report>> run_collection(const std::vector<Script>& scripts, const MakeEndpoint& make,
                                           const CollectionOptions& options);

// How long a script goes on at least.
[[nodiscard]] Duration length_of(const Script& script);

}  // namespace twinstack::conformance
