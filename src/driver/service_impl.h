// The insides of Service: the driver's loop and what it serves. One thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/unique_fd.h"
#include "driver/attached_interface.h"
#include "driver/closer.h"
#include "driver/control_server.h"
#include "driver/control_target.h"
#include "driver/greetings.h"
#include "driver/mover.h"
#include "driver/parker.h"
#include "driver/service.h"
#include "driver/session.h"
#include "driver/user_quota.h"
#include "ipc/channel.h"
#include "kernel/congestion_hook.h"
#include "kernel/late_filter.h"

namespace twinstack::driver {

// How soon the policy looks at a connection that has come, or come back.
inline constexpr Duration kPolicyAgain = std::chrono::milliseconds(50);

class Service::Impl final : public ControlTarget {
 public:
  explicit Impl(ServiceOptions options) : options_(std::move(options)) {}
  ~Impl() override;

  // service.cc: set-up, loop, end.
  Result<> set_up();
  Result<> run();

  // service_control.cc: what the command line asks.
  [[nodiscard]] std::vector<ConnectionView> connections(const ConnectionFilter& filter) override;
  MoveOutcome offload(const ConnectionFilter& filter) override;
  MoveOutcome upload(const ConnectionFilter& filter) override;
  void churn(std::chrono::milliseconds interval, std::chrono::milliseconds duration) override;
  [[nodiscard]] ServiceStats stats() override;

 private:
  enum class Source : std::uint32_t { kListen, kSignal, kEvent, kLate, kRoutes, kIcmp, kControl, kGreeting, kSession };

  Result<> open_sockets();
  Result<> make_mover();
  Result<> watch(int fd, Source source, std::uint32_t number);
  Result<> loop();
  void dispatch(Source source, std::uint32_t number);
  void on_time(Time now);
  [[nodiscard]] Time next_deadline(Time now) const;
  [[nodiscard]] Time icmp_deadline() const;
  void begin_stop();
  void end_stop();
  [[nodiscard]] bool all_home() const;

  // service_sessions.cc: applications.
  void open_spare();
  void accept_applications();
  void expire_greetings(Time now);
  void drop_greeting(Greeting greeting);
  void greet(std::uint32_t number);
  void welcome(Greeting& greeting, std::span<const std::byte> message);
  void refuse_session(int socket, uid_t uid);
  void serve(std::uint32_t number);
  Result<> handle(Session& session, std::span<const std::byte> bytes, ipc::Received& received);
  Result<> on_register(Session& session, const ipc::Register& message, ipc::Received& received);
  // For LinuxKernelConn::create(); the diagnosis socket is that of the interface's namespace.
  [[nodiscard]] kernel::LinuxShared shared_for(std::uint64_t netns_cookie);
  void manage(ManagedConnection& conn, UniqueFd& socket);
  void refuse_registration(Session& session, std::uint32_t slot);
  Result<> on_close(Session& session, const ipc::Close& message);
  Result<> on_upload(Session& session, const ipc::Upload& message);
  Result<> on_query(Session& session, const ipc::Query& message);
  ManagedConnection* find(Session& session, std::uint32_t slot, std::uint32_t tag);
  void end_session(Session& session, const std::string& why);
  void connection_closed(ManagedConnection& conn);
  void hand_to_closer(std::vector<UniqueFd>& fds, uid_t uid);
  void bury(Session& session);
  void bury_sessions();
  void take_engine_events();

  // service_control.cc
  [[nodiscard]] ConnectionView view(const ManagedConnection& conn);
  [[nodiscard]] std::string reason_of(const ManagedConnection& conn);
  MoveOutcome order(const ConnectionFilter& filter, bool to_engine);
  void apply_policy(Time now);
  [[nodiscard]] bool pays(ManagedConnection& conn, Time now);
  void churn_once(Time now);

  std::optional<Closer> closer_;  // goes last: it may have to wait for programs
  ServiceOptions options_;
  std::vector<std::unique_ptr<AttachedInterface>> interfaces_;
  std::vector<LaneRunner*> lanes_;
  UniqueFd epoll_;
  UniqueFd signals_;
  UniqueFd event_;
  UniqueFd listen_;
  std::unique_ptr<kernel::LateFilter> late_filter_;
  std::unique_ptr<kernel::CongestionHook> congestion_;
  std::optional<Parker> parker_;
  std::unique_ptr<Mover> mover_;
  std::unique_ptr<ControlServer> control_;
  Greetings greetings_;
  std::map<std::uint32_t, std::unique_ptr<Session>> sessions_;
  std::uint32_t next_greeting_ = 0;
  std::uint64_t next_session_id_ = 1;
  std::vector<std::uint32_t> finished_sessions_;
  std::uint64_t broken_sessions_ = 0;
  UserQuota quota_;
  std::uint64_t refused_sessions_ = 0;       // a user had too many
  std::uint64_t refused_registrations_ = 0;  // likewise

  UniqueFd spare_;  // given up for a moment when descriptors run out
  Time policy_due_ = kNever;
  std::uint64_t policy_looks_ = 0;  // of policy `auto`
  Time churn_due_ = kNever;
  Time churn_end_ = kNever;
  Duration churn_interval_{};
  bool churn_to_engine_ = true;

  bool stopping_ = false;
  Time stop_deadline_ = kNever;
};

}  // namespace twinstack::driver
