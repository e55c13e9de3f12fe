#include "node-agent/smb/auth/log_on.h"

#include <arpa/inet.h>
#include <gssapi/gssapi_ext.h>
#include <gssapi/gssapi_krb5.h>

#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace dfscsi::smb::auth {
namespace {

// 1.3.6.1.5.5.2, 1.2.840.113554.1.2.2 and 1.3.6.1.4.1.311.2.2.10
gss_OID_desc kSpnegoOid = {6, const_cast<char*>("\x2b\x06\x01\x05\x05\x02")};
gss_OID_desc kKerberosOid = {9, const_cast<char*>("\x2a\x86\x48\x86\xf7\x12\x01\x02\x02")};
gss_OID_desc kNtlmOid = {10, const_cast<char*>("\x2b\x06\x01\x04\x01\x82\x37\x02\x02\x0a")};

// Confidentiality is not asked for: SMB encrypts with keys of its own, and an NTLM server without
// sealing would be refused for nothing.
constexpr uint32_t kFlags =
    GSS_C_MUTUAL_FLAG | GSS_C_INTEG_FLAG | GSS_C_REPLAY_FLAG | GSS_C_SEQUENCE_FLAG;

// A cache and a keytab that do not exist, so that no default of the system is looked at.
constexpr char kNoCache[] = "MEMORY:none";

std::string StatusText(uint32_t code, int type, gss_OID mechanism) {
  std::string text;
  OM_uint32 more = 0;
  do {
    OM_uint32 minor = 0;
    GssBuffer line;
    if (GSS_ERROR(gss_display_status(&minor, code, type, mechanism, &more, line.address()))) break;
    // What the library says of codes that it does not know is of no use to anybody.
    if (line.bytes() == "Unknown error") continue;
    if (!text.empty()) text += "; ";
    text += line.bytes();
  } while (more != 0);
  return text;
}

// By the text, because SPNEGO renumbers the codes of the mechanism below.
bool TellsOfSkew(const std::string& text) {
  for (const krb5_error_code code : {KRB5KRB_AP_ERR_SKEW, KRB5KRB_AP_ERR_TKT_NYV}) {
    const char* message = krb5_get_error_message(nullptr, code);
    const bool found = absl::StrContains(text, message);
    krb5_free_error_message(nullptr, message);
    if (found) return true;
  }
  return false;
}

bool HasNtlm() {
  OM_uint32 minor = 0;
  GssHandle<gss_OID_set, gss_release_oid_set> mechanisms;
  int found = 0;
  return !GSS_ERROR(gss_indicate_mechs(&minor, mechanisms.address())) &&
         !GSS_ERROR(gss_test_oid_set_member(&minor, &kNtlmOid, mechanisms.get(), &found)) &&
         found != 0;
}

bool IsAddress(const std::string& host) {
  in_addr address;
  return inet_pton(AF_INET, host.c_str(), &address) == 1 || absl::StrContains(host, ':');
}

bool HasNul(std::string_view text) { return text.find('\0') != text.npos; }

}  // namespace

std::string OneLine(absl::string_view text) {
  constexpr size_t kMaxBytes = 500;
  std::string line(text.substr(0, kMaxBytes));
  const bool is_utf8 = text.size() <= kMaxBytes && IsUtf8(text);
  for (char& c : line) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < ' ' || byte == 0x7f || (byte >= 0x80 && !is_utf8)) c = '?';
  }
  return line;
}

Failure LogOn::Fail(FailureClass failure_class, absl::string_view what) {
  return {.context_id = context_id_,
          .failure_class = failure_class,
          .message = OneLine(absl::StrCat(title_, ": ", what))};
}

Failure LogOn::FailGss(absl::string_view what, uint32_t major, uint32_t minor) {
  FailureClass failure_class = FailureClass::kProtocol;
  switch (GSS_ROUTINE_ERROR(major)) {
    case GSS_S_BAD_MECH:
    case GSS_S_UNAVAILABLE:
      failure_class = FailureClass::kNoMechanism;
      break;
    case GSS_S_CONTEXT_EXPIRED:  // The clock in an NTLM server's challenge is more than 36 h
                                 // behind.
      failure_class = FailureClass::kClockSkew;
      break;
    case GSS_S_NO_CRED:
    case GSS_S_CREDENTIALS_EXPIRED:
    case GSS_S_DEFECTIVE_CREDENTIAL:
      failure_class = FailureClass::kBadCredentials;
      break;
    default:
      break;
  }
  const std::string major_text = StatusText(major, GSS_C_GSS_CODE, GSS_C_NO_OID);
  const std::string minor_text = minor == 0 ? "" : StatusText(minor, GSS_C_MECH_CODE, &kSpnegoOid);
  if (TellsOfSkew(minor_text)) failure_class = FailureClass::kClockSkew;
  Failure failure = Fail(failure_class, absl::StrCat(what, ": ", major_text,
                                                     minor_text.empty() ? "" : ": ", minor_text));
  failure.gss_major = major;
  failure.gss_minor = minor;
  return failure;
}

