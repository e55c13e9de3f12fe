#include "node-agent/testing/kdc.h"

#include <krb5.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "node-agent/base/unique_fd.h"

// libkrb5 exports what MIT's own KDC is made of, but declares it in no public header (1.20's
// k5-int.h).
extern "C" {
typedef struct _krb5_pa_enc_ts {
  krb5_timestamp patimestamp;
  krb5_int32 pausec;
} krb5_pa_enc_ts;
krb5_error_code decode_krb5_as_req(const krb5_data*, krb5_kdc_req**);
krb5_error_code decode_krb5_tgs_req(const krb5_data*, krb5_kdc_req**);
krb5_error_code decode_krb5_ap_req(const krb5_data*, krb5_ap_req**);
krb5_error_code decode_krb5_authenticator(const krb5_data*, krb5_authenticator**);
krb5_error_code decode_krb5_enc_data(const krb5_data*, krb5_enc_data**);
krb5_error_code decode_krb5_pa_enc_ts(const krb5_data*, krb5_pa_enc_ts**);
krb5_error_code encode_krb5_padata_sequence(krb5_pa_data* const*, krb5_data**);
krb5_error_code krb5_encrypt_tkt_part(krb5_context, const krb5_keyblock*, krb5_ticket*);
krb5_error_code krb5_decrypt_tkt_part(krb5_context, const krb5_keyblock*, krb5_ticket*);
krb5_error_code krb5_encode_kdc_rep(krb5_context, krb5_msgtype, const krb5_enc_kdc_rep_part*, int,
                                    const krb5_keyblock*, krb5_kdc_rep*, krb5_data**);
void krb5_free_kdc_req(krb5_context, krb5_kdc_req*);
void krb5_free_ap_req(krb5_context, krb5_ap_req*);
void krb5_free_enc_data(krb5_context, krb5_enc_data*);
void krb5_free_pa_enc_ts(krb5_context, krb5_pa_enc_ts*);
}

namespace dfscsi::testing {
namespace {

constexpr krb5_enctype kEnctype = ENCTYPE_AES256_CTS_HMAC_SHA1_96;
constexpr int kMaxSkewSeconds = 300;
constexpr size_t kMaxRequestBytes = 1 << 16;

// Frees what it holds when the scope ends.
template <typename T>
class Owned {
 public:
  Owned(krb5_context context, void (*release)(krb5_context, T*))
      : context_(context), release_(release) {}
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  ~Owned() {
    if (value_ != nullptr) release_(context_, value_);
  }
  T** address() { return &value_; }
  T* get() const { return value_; }
  T* operator->() const { return value_; }
  T& operator*() const { return *value_; }

 private:
  krb5_context context_;
  void (*release_)(krb5_context, T*);
  T* value_ = nullptr;
};

krb5_data DataOf(std::string& bytes) {
  return {KV5M_DATA, static_cast<unsigned>(bytes.size()), bytes.data()};
}

class KdcThread : public Kdc {
 public:
  ~KdcThread() override {
    if (thread_.joinable()) {
      const uint64_t one = 1;
      (void)!write(stop_.get(), &one, sizeof(one));
      thread_.join();
    }
    for (auto& [name, key] : keys_) krb5_free_keyblock_contents(context_, &key);
    if (context_ != nullptr) krb5_free_context(context_);
  }

