#include "node-agent/smb/auth/kerberos_tickets.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace dfscsi::smb::auth {
namespace {

constexpr size_t kMaxEntries = 64;
// A ticket-granting ticket with less left is replaced: what is got with it ends when it does.
constexpr absl::Duration kMinRest = absl::Minutes(5);

// Owners of the krb5 library's handles.
template <typename Handle, auto Release>
class Krb5Handle {
 public:
  explicit Krb5Handle(krb5_context context) : context_(context) {}
  Krb5Handle(const Krb5Handle&) = delete;
  Krb5Handle& operator=(const Krb5Handle&) = delete;
  ~Krb5Handle() {
    if (handle_ != nullptr) Release(context_, handle_);
  }
  Handle get() const { return handle_; }
  Handle* address() { return &handle_; }

 private:
  krb5_context context_;
  Handle handle_ = nullptr;
};

using Principal = Krb5Handle<krb5_principal, krb5_free_principal>;
using Ccache = Krb5Handle<krb5_ccache, krb5_cc_close>;
using Keytab = Krb5Handle<krb5_keytab, krb5_kt_close>;
using InitOptions = Krb5Handle<krb5_get_init_creds_opt*, krb5_get_init_creds_opt_free>;
using CredentialsOut = Krb5Handle<krb5_creds*, krb5_free_creds>;

// A krb5_creds on the stack.
class Credentials {
 public:
  explicit Credentials(krb5_context context) : context_(context) {}
  Credentials(const Credentials&) = delete;
  Credentials& operator=(const Credentials&) = delete;
  ~Credentials() { krb5_free_cred_contents(context_, &creds_); }
  krb5_creds* address() { return &creds_; }
  krb5_creds* operator->() { return &creds_; }

 private:
  krb5_context context_;
  krb5_creds creds_ = {};
};

// Times are 32 bits, unsigned since krb5 1.16: good until 2106.
absl::Time TimeOf(krb5_timestamp time) {
  return absl::FromUnixSeconds(static_cast<int64_t>(static_cast<uint32_t>(time)));
}

std::string NameOf(krb5_context context, krb5_const_principal principal) {
  char* name = nullptr;
  if (krb5_unparse_name(context, principal, &name) != 0) return "";
  std::string copy(name);
  krb5_free_unparsed_name(context, name);
  return copy;
}

// The first principal of a keytab.
krb5_error_code FirstPrincipal(krb5_context context, krb5_keytab keytab, Principal* principal) {
  krb5_kt_cursor cursor;
  krb5_error_code code = krb5_kt_start_seq_get(context, keytab, &cursor);
  if (code != 0) return code;
  krb5_keytab_entry entry;
  code = krb5_kt_next_entry(context, keytab, &entry, &cursor);
  if (code == 0) {
    code = krb5_copy_principal(context, entry.principal, principal->address());
    krb5_free_keytab_entry_contents(context, &entry);
  }
  krb5_kt_end_seq_get(context, keytab, &cursor);
  return code;
}

krb5_error_code ParsePrincipal(krb5_context context, const Account& account, Principal* principal) {
  // Escaped, because a user's name may hold what separates a principal's parts.
  std::string name;
  for (const char c : account.user) {
    if (c == '/' || c == '@' || c == '\\') name += '\\';
    name += c;
  }
  if (const std::string realm = RealmOf(account); !realm.empty())
    absl::StrAppend(&name, "@", realm);
  return krb5_parse_name(context, name.c_str(), principal->address());
}

// When the last of the tickets ends that can get others (or, where there is none, the last of all).
absl::Time EndOf(krb5_context context, krb5_ccache cache) {
  absl::Time granting = absl::InfinitePast();
  absl::Time any = absl::InfinitePast();
  krb5_cc_cursor cursor;
  if (krb5_cc_start_seq_get(context, cache, &cursor) != 0) return any;
  while (true) {
    Credentials creds(context);
    if (krb5_cc_next_cred(context, cache, &cursor, creds.address()) != 0) break;
    if (krb5_is_config_principal(context, creds->server)) continue;
    const absl::Time end = TimeOf(creds->times.endtime);
    any = std::max(any, end);
    if (creds->server->length > 0) {
      const krb5_data& service = creds->server->data[0];
      if (std::string_view(service.data, service.length) == KRB5_TGS_NAME) {
        granting = std::max(granting, end);
      }
    }
  }
  krb5_cc_end_seq_get(context, cache, &cursor);
  return granting == absl::InfinitePast() ? any : granting;
}

}  // namespace

static_assert(static_cast<uint32_t>(KRB5KDC_ERR_PREAUTH_FAILED) == kKdcRefusedSecret);