Reply LogOn::Start(const Begin& begin, KerberosClient* kerberos) {
  context_id_ = begin.context_id;
  if (auto failure = CheckBegin(begin)) return *failure;
  Offer offer;
  if (auto failure = ChooseOffer(begin, kerberos, &offer)) return *failure;
  if (auto failure = AcquireCredential(begin, offer)) return *failure;
  const std::string service = absl::StrCat("cifs@", begin.target_host);
  gss_buffer_desc name = ViewOf(service);
  OM_uint32 minor = 0;
  const OM_uint32 major =
      gss_import_name(&minor, &name, GSS_C_NT_HOSTBASED_SERVICE, target_.address());
  if (GSS_ERROR(major)) return FailGss("the server's name", major, minor);
  return Advance(GSS_C_NO_BUFFER);
}

Reply LogOn::Continue(const Step& step) {
  if (complete_) return Fail(FailureClass::kProtocol, "a token after the last one");
  gss_buffer_desc token = ViewOf(step.token.Expose());
  return Advance(&token);
}

std::optional<Failure> LogOn::CheckBegin(const Begin& begin) {
  title_ = "log-on";
  if (begin.target_host.empty() ||
      begin.target_host.find_first_of(std::string_view("@/\\ \t\r\n\0", 8)) != std::string::npos) {
    return Fail(FailureClass::kProtocol, "no valid server name");
  }
  const auto account = ParseAccount(begin.user, begin.domain);
  if (!account.ok()) return Fail(FailureClass::kBadCredentials, account.status().message());
  account_ = *account;
  title_ = absl::StrCat("log-on of ", account_.user.empty() ? "?" : DisplayName(account_), " at ",
                        begin.target_host);
  const bool has_ticket_file = !begin.keytab.empty() || !begin.ccache.empty();
  if (account_.user.empty() && !has_ticket_file) {
    return Fail(FailureClass::kBadCredentials,
                "no user name (anonymous and guest log-ons are refused)");
  }
  if (begin.password.empty() && !has_ticket_file) {
    return Fail(FailureClass::kBadCredentials, "no password");
  }
  if (HasNul(begin.password.Expose())) {
    return Fail(FailureClass::kBadCredentials, "the password holds a NUL byte");
  }
  if (begin.mechanism == Mechanism::kNtlm && (begin.password.empty() || account_.user.empty())) {
    return Fail(FailureClass::kNoMechanism, "NTLM needs a user name and a password");
  }
  return std::nullopt;
}

std::optional<Failure> LogOn::ChooseOffer(const Begin& begin, KerberosClient* kerberos,
                                          Offer* offer) {
  offer->ntlm = begin.mechanism != Mechanism::kKerberos && !begin.password.empty() &&
                !account_.user.empty() && HasNtlm();
  if (begin.mechanism == Mechanism::kNtlm) {
    if (offer->ntlm) return std::nullopt;
    return Fail(FailureClass::kNoMechanism, "GSSAPI has no NTLM here (gss-ntlmssp is missing)");
  }
  // No KDC has tickets for addresses, and asking for one takes time.
  if (IsAddress(begin.target_host)) {
    if (offer->ntlm) return std::nullopt;
    return Fail(FailureClass::kNoMechanism, "Kerberos needs the server's name, not its address");
  }
  const auto error = kerberos->GetTickets({.account = account_,
                                           .password = begin.password,
                                           .keytab = begin.keytab,
                                           .ccache = begin.ccache},
                                          begin.target_host, begin.renew, &offer->tickets);
  if (!error.has_value()) {
    offer->kerberos = true;
    return std::nullopt;
  }
  if (offer->ntlm && !error->secret_refused) return std::nullopt;
  Failure failure = Fail(error->failure_class, error->message);
  failure.gss_major = GSS_S_FAILURE;
  failure.gss_minor = static_cast<uint32_t>(error->code);
  return failure;
}