  absl::Status Open(const std::string& realm) {
    realm_ = realm;
    if (krb5_init_context(&context_) != 0) return absl::InternalError("krb5_init_context");
    listener_.reset(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    stop_.reset(eventfd(0, EFD_CLOEXEC));
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    if (bind(listener_.get(), generic, size) != 0 || listen(listener_.get(), 16) != 0 ||
        getsockname(listener_.get(), generic, &size) != 0) {
      return absl::ErrnoToStatus(errno, "the KDC's socket");
    }
    port_ = ntohs(address.sin_port);
    SetPassword(TgtName(), "the KDC's own");
    thread_ = std::thread([this] { Serve(); });
    return absl::OkStatus();
  }

  void SetPassword(const std::string& principal, const std::string& password) override {
    const std::lock_guard lock(mutex_);
    krb5_principal parsed = nullptr;
    krb5_data salt = {};
    std::string copy = password;
    const krb5_data secret = DataOf(copy);
    krb5_keyblock key = {};
    if (krb5_parse_name(context_, Full(principal).c_str(), &parsed) != 0 ||
        krb5_principal2salt(context_, parsed, &salt) != 0 ||
        krb5_c_string_to_key(context_, kEnctype, &secret, &salt, &key) != 0) {
      abort();  // Only a test's own mistake gets here.
    }
    krb5_free_data_contents(context_, &salt);
    krb5_free_principal(context_, parsed);
    krb5_keyblock& slot = keys_[Full(principal)];
    krb5_free_keyblock_contents(context_, &slot);
    slot = key;
  }

  std::string Keytab(const std::string& principal) override {
    const std::lock_guard lock(mutex_);
    const krb5_keyblock& key = keys_.at(Full(principal));
    std::string entry;
    const auto number = [&entry](uint64_t value, int bytes) {
      while (bytes-- > 0) entry += static_cast<char>(value >> (8 * bytes));
    };
    const auto counted = [&](std::string_view text) {
      number(text.size(), 2);
      entry += text;
    };
    std::vector<std::string> parts;
    for (size_t start = 0; start <= principal.size();) {
      const size_t end = std::min(principal.find('/', start), principal.size());
      parts.push_back(principal.substr(start, end - start));
      start = end + 1;
    }
    number(parts.size(), 2);
    counted(realm_);
    for (const std::string& part : parts) counted(part);
    number(KRB5_NT_PRINCIPAL, 4);
    number(0, 4);  // Timestamp.
    number(1, 1);  // Key version.
    number(static_cast<uint64_t>(key.enctype), 2);
    counted({reinterpret_cast<const char*>(key.contents), key.length});
    std::string file = {5, 2};
    std::swap(entry, file);
    number(file.size(), 4);
    return entry + file;
  }

  void SetTicketLife(absl::Duration life) override { life_seconds_ = absl::ToInt64Seconds(life); }
  void SetClockOffset(absl::Duration offset) override {
    offset_seconds_ = absl::ToInt64Seconds(offset);
  }
  int pre_authentications() const override { return pre_authentications_; }
  int service_tickets() const override { return service_tickets_; }

  std::string Config() const override {
    return absl::StrCat("[libdefaults]\n  default_realm = ", realm_,
                        "\n  dns_lookup_kdc = false\n  udp_preference_limit = 1\n[realms]\n  ",
                        realm_, " = {\n    kdc = 127.0.0.1:", port_, "\n  }\n");
  }

 private:
  std::string Full(const std::string& principal) const {
    return absl::StrCat(principal, "@", realm_);
  }
  std::string TgtName() const { return absl::StrCat("krbtgt/", realm_); }

  std::string NameOf(krb5_const_principal principal) {
    char* name = nullptr;
    if (krb5_unparse_name(context_, principal, &name) != 0) return "";
    std::string copy(name);
    krb5_free_unparsed_name(context_, name);
    return copy;
  }

  krb5_keyblock* KeyOf(krb5_const_principal principal) {
    const auto found = keys_.find(NameOf(principal));
    return found == keys_.end() ? nullptr : &found->second;
  }

  krb5_timestamp Now() const {
    return static_cast<krb5_timestamp>(time(nullptr) + offset_seconds_);
  }

  void Serve() {
    while (true) {
      pollfd fds[] = {{listener_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
      if (poll(fds, 2, -1) < 0 && errno != EINTR) return;
      if (fds[1].revents != 0) return;
      const UniqueFd connection(accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (connection) ServeConnection(connection.get());
    }
  }

  // One request per connection, which is how MIT's client uses it ([RFC 4120] 7.2.2).
  void ServeConnection(int fd) {
    uint8_t prefix[4];
    if (recv(fd, prefix, sizeof(prefix), MSG_WAITALL) != sizeof(prefix)) return;
    const size_t size = size_t{prefix[0]} << 24 | size_t{prefix[1]} << 16 | size_t{prefix[2]} << 8 |
                        size_t{prefix[3]};
    if (size == 0 || size > kMaxRequestBytes) return;
    std::string request(size, '\0');
    if (recv(fd, request.data(), size, MSG_WAITALL) != static_cast<ssize_t>(size)) return;
    std::string reply;
    {
      const std::lock_guard lock(mutex_);
      reply = Answer(request);
    }
    std::string framed;
    for (int shift = 24; shift >= 0; shift -= 8) framed += static_cast<char>(reply.size() >> shift);
    framed += reply;
    (void)!send(fd, framed.data(), framed.size(), MSG_NOSIGNAL);
  }

  std::string Answer(std::string& bytes) {
    const krb5_data data = DataOf(bytes);
    Owned<krb5_kdc_req> request(context_, krb5_free_kdc_req);
    if (krb5_is_as_req(&data) && decode_krb5_as_req(&data, request.address()) == 0) {
      return AnswerAs(*request);
    }
    if (krb5_is_tgs_req(&data) && decode_krb5_tgs_req(&data, request.address()) == 0) {
      return AnswerTgs(*request);
    }
    return "";
  }

  static bool krb5_is_as_req(const krb5_data* data) { return data->data[0] == 0x6a; }
  static bool krb5_is_tgs_req(const krb5_data* data) { return data->data[0] == 0x6c; }

  std::string ErrorReply(const krb5_kdc_req& request, krb5_error_code code,
                         std::string e_data = "") {
    krb5_error error = {};
    error.error = static_cast<krb5_ui_4>(code - ERROR_TABLE_BASE_krb5);
    error.stime = Now();
    error.client = request.client;
    error.server = request.server;
    error.e_data = DataOf(e_data);
    krb5_data out = {};
    if (krb5_mk_error(context_, &error, &out) != 0) return "";
    std::string reply(out.data, out.length);
    krb5_free_data_contents(context_, &out);
    return reply;
  }

  static const krb5_pa_data* Find(const krb5_kdc_req& request, krb5_preauthtype type) {
    for (krb5_pa_data** pa = request.padata; pa != nullptr && *pa != nullptr; ++pa) {
      if ((*pa)->pa_type == type) return *pa;
    }
    return nullptr;
  }

  static krb5_data DataOf(const krb5_pa_data& pa) {
    return {KV5M_DATA, pa.length, reinterpret_cast<char*>(pa.contents)};
  }
  static krb5_data DataOf(std::string& bytes) { return testing::DataOf(bytes); }

  // Empty if it does not decrypt.
  std::string Decrypt(const krb5_keyblock& key, krb5_keyusage usage, const krb5_enc_data& secret) {
    std::string plain(secret.ciphertext.length, '\0');
    krb5_data out = DataOf(plain);
    if (krb5_c_decrypt(context_, &key, usage, nullptr, &secret, &out) != 0) return "";
    plain.resize(out.length);
    return plain;
  }

  std::string AnswerAs(const krb5_kdc_req& request) {
    krb5_keyblock* key = KeyOf(request.client);
    if (key == nullptr) return ErrorReply(request, KRB5KDC_ERR_C_PRINCIPAL_UNKNOWN);
    const krb5_pa_data* proof = Find(request, KRB5_PADATA_ENC_TIMESTAMP);
    if (proof == nullptr) {
      krb5_pa_data wanted = {KV5M_PA_DATA, KRB5_PADATA_ENC_TIMESTAMP, 0, nullptr};
      krb5_pa_data* const list[] = {&wanted, nullptr};
      krb5_data* encoded = nullptr;
      if (encode_krb5_padata_sequence(list, &encoded) != 0) return "";
      std::string e_data(encoded->data, encoded->length);
      krb5_free_data(context_, encoded);
      return ErrorReply(request, KRB5KDC_ERR_PREAUTH_REQUIRED, e_data);
    }
    ++pre_authentications_;
    const krb5_data proof_data = DataOf(*proof);
    Owned<krb5_enc_data> sealed(context_, krb5_free_enc_data);
    Owned<krb5_pa_enc_ts> stamp(context_, krb5_free_pa_enc_ts);
    if (decode_krb5_enc_data(&proof_data, sealed.address()) != 0) return "";
    std::string plain = Decrypt(*key, KRB5_KEYUSAGE_AS_REQ_PA_ENC_TS, *sealed);
    const krb5_data plain_data = DataOf(plain);
    if (plain.empty() || decode_krb5_pa_enc_ts(&plain_data, stamp.address()) != 0) {
      return ErrorReply(request, KRB5KDC_ERR_PREAUTH_FAILED);
    }
    if (labs(static_cast<long>(stamp->patimestamp) - static_cast<long>(Now())) > kMaxSkewSeconds) {
      return ErrorReply(request, KRB5KRB_AP_ERR_SKEW);
    }
    return Grant(request, request.client, KRB5_AS_REP, *key, /*is_subkey=*/false);
  }

  std::string AnswerTgs(const krb5_kdc_req& request) {
    const krb5_pa_data* header = Find(request, KRB5_PADATA_AP_REQ);
    if (header == nullptr) return "";
    const krb5_data header_data = DataOf(*header);
    Owned<krb5_ap_req> ap_req(context_, krb5_free_ap_req);
    if (decode_krb5_ap_req(&header_data, ap_req.address()) != 0) return "";
    if (krb5_decrypt_tkt_part(context_, &keys_.at(Full(TgtName())), ap_req->ticket) != 0) {
      return ErrorReply(request, KRB5KRB_AP_ERR_BAD_INTEGRITY);
    }
    const krb5_enc_tkt_part& granting = *ap_req->ticket->enc_part2;
    if (granting.times.endtime < Now()) {
      return ErrorReply(request, KRB5KRB_AP_ERR_TKT_EXPIRED);
    }
    std::string plain =
        Decrypt(*granting.session, KRB5_KEYUSAGE_TGS_REQ_AUTH, ap_req->authenticator);
    const krb5_data plain_data = DataOf(plain);
    Owned<krb5_authenticator> authenticator(context_, krb5_free_authenticator);
    if (plain.empty() || decode_krb5_authenticator(&plain_data, authenticator.address()) != 0) {
      return ErrorReply(request, KRB5KRB_AP_ERR_BAD_INTEGRITY);
    }
    if (KeyOf(request.server) == nullptr) {
      return ErrorReply(request, KRB5KDC_ERR_S_PRINCIPAL_UNKNOWN);
    }
    ++service_tickets_;
    const bool is_subkey = authenticator->subkey != nullptr;
    return Grant(request, granting.client, KRB5_TGS_REP,
                 is_subkey ? *authenticator->subkey : *granting.session, is_subkey);
  }

  // A ticket for request.server, the reply sealed with `reply_key`.
  std::string Grant(const krb5_kdc_req& request, krb5_principal client, krb5_msgtype type,
                    const krb5_keyblock& reply_key, bool is_subkey) {
    const krb5_keyblock* server_key = KeyOf(request.server);
    krb5_keyblock session = {};
    if (server_key == nullptr || krb5_c_make_random_key(context_, kEnctype, &session) != 0) {
      return ErrorReply(request, KRB5KDC_ERR_S_PRINCIPAL_UNKNOWN);
    }
    krb5_enc_tkt_part part = {};
    part.flags = TKT_FLG_PRE_AUTH | (type == KRB5_AS_REP ? TKT_FLG_INITIAL : 0);
    part.session = &session;
    part.client = client;
    part.times.authtime = part.times.starttime = Now();
    part.times.endtime = static_cast<krb5_timestamp>(Now() + life_seconds_);
    krb5_ticket ticket = {};
    ticket.server = request.server;
    ticket.enc_part2 = &part;
    krb5_enc_kdc_rep_part sealed = {};
    krb5_last_req_entry last = {};
    krb5_last_req_entry* lasts[] = {&last, nullptr};
    sealed.msg_type = type;
    sealed.session = &session;
    sealed.last_req = lasts;
    sealed.nonce = request.nonce;
    sealed.flags = part.flags;
    sealed.times = part.times;
    sealed.server = request.server;
    krb5_kdc_rep reply = {};
    reply.msg_type = type;
    reply.client = client;
    reply.ticket = &ticket;
    reply.enc_part.enctype = reply_key.enctype;
    std::string bytes;
    krb5_data* encoded = nullptr;
    if (krb5_encrypt_tkt_part(context_, server_key, &ticket) == 0 &&
        krb5_encode_kdc_rep(context_, type, &sealed, is_subkey ? 1 : 0, &reply_key, &reply,
                            &encoded) == 0) {
      bytes.assign(encoded->data, encoded->length);
      krb5_free_data(context_, encoded);
    }
    krb5_free_data_contents(context_, &ticket.enc_part.ciphertext);
    krb5_free_data_contents(context_, &reply.enc_part.ciphertext);
    krb5_free_keyblock_contents(context_, &session);
    return bytes;
  }

  std::string realm_;
  UniqueFd listener_;
  UniqueFd stop_;
  uint16_t port_ = 0;
  std::thread thread_;
  std::mutex mutex_;  // For what follows.
  krb5_context context_ = nullptr;
  std::map<std::string, krb5_keyblock> keys_;
  std::atomic<int64_t> life_seconds_{8 * 3600};
  std::atomic<int64_t> offset_seconds_{0};
  std::atomic<int> pre_authentications_{0};
  std::atomic<int> service_tickets_{0};
};

}  // namespace

absl::StatusOr<std::unique_ptr<Kdc>> Kdc::Start(const std::string& realm) {
  auto kdc = std::make_unique<KdcThread>();
  if (absl::Status status = kdc->Open(realm); !status.ok()) return status;
  return kdc;
}

}  // namespace dfscsi::testing
