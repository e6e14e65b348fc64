#include "behaviour/service_process.h"

#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "base/assert.h"
#include "base/log.h"

namespace twinstack::testing {
namespace {

// Lowers the limit of locked memory too, which is as good as a capability.
bool keep_only(std::uint64_t capabilities) {
  __user_cap_header_struct head{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  const auto low = static_cast<std::uint32_t>(capabilities);
  const auto high = static_cast<std::uint32_t>(capabilities >> 32);
  const std::array<__user_cap_data_struct, 2> data = {{{.effective = low, .permitted = low, .inheritable = 0},
                                                       {.effective = high, .permitted = high, .inheritable = 0}}};
  const rlimit little{.rlim_cur = 65536, .rlim_max = 65536};
  return ::setrlimit(RLIMIT_MEMLOCK, &little) == 0 && ::syscall(SYS_capset, &head, data.data()) == 0;
}

}  // namespace

Result<std::unique_ptr<ServiceProcess>> ServiceProcess::start(const NetnsPair& pair, driver::Policy policy,
                                                              const driver::ServiceOptions& base,
                                                              std::uint64_t capabilities) {
  std::unique_ptr<ServiceProcess> self(new ServiceProcess);
  std::string directory = (std::filesystem::temp_directory_path() / "twinstack-test-XXXXXX").string();
  if (::mkdtemp(directory.data()) == nullptr) return system_error("mkdtemp");
  self->directory_ = directory;
  self->path_ = directory + "/service.sock";
  std::array<int, 2> output{};
  if (::pipe(output.data()) != 0) return system_error("pipe");
  self->pid_ = ::fork();
  if (self->pid_ < 0) return system_error("fork");
  if (self->pid_ == 0) {
    ::dup2(output[1], STDOUT_FILENO);
    ::close(output[0]);
    set_up_logging(std::getenv("TWINSTACK_TEST_LOG") != nullptr ? std::getenv("TWINSTACK_TEST_LOG") : "warn");
    driver::ServiceOptions options = base;
    options.interfaces = {{.name = NetnsPair::interface(Side::kB), .netns = pair.name(Side::kB)}};
    options.socket_path = self->path_;
    options.policy = policy;
    if (~capabilities != 0) {
      options.interfaces[0].netns.clear();
      if (::setns(pair.fd(Side::kB), CLONE_NEWNET) != 0 || !keep_only(capabilities)) ::_exit(1);
    }
    auto service = driver::Service::create(options);
    if (!service) {
      std::fprintf(stderr, "service: %s\n", service.error().message().c_str());
      ::_exit(1);
    }
    const auto served = (*service)->run();
    if (!served) std::fprintf(stderr, "service: %s\n", served.error().message().c_str());
    service->reset();
    ::_exit(served ? 0 : 1);
  }
  ::close(output[1]);
  const UniqueFd reader(output[0]);
  std::array<char, 64> text{};
  const ssize_t got = ::read(reader.get(), text.data(), text.size() - 1);
  if (got <= 0 || std::string_view(text.data()).find("ready") == std::string_view::npos)
    return error(ErrorCode::kSystem, "the service did not become ready");
  return self;
}

ServiceProcess::~ServiceProcess() {
  if (pid_ > 0) stop();
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

driver::Json ServiceProcess::ask(const std::string& cmd, const std::string& filter) {
  auto client = driver::ControlClient::connect(path_);
  if (!client) {
    std::fprintf(stderr, "control: %s\n", client.error().message().c_str());
    std::abort();
  }
  driver::Json request{{"cmd", cmd}};
  if (!filter.empty()) request["filter"] = filter;
  auto reply = client->ask(request);
  if (!reply) {
    std::fprintf(stderr, "control %s: %s\n", cmd.c_str(), reply.error().message().c_str());
    std::abort();
  }
  return *reply;
}

driver::Json ServiceProcess::find(std::uint64_t cookie) {
  const auto reply = ask("ls", "sk:" + driver::hex(cookie));
  const auto& all = reply["connections"];
  return all.empty() ? driver::Json() : all[0];
}

std::uint64_t ServiceProcess::counter(const std::string& name) {
  const auto reply = ask("stats");
  return reply["counters"].value(name, std::uint64_t{0});
}

int ServiceProcess::stop() {
  ::kill(pid_, SIGTERM);
  int status = 0;
  for (int i = 0; i < 1000; ++i) {
    if (::waitpid(pid_, &status, WNOHANG) == pid_) {
      pid_ = -1;
      return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
    ::poll(nullptr, 0, 10);
  }
  kill();
  return 128 + SIGKILL;
}

void ServiceProcess::kill() {
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

}  // namespace twinstack::testing
