// CREATE with leases and durable handles, CLOSE.

#include <utility>

#include "node-agent/base/status_macros.h"
#include "node-agent/smb/session.h"
#include "node-agent/smb/tree.h"
#include "node-agent/smb/tree_internal.h"

namespace dfscsi::smb {

using runtime::Deadline;
using runtime::Task;

namespace {

// Tells the table that nothing was granted, if nothing was: also where the CREATE's caller goes.
class LeaseAsked {
 public:
  explicit LeaseAsked(std::shared_ptr<Session> session) : session_(std::move(session)) {}
  LeaseAsked(const LeaseAsked&) = delete;
  ~LeaseAsked() {
    if (key_.has_value()) session_->leases().OnRefused(*key_);
  }
  void Ask(const wire::LeaseKey& key) { key_ = key; }
  void Granted() { key_.reset(); }

 private:
  const std::shared_ptr<Session> session_;
  std::optional<wire::LeaseKey> key_;
};

}  // namespace

// What opens a file of which we hold a lease is to carry its key. Looking at attributes, and
// setting them, takes no lease from anybody; folders have none.
std::optional<wire::Lease> Tree::LeaseToCarry(const wire::CreateRequest& create) const {
  constexpr uint32_t kTakesNothing =
      wire::kAccessReadAttributes | wire::kAccessWriteAttributes | wire::kAccessSynchronize;
  if (create.lease.has_value() || create.disposition != wire::Disposition::kOpen ||
      (create.options & wire::kOptionDirectory) != 0 ||
      (create.desired_access & ~kTakesNothing) == 0) {
    return std::nullopt;
  }
  return session_->leases().OfName(tree_id_, create.name);
}

Request Tree::MakeCreate(const wire::CreateRequest& asked) {
  wire::CreateRequest create = asked;
  if (std::optional<wire::Lease> carried = LeaseToCarry(create)) {
    create.lease = carried;
    FitToServer(create);
  }
  Request request = MakeRequest(wire::Command::kCreate, wire::EncodeCreateRequest, create);
  request.changes = create.disposition != wire::Disposition::kOpen;
  // A tree that has gone has taken its handles with it.
  request.on_late = [weak = weak_from_this()](const Response& response) {
    const std::shared_ptr<Tree> tree = weak.lock();
    if (tree == nullptr || !wire::IsSuccess(response.header.status)) return;
    const absl::StatusOr<wire::CreateResponse> created =
        wire::DecodeCreateResponse(response.body());
    if (created.ok()) tree->CloseLater(created->file_id);
  };
  return request;
}

bool Tree::ForgetLeaseCarried(const wire::CreateRequest& create, wire::NtStatus status) {
  return status == wire::NtStatus::kInvalidParameter && LeaseToCarry(create).has_value() &&
         session_->leases().ForgetName(tree_id_, create.name);
}

void Tree::FitToServer(wire::CreateRequest& request) const {
  const wire::NegotiateResponse& negotiated = session_->connection().negotiated();
  if (request.lease.has_value()) {
    request.lease->v2 = negotiated.dialect >= wire::Dialect::k300;
    request.oplock = wire::OplockLevel::kLease;
    if ((negotiated.capabilities & wire::kCapLeasing) == 0) {
      request.lease.reset();
      request.oplock = wire::OplockLevel::kNone;
    }
  }
  if (negotiated.dialect < wire::Dialect::k300) {
    request.durable.reset();
  } else if (request.durable.has_value() && continuously_available()) {
    request.durable->flags |= wire::kDurablePersistent;
  }
}

Task<absl::StatusOr<OpenedFile>> Tree::DoCreate(wire::CreateRequest request, Deadline deadline,
                                                CreateOptions options) {
  FitToServer(request);
  LeaseTable& leases = session_->leases();
  LeaseTable::Ticket ticket;
  LeaseAsked asked(session_);
  if (request.lease.has_value()) {
    ticket = leases.Ask(request.lease->key, tree_id_, std::move(options.observer));
    request.lease->epoch = ticket.epoch;
    asked.Ask(request.lease->key);
  }
  std::vector<Request> requests;
  requests.push_back(MakeCreate(request));
  requests.back().replay = options.replay;
  const size_t end = request.name.rfind(u'\\');
  if (options.looks_at_directory && end != std::u16string::npos) {
    for (Request& part : MakeLook(request.name.substr(0, end))) requests.push_back(std::move(part));
  }
  const absl::StatusOr<std::vector<Response>> responses =
      co_await Call(std::move(requests), deadline);
  if (absl::IsResourceExhausted(responses.status())) {
    co_return absl::UnavailableError(responses.status().message());
  }
  if (!responses.ok()) co_return responses.status();
  const Response& response = responses->front();
  if (ForgetLeaseCarried(request, response.header.status)) {
    co_return co_await DoCreate(std::move(request), std::move(deadline), std::move(options));
  }
  if (!wire::IsSuccess(response.header.status)) {
    co_return wire::ToStatus(response.header.status, "CREATE");
  }
  OpenedFile opened;
  CO_ASSIGN_OR_RETURN(opened.response, wire::DecodeCreateResponse(response.body()));
  opened.file_id = opened.response.file_id;
  if (responses->size() > 1 && wire::IsSuccess((*responses)[1].header.status)) {
    absl::StatusOr<FileStatus> directory = SeenBy((*responses)[1]);
    if (directory.ok() && !directory->attributes.Has(wire::kAttributeReparsePoint)) {
      opened.directory = *std::move(directory);
    }
  }
  if (!request.lease.has_value()) co_return opened;
  std::optional<wire::Lease>& granted = opened.response.lease;
  if (opened.response.oplock == wire::OplockLevel::kLease && granted.has_value() &&
      granted->key == request.lease->key) {
    asked.Granted();
    granted->state = leases.OnGranted(*granted, ticket);
    leases.SetName(request.lease->key, tree_id_, request.name);
  } else {
    granted.reset();
  }
  co_return opened;
}

Task<absl::StatusOr<OpenedFile>> Tree::Create(wire::CreateRequest request, Deadline deadline,
                                              CreateOptions options) {
  co_return co_await DoCreate(std::move(request), std::move(deadline), std::move(options));
}

Task<absl::StatusOr<std::optional<OpenedFile>>> Tree::Reconnect(wire::CreateRequest request,
                                                                wire::FileId old, Deadline deadline,
                                                                CreateOptions options) {
  if (!request.durable.has_value()) {
    co_return absl::InvalidArgumentError("a handle that was not durable cannot be taken up");
  }
  FitToServer(request);
  wire::DurableReconnect reconnect{.file_id = old, .create_guid = {}, .flags = 0};
  if (request.durable.has_value()) {
    reconnect.create_guid = request.durable->create_guid;
    reconnect.flags = request.durable->flags & wire::kDurablePersistent;
  }
  // The volatile half is of the session that is gone ([MS-SMB2] 3.2.4.4).
  reconnect.file_id.volatile_id = 0;
  request.durable.reset();
  request.durable_reconnect = reconnect;
  request.query_maximal_access = false;
  request.allocation_bytes.reset();
  request.attributes.clear();
  // It never makes or truncates anything: the handle exists, or there is none.
  request.disposition = wire::Disposition::kOpen;
  absl::StatusOr<OpenedFile> opened =
      co_await DoCreate(std::move(request), std::move(deadline), std::move(options));
  if (opened.ok()) co_return *std::move(opened);
  const std::optional<wire::NtStatus> status = wire::NtStatusOf(opened.status());
  if (status == wire::NtStatus::kObjectNameNotFound) {
    co_return std::optional<OpenedFile>();
  }
  co_return opened.status();
}

Task<absl::Status> Tree::Close(wire::FileId file_id, Deadline deadline) {
  const wire::CloseRequest close{.file_id = file_id};
  CO_ASSIGN_OR_RETURN(
      const Response response,
      co_await CallOne(MakeRequest(wire::Command::kClose, wire::EncodeCloseRequest, close),
                       deadline));
  if (!wire::IsSuccess(response.header.status)) {
    co_return wire::ToStatus(response.header.status, "CLOSE");
  }
  co_return absl::OkStatus();
}

void Tree::CloseLater(wire::FileId file_id) {
  if (!usable()) return;
  struct Closer {
    static Task<void> Run(std::shared_ptr<Tree> tree, wire::FileId id) {
      (void)co_await tree->Close(id, Deadline::After(kUnwaited));
    }
  };
  runtime::Loop::Current().Spawn(Closer::Run(shared_from_this(), file_id));
}

}  // namespace dfscsi::smb