std::optional<Failure> LogOn::AcquireCredential(const Begin& begin, const Offer& offer) {
  std::string name_text = offer.kerberos ? offer.tickets.principal : NtlmName(account_);
  gss_buffer_desc name_buffer = ViewOf(name_text);
  GssName name;
  OM_uint32 minor = 0;
  OM_uint32 major = gss_import_name(&minor, &name_buffer, GSS_C_NT_USER_NAME, name.address());
  if (GSS_ERROR(major)) return FailGss("the user's name", major, minor);

  // Every mechanism is told where its secret is, so that none looks for one in the system, and
  // Kerberos, if not offered, does not ask a KDC: gss_acquire_cred_with_password would.
  const std::string ccache = offer.kerberos ? offer.tickets.ccache_name : kNoCache;
  std::vector<gss_key_value_element_desc> elements = {{"ccache", ccache.c_str()},
                                                      {"client_keytab", kNoCache}};
  // A NUL follows a secret's bytes.
  if (offer.ntlm) elements.push_back({"ntlmssp_password", begin.password.Expose().data()});
  const gss_key_value_set_desc store = {static_cast<OM_uint32>(elements.size()), elements.data()};
  gss_OID_set_desc spnego = {1, &kSpnegoOid};
  major = gss_acquire_cred_from(&minor, name.get(), GSS_C_INDEFINITE, &spnego, GSS_C_INITIATE,
                                &store, credential_.address(), nullptr, nullptr);
  if (GSS_ERROR(major)) return FailGss("no usable credential", major, minor);

  std::vector<gss_OID_desc> mechanisms;
  if (offer.kerberos) mechanisms.push_back(kKerberosOid);
  if (offer.ntlm) mechanisms.push_back(kNtlmOid);
  gss_OID_set_desc set = {mechanisms.size(), mechanisms.data()};
  major = gss_set_neg_mechs(&minor, credential_.get(), &set);
  if (GSS_ERROR(major)) return FailGss("SPNEGO", major, minor);
  if (mechanisms.size() == 1) {
    offered_ = offer.kerberos ? Mechanism::kKerberos : Mechanism::kNtlm;
  }
  if (offer.kerberos) ticket_end_ = offer.tickets.end;
  return std::nullopt;
}

Reply LogOn::Advance(gss_buffer_t token) {
  GssBuffer out;
  gss_OID mechanism = GSS_C_NO_OID;
  OM_uint32 minor = 0;
  OM_uint32 flags = 0;
  const OM_uint32 major = gss_init_sec_context(
      &minor, credential_.get(), context_.address(), target_.get(), &kSpnegoOid, kFlags, 0,
      GSS_C_NO_CHANNEL_BINDINGS, token, &mechanism, out.address(), &flags, nullptr);
  if (GSS_ERROR(major)) {
    return FailGss(token == GSS_C_NO_BUFFER ? "cannot begin" : "the server's token", major, minor);
  }
  Token reply{.context_id = context_id_, .token = Secret(out.bytes()), .mechanism = offered_};
  if (reply.token.Expose().size() > kMaxTokenBytes) {
    return Fail(FailureClass::kNoMechanism, "the token does not fit into a SESSION_SETUP");
  }
  if ((major & GSS_S_CONTINUE_NEEDED) != 0) return reply;
  return Completed(mechanism, flags, std::move(reply));
}

Reply LogOn::Completed(gss_OID mechanism, uint32_t flags, Token token) {
  complete_ = true;
  const bool is_kerberos = gss_oid_equal(mechanism, &kKerberosOid) != 0;
  if (!is_kerberos && gss_oid_equal(mechanism, &kNtlmOid) == 0) {
    return Fail(FailureClass::kProtocol, "the server chose a mechanism that was not offered");
  }
  if ((flags & GSS_C_ANON_FLAG) != 0 || (flags & GSS_C_INTEG_FLAG) == 0) {
    return Fail(FailureClass::kProtocol, "the server's log-on has no identity or no integrity");
  }
  if (is_kerberos && (flags & GSS_C_MUTUAL_FLAG) == 0) {
    return Fail(FailureClass::kProtocol, "the server did not prove who it is");
  }
  GssBufferSet keys;
  OM_uint32 minor = 0;
  const OM_uint32 major = gss_inquire_sec_context_by_oid(
      &minor, context_.get(), GSS_C_INQ_SSPI_SESSION_KEY, keys.address());
  if (GSS_ERROR(major)) return FailGss("session key", major, minor);
  if (keys.get() == nullptr || keys.get()->count == 0 || keys.get()->elements[0].length == 0 ||
      keys.get()->elements[0].length > kMaxSessionKeyBytes) {
    return Fail(FailureClass::kProtocol, "the mechanism gave no session key");
  }
  const gss_buffer_desc& key = keys.get()->elements[0];
  token.complete = true;
  token.session_key = Secret(std::string_view(static_cast<const char*>(key.value), key.length));
  token.mechanism = is_kerberos ? Mechanism::kKerberos : Mechanism::kNtlm;
  if (is_kerberos) token.lifetime = ticket_end_ - absl::Now();
  return token;
}

}  // namespace dfscsi::smb::auth
