// Owners of GSSAPI handles. Only dfs-auth and tests use them.

#ifndef NODE_AGENT_SMB_AUTH_GSS_HANDLES_H_
#define NODE_AGENT_SMB_AUTH_GSS_HANDLES_H_

#include <gssapi/gssapi.h>
#include <gssapi/gssapi_ext.h>
#include <string.h>

#include <string>
#include <string_view>

namespace dfscsi::smb::auth {

// Handle: gss_name_t and the like; Release: the GSSAPI function that frees it.
template <typename Handle, auto Release>
class GssHandle {
 public:
  GssHandle() = default;
  GssHandle(const GssHandle&) = delete;
  GssHandle& operator=(const GssHandle&) = delete;
  ~GssHandle() { reset(); }

  Handle get() const { return handle_; }
  // For functions that fill the handle, or replace it as gss_init_sec_context does.
  Handle* address() { return &handle_; }
  void reset() {
    OM_uint32 minor = 0;
    if (handle_ != nullptr) Release(&minor, &handle_);
    handle_ = nullptr;
  }

 private:
  Handle handle_ = nullptr;
};

inline OM_uint32 DeleteContext(OM_uint32* minor, gss_ctx_id_t* context) {
  return gss_delete_sec_context(minor, context, GSS_C_NO_BUFFER);
}

using GssName = GssHandle<gss_name_t, gss_release_name>;
using GssCredential = GssHandle<gss_cred_id_t, gss_release_cred>;
using GssContext = GssHandle<gss_ctx_id_t, DeleteContext>;
using GssBufferSet = GssHandle<gss_buffer_set_t, gss_release_buffer_set>;

// A buffer that GSSAPI allocated; its bytes are wiped before they are freed.
class GssBuffer {
 public:
  GssBuffer() = default;
  GssBuffer(const GssBuffer&) = delete;
  GssBuffer& operator=(const GssBuffer&) = delete;
  ~GssBuffer() {
    OM_uint32 minor = 0;
    if (buffer_.value != nullptr) explicit_bzero(buffer_.value, buffer_.length);
    gss_release_buffer(&minor, &buffer_);
  }
  gss_buffer_t address() { return &buffer_; }
  std::string_view bytes() const {
    return {static_cast<const char*>(buffer_.value), buffer_.length};
  }

 private:
  gss_buffer_desc buffer_ = GSS_C_EMPTY_BUFFER;
};

// A view for functions that take a gss_buffer_t but do not change it.
inline gss_buffer_desc ViewOf(std::string_view bytes) {
  return {bytes.size(), const_cast<char*>(bytes.data())};
}

}  // namespace dfscsi::smb::auth

#endif  // NODE_AGENT_SMB_AUTH_GSS_HANDLES_H_