FailureClass ClassOf(krb5_error_code code) {
  switch (code) {
    case KRB5KDC_ERR_PREAUTH_FAILED:
    case KRB5KRB_AP_ERR_BAD_INTEGRITY:
    case KRB5KDC_ERR_C_PRINCIPAL_UNKNOWN:
    case KRB5KDC_ERR_CLIENT_REVOKED:
    case KRB5KDC_ERR_KEY_EXP:
    case KRB5KDC_ERR_NAME_EXP:
    case KRB5KDC_ERR_CLIENT_NOTYET:
    case KRB5KDC_ERR_POLICY:
    case KRB5KRB_AP_ERR_TKT_EXPIRED:
    case KRB5_KT_NOTFOUND:
    case KRB5_KT_END:
    case KRB5_KEYTAB_BADVNO:
    case KRB5_CC_NOTFOUND:
    case KRB5_CC_END:
    case KRB5_CC_FORMAT:
    case KRB5_CCACHE_BADVNO:
    case KRB5_FCC_NOFILE:
      return FailureClass::kBadCredentials;
    case KRB5_KDC_UNREACH:
    case KRB5_REALM_UNKNOWN:
    case KRB5_REALM_CANT_RESOLVE:
    case KRB5_CONFIG_NODEFREALM:
    case KRB5_CONFIG_CANTOPEN:
    case KRB5_CONFIG_BADFORMAT:
    case KRB5KDC_ERR_SVC_UNAVAILABLE:
      return FailureClass::kNoKdc;
    case KRB5KDC_ERR_S_PRINCIPAL_UNKNOWN:
    case KRB5KDC_ERR_ETYPE_NOSUPP:
    case KRB5_NO_TKT_IN_RLM:
    case KRB5_ERR_HOST_REALM_UNKNOWN:
      return FailureClass::kNoMechanism;
    case KRB5KRB_AP_ERR_SKEW:
    case KRB5_KDCREP_SKEW:
    case KRB5KRB_AP_ERR_TKT_NYV:
      return FailureClass::kClockSkew;
    default:
      return FailureClass::kProtocol;
  }
}

KerberosClient::~KerberosClient() {
  while (!entries_.empty()) Drop(entries_.begin());
  if (context_ != nullptr) krb5_free_context(context_);
}

KerberosError KerberosClient::Error(const std::string& what, krb5_error_code code) {
  const char* text = krb5_get_error_message(context_, code);
  KerberosError error{
      .failure_class = ClassOf(code), .message = absl::StrCat(what, ": ", text), .code = code};
  krb5_free_error_message(context_, text);
  return error;
}

std::optional<KerberosError> KerberosClient::Initialize() {
  if (context_ != nullptr) return std::nullopt;
  const krb5_error_code code = krb5_init_context(&context_);
  if (code == 0) return std::nullopt;
  context_ = nullptr;
  KerberosError error = Error("Kerberos configuration", code);
  error.failure_class = FailureClass::kNoKdc;
  return error;
}

void KerberosClient::Drop(std::list<Entry>::iterator entry) {
  krb5_ccache cache = nullptr;
  if (krb5_cc_resolve(context_, entry->ccache_name.c_str(), &cache) == 0) {
    krb5_cc_destroy(context_, cache);  // The library wipes the keys.
  }
  entries_.erase(entry);
}

std::optional<KerberosError> KerberosClient::GetTickets(const KerberosSource& source,
                                                        const std::string& host, bool renew,
                                                        KerberosTickets* tickets) {
  if (auto error = Initialize()) return error;
  Entry* entry = nullptr;
  if (auto error = FindOrAdd(source, renew, &entry)) return error;
  return ServiceTicket(host, *entry, tickets);
}

std::optional<KerberosError> KerberosClient::FindOrAdd(const KerberosSource& source, bool renew,
                                                       Entry** entry) {
  const std::string account = DisplayName(source.account);
  const Secret& secret = !source.ccache.empty()   ? source.ccache
                         : !source.keytab.empty() ? source.keytab
                                                  : source.password;
  for (auto it = entries_.begin(); it != entries_.end(); ++it) {
    if (it->account != account || !(it->secret == secret)) continue;
    if (renew || it->end - absl::Now() < kMinRest) {
      Drop(it);
      break;
    }
    entries_.splice(entries_.begin(), entries_, it);
    *entry = &entries_.front();
    return std::nullopt;
  }
  while (entries_.size() >= kMaxEntries) Drop(std::prev(entries_.end()));
  entries_.push_front({.account = account,
                       .secret = secret,
                       .ccache_name = absl::StrCat("MEMORY:dfs-auth-", ++caches_made_)});
  if (auto error = Fill(source, &entries_.front())) {
    Drop(entries_.begin());
    return error;
  }
  *entry = &entries_.front();
  return std::nullopt;
}

std::optional<KerberosError> KerberosClient::Fill(const KerberosSource& source, Entry* entry) {
  Ccache cache(context_);
  if (const auto code = krb5_cc_resolve(context_, entry->ccache_name.c_str(), cache.address())) {
    return Error("Kerberos", code);
  }
  if (!source.ccache.empty()) return FillFromCcache(source.ccache, cache.get(), entry);
  return FillFromKdc(source, cache.get(), entry);
}

