// A Kerberos KDC of one realm, for tests: enough of [RFC 4120] that MIT's client gets tickets from
// it, and that tests can see what it asked for and make it refuse. Keys never leave the test.

#ifndef NODE_AGENT_TESTING_KDC_H_
#define NODE_AGENT_TESTING_KDC_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace dfscsi::testing {

// Answers on a thread of its own, on a TCP port of 127.0.0.1, until it is destroyed. Other members
// may be called from any thread.
class Kdc {
 public:
  // `realm` in upper case.
  static absl::StatusOr<std::unique_ptr<Kdc>> Start(const std::string& realm);
  virtual ~Kdc() = default;

  // Adds "ann" or "cifs/fs1.lab.test", or changes its password.
  virtual void SetPassword(const std::string& principal, const std::string& password) = 0;
  // The contents of a keytab that holds this principal alone.
  virtual std::string Keytab(const std::string& principal) = 0;

  // From now on tickets end this long after they are given out (8 hours).
  virtual void SetTicketLife(absl::Duration life) = 0;
  // The KDC's clock is this far ahead.
  virtual void SetClockOffset(absl::Duration offset) = 0;

  // Contents of a krb5.conf with this KDC.
  virtual std::string Config() const = 0;

  // Requests that held a password's proof: what a lockout policy counts.
  virtual int pre_authentications() const = 0;
  virtual int service_tickets() const = 0;
};

}  // namespace dfscsi::testing

#endif  // NODE_AGENT_TESTING_KDC_H_
