#include "node-agent/agent/service.h"

#include <errno.h>
#include <grpcpp/grpcpp.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "node-agent/agent/failure.h"
#include "node-agent/base/log.h"
#include "proto/agent.grpc.pb.h"

namespace dfscsi::agent {
namespace {

using runtime::Deadline;
using runtime::RealLoop;
using runtime::Task;
using Handler = Service::Handler;

static_assert(static_cast<int>(absl::StatusCode::kUnauthenticated) ==
              static_cast<int>(grpc::StatusCode::UNAUTHENTICATED));

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  v1::Failure failure;
  failure.set_reason(ReasonOf(status));
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()),
                      failure.SerializeAsString());
}

// One call: made by gRPC, run on the loop, deleted by gRPC when it is over.
template <typename Request, typename Response>
class Call final : public grpc::ServerUnaryReactor {
 public:
  using Method = Task<absl::Status> (Handler::*)(Request, Response*, Deadline);

  static grpc::ServerUnaryReactor* Start(RealLoop& loop, Handler& handler, Method method,
                                         grpc::CallbackServerContext* context,
                                         const Request* request, Response* response) {
    auto* const call = new Call(loop);
    const auto finisher = std::make_shared<Finisher>(call);
    // A deadline of gRPC's is of the day's clock; what is left of it counts.
    const absl::Duration left = absl::FromChrono(context->deadline()) - absl::Now();
    // Not posted: the finisher dies here.
    (void)loop.Post([finisher, cancel = call->cancel_, &handler, method, request, response, left] {
      runtime::Loop::Current().Spawn(
          Run(finisher, cancel, &handler, method, request, response, left));
    });
    return call;
  }

 private:
  // Of the loop's thread; null before and after the call runs.
  struct Cancel {
    std::unique_ptr<runtime::CancelSource> source;
  };
  // Finishes the call even if it never runs, or dies with the loop.
  struct Finisher {
    explicit Finisher(Call* the_call) : call(the_call) {}
    ~Finisher() {
      if (call != nullptr) {
        call->Finish(grpc::Status(grpc::StatusCode::UNAVAILABLE, "the agent ends"));
      }
    }
    void Finish(const absl::Status& status) {
      std::exchange(call, nullptr)->Finish(ToGrpc(status));
    }
    Call* call;
  };

  explicit Call(RealLoop& loop) : loop_(loop), cancel_(std::make_shared<Cancel>()) {}

  static Task<void> Run(std::shared_ptr<Finisher> finisher, std::shared_ptr<Cancel> cancel,
                        Handler* handler, Method method, const Request* request, Response* response,
                        absl::Duration left) {
    cancel->source = std::make_unique<runtime::CancelSource>();
    Deadline deadline = cancel->source->deadline();
    if (left < absl::Hours(1)) deadline = deadline.Within(left);
    const absl::Status status = co_await (handler->*method)(*request, response, deadline);
    cancel->source.reset();
    finisher->Finish(status);
  }

  void OnCancel() override {
    loop_.Post([cancel = cancel_] {
      if (cancel->source != nullptr) cancel->source->Cancel();
    });
  }
  void OnDone() override { delete this; }

  RealLoop& loop_;
  const std::shared_ptr<Cancel> cancel_;
};

class GrpcService final : public v1::Agent::CallbackService {
 public:
  GrpcService(RealLoop& loop, Handler& handler) : loop_(loop), handler_(handler) {}

#define DFSCSI_AGENT_CALL(Name)                                                                  \
  grpc::ServerUnaryReactor* Name(grpc::CallbackServerContext* context,                           \
                                 const v1::Name##Request* request, v1::Name##Response* response) \
      override {                                                                                 \
    return Call<v1::Name##Request, v1::Name##Response>::Start(loop_, handler_, &Handler::Name,   \
                                                              context, request, response);       \
  }
  DFSCSI_AGENT_CALLS(DFSCSI_AGENT_CALL)
#undef DFSCSI_AGENT_CALL

 private:
  RealLoop& loop_;
  Handler& handler_;
};

}  // namespace

class Service::Impl {
 public:
  Impl(RealLoop& loop, Handler& handler) : service(loop, handler) {}
  GrpcService service;
  std::unique_ptr<grpc::Server> server;
};

Service::Service() = default;
Service::~Service() { Stop(); }

absl::StatusOr<std::unique_ptr<Service>> Service::Start(RealLoop& loop, Handler& handler,
                                                        const std::string& socket_dir) {
  std::unique_ptr<Service> service(new Service());
  service->impl_ = std::make_unique<Impl>(loop, handler);
  // Under a name of its own until it listens; then it takes the place of its predecessor's.
  const std::string path = absl::StrCat(socket_dir, "/agent.sock");
  const std::string temporary = absl::StrCat(path, ".", getpid());
  (void)unlink(temporary.c_str());
  grpc::ServerBuilder builder;
  builder.AddListeningPort(absl::StrCat("unix:", temporary), grpc::InsecureServerCredentials());
  builder.RegisterService(&service->impl_->service);
  service->impl_->server = builder.BuildAndStart();
  if (service->impl_->server == nullptr) {
    return absl::InternalError(absl::StrCat("cannot listen on ", temporary));
  }
  if (chmod(temporary.c_str(), 0660) != 0 || rename(temporary.c_str(), path.c_str()) != 0) {
    return absl::ErrnoToStatus(errno, path);
  }
  return service;
}

void Service::Stop() {
  if (impl_ == nullptr || impl_->server == nullptr) return;
  impl_->server->Shutdown(std::chrono::system_clock::now());
  impl_->server->Wait();
  impl_->server.reset();
}

}  // namespace dfscsi::agent
