#include "node-agent/testing/ntlm_acceptor.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "node-agent/base/status_macros.h"
#include "node-agent/base/unique_fd.h"
#include "node-agent/smb/auth/gss_handles.h"
#include "node-agent/smb/auth/kerberos_tickets.h"

// gss-ntlmssp 1.2 loses an OpenSSL library context per log-on, MIT krb5 a name. Not ours, and
// small.
extern "C" __attribute__((weak)) const char*
__lsan_default_suppressions() {  // NOLINT(bugprone-reserved-identifier)
  return "leak:libcrypto.so\nleak:libkrb5.so\nleak:gssntlmssp.so\n";
}

namespace dfscsi::testing {
namespace {

using smb::auth::GssBuffer;
using smb::auth::GssBufferSet;
using smb::auth::GssContext;
using smb::auth::GssCredential;

using smb::auth::GssName;
using smb::auth::ViewOf;

gss_OID_desc kSpnegoOid = {6, const_cast<char*>("\x2b\x06\x01\x05\x05\x02")};
gss_OID_desc kNtlmOid = {10, const_cast<char*>("\x2b\x06\x01\x04\x01\x82\x37\x02\x02\x0a")};

std::string Text(uint32_t major, uint32_t minor) {
  OM_uint32 ignored = 0;
  OM_uint32 more = 0;
  GssBuffer line;
  gss_display_status(&ignored, major, GSS_C_GSS_CODE, GSS_C_NO_OID, &more, line.address());
  return absl::StrCat(std::string(line.bytes()), " (", absl::Hex(minor), ")");
}

class Exchange : public NtlmExchange {
 public:
  // Lets the plug-in find its users in the file at `users_path`.
  absl::Status Open(const std::string& users_path, const std::string& host) {
    gss_key_value_element_desc elements[] = {{"ntlmssp_keyfile", users_path.c_str()},
                                             {"keytab", "MEMORY:none"}};
    const gss_key_value_set_desc store = {2, elements};
    gss_OID_set_desc spnego = {1, &kSpnegoOid};
    gss_OID_set_desc ntlm = {1, &kNtlmOid};
    // With a name, or the plug-in takes these for a client's credentials (and crashes on them
    // later).
    const std::string service = absl::StrCat("cifs@", host);
    gss_buffer_desc service_buffer = ViewOf(service);
    GssName name;
    OM_uint32 minor = 0;
    OM_uint32 major =
        gss_import_name(&minor, &service_buffer, GSS_C_NT_HOSTBASED_SERVICE, name.address());
    if (!GSS_ERROR(major)) {
      major = gss_acquire_cred_from(&minor, name.get(), GSS_C_INDEFINITE, &spnego, GSS_C_ACCEPT,
                                    &store, credential_.address(), nullptr, nullptr);
    }
    if (!GSS_ERROR(major)) major = gss_set_neg_mechs(&minor, credential_.get(), &ntlm);
    if (GSS_ERROR(major)) return absl::NotFoundError(Text(major, minor));
    return absl::OkStatus();
  }

  absl::StatusOr<NtlmReply> Accept(std::string_view token) override {
    gss_buffer_desc in = ViewOf(token);
    GssBuffer out;
    GssName client;
    OM_uint32 minor = 0;
    const OM_uint32 major = gss_accept_sec_context(
        &minor, context_.address(), credential_.get(), &in, GSS_C_NO_CHANNEL_BINDINGS,
        client.address(), nullptr, out.address(), nullptr, nullptr, nullptr);
    if (GSS_ERROR(major)) {
      if (GSS_ROUTINE_ERROR(major) == GSS_S_DEFECTIVE_TOKEN) {
        return absl::InvalidArgumentError(Text(major, minor));
      }
      return absl::UnauthenticatedError(Text(major, minor));
    }
    NtlmReply reply{.token = std::string(out.bytes())};
    if ((major & GSS_S_CONTINUE_NEEDED) != 0) return reply;
    GssBufferSet keys;
    const OM_uint32 key_major = gss_inquire_sec_context_by_oid(
        &minor, context_.get(), GSS_C_INQ_SSPI_SESSION_KEY, keys.address());
    if (GSS_ERROR(key_major) || keys.get() == nullptr || keys.get()->count == 0) {
      return absl::InternalError(absl::StrCat("session key: ", Text(key_major, minor)));
    }
    const gss_buffer_desc& key = keys.get()->elements[0];
    GssBuffer name;
    gss_display_name(&minor, client.get(), name.address(), nullptr);
    reply.complete = true;
    reply.session_key = Secret(std::string(static_cast<const char*>(key.value), key.length));
    reply.user = std::string(name.bytes());
    while (!reply.user.empty() && reply.user.back() == '\0') reply.user.pop_back();
    return reply;
  }

 private:
  GssCredential credential_;
  GssContext context_;
};

class Acceptor : public NtlmAcceptor {
 public:
  explicit Acceptor(UniqueFd users) : users_(std::move(users)) {}

  absl::StatusOr<std::unique_ptr<NtlmExchange>> NewExchange(const std::string& host) override {
    auto exchange = std::make_unique<Exchange>();
    RETURN_IF_ERROR(exchange->Open(smb::auth::NameOf(users_), host));
    return exchange;
  }

 private:
  const UniqueFd users_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<NtlmAcceptor>> NtlmAcceptor::Create(
    const std::vector<NtlmUser>& users) {
  std::string lines;
  for (const NtlmUser& user : users) {
    absl::StrAppend(&lines, user.domain, ":", user.user, ":", user.password, "\n");
  }
  UniqueFd file = smb::auth::MemoryFile(lines);
  if (!file) return absl::ResourceExhaustedError("no memory file for the users");
  return std::make_unique<Acceptor>(std::move(file));
}

}  // namespace dfscsi::testing