std::optional<KerberosError> KerberosClient::FillFromCcache(const Secret& contents,
                                                            krb5_ccache cache, Entry* entry) {
  const UniqueFd file = MemoryFile(contents.Expose());
  Ccache from(context_);
  Principal principal(context_);
  krb5_error_code code =
      krb5_cc_resolve(context_, absl::StrCat("FILE:", auth::NameOf(file)).c_str(), from.address());
  if (code == 0) code = krb5_cc_get_principal(context_, from.get(), principal.address());
  if (code == 0) code = krb5_cc_initialize(context_, cache, principal.get());
  if (code == 0) code = krb5_cc_copy_creds(context_, from.get(), cache);
  if (code != 0) {
    KerberosError error = Error("the credential cache cannot be read", code);
    error.failure_class = FailureClass::kBadCredentials;
    return error;
  }
  entry->end = EndOf(context_, cache);
  if (entry->end <= absl::Now()) {
    return Error(absl::StrCat("the credential cache of ", NameOf(context_, principal.get())),
                 KRB5KRB_AP_ERR_TKT_EXPIRED);
  }
  return std::nullopt;
}

std::optional<KerberosError> KerberosClient::FillFromKdc(const KerberosSource& source,
                                                         krb5_ccache cache, Entry* entry) {
  const UniqueFd keytab_file = MemoryFile(source.keytab.Expose());
  Keytab keytab(context_);
  Principal principal(context_);
  krb5_error_code code = 0;
  if (!source.keytab.empty()) {
    code = krb5_kt_resolve(context_, absl::StrCat("FILE:", auth::NameOf(keytab_file)).c_str(),
                           keytab.address());
    if (code == 0) code = krb5_kt_have_content(context_, keytab.get());
    if (code == 0 && source.account.user.empty()) {
      code = FirstPrincipal(context_, keytab.get(), &principal);
    }
    if (code != 0) {
      KerberosError error = Error("the keytab cannot be read", code);
      error.failure_class = FailureClass::kBadCredentials;
      return error;
    }
  }
  if (principal.get() == nullptr) code = ParsePrincipal(context_, source.account, &principal);
  if (code != 0) {
    return Error(absl::StrCat("Kerberos name of ", DisplayName(source.account)), code);
  }
  InitOptions options(context_);
  Credentials creds(context_);
  code = krb5_get_init_creds_opt_alloc(context_, options.address());
  if (code == 0) {
    // What is sent to a file server is good for that server only.
    krb5_get_init_creds_opt_set_forwardable(options.get(), 0);
    krb5_get_init_creds_opt_set_proxiable(options.get(), 0);
    code = krb5_get_init_creds_opt_set_out_ccache(context_, options.get(), cache);
  }
  if (code == 0) {
    // A NUL follows a secret's bytes.
    code = source.keytab.empty()
               ? krb5_get_init_creds_password(context_, creds.address(), principal.get(),
                                              source.password.Expose().data(), nullptr, nullptr, 0,
                                              nullptr, options.get())
               : krb5_get_init_creds_keytab(context_, creds.address(), principal.get(),
                                            keytab.get(), 0, nullptr, options.get());
  }
  if (code != 0) {
    KerberosError error =
        Error(absl::StrCat("Kerberos log-on of ", NameOf(context_, principal.get())), code);
    error.secret_refused = error.failure_class == FailureClass::kBadCredentials &&
                           code != KRB5KDC_ERR_C_PRINCIPAL_UNKNOWN;
    return error;
  }
  entry->end = TimeOf(creds->times.endtime);
  return std::nullopt;
}

std::optional<KerberosError> KerberosClient::ServiceTicket(const std::string& host,
                                                           const Entry& entry,
                                                           KerberosTickets* tickets) {
  Ccache cache(context_);
  Principal client(context_);
  Principal server(context_);
  CredentialsOut out(context_);
  krb5_error_code code = krb5_cc_resolve(context_, entry.ccache_name.c_str(), cache.address());
  if (code == 0) code = krb5_cc_get_principal(context_, cache.get(), client.address());
  // The same call with which GSSAPI turns cifs@host into a principal, so it finds this ticket.
  if (code == 0) {
    code =
        krb5_sname_to_principal(context_, host.c_str(), "cifs", KRB5_NT_SRV_HST, server.address());
  }
  if (code == 0) {
    krb5_creds wanted = {};
    wanted.client = client.get();
    wanted.server = server.get();
    code = krb5_get_credentials(context_, 0, cache.get(), &wanted, out.address());
  }
  if (code != 0) return Error(absl::StrCat("Kerberos ticket for cifs/", host), code);
  tickets->ccache_name = entry.ccache_name;
  tickets->principal = NameOf(context_, client.get());
  tickets->end = TimeOf(out.get()->times.endtime);
  return std::nullopt;
}

UniqueFd MemoryFile(std::string_view contents) {
  UniqueFd file(memfd_create("dfs-auth", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file) return file;
  while (!contents.empty()) {
    const ssize_t n = write(file.get(), contents.data(), contents.size());
    if (n <= 0) return UniqueFd();
    contents.remove_prefix(static_cast<size_t>(n));
  }
  fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
  return file;
}

std::string NameOf(const UniqueFd& memory_file) {
  return absl::StrCat("/proc/self/fd/", memory_file.get());
}

}  // namespace dfscsi::smb::auth
