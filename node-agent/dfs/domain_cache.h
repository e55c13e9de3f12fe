// Active Directory domains and their controllers, for namespaces that belong to a domain.
//
// Source: [MS-DFSC] 3.1.1 (DomainCache), 3.1.5.4.1, 3.1.5.4.2. A domain-joined client is told its
// domains; we learn of one from configuration, from a DOMAIN referral, or because a host name that
// somebody mounts has SRV records for controllers.

#ifndef NODE_AGENT_DFS_DOMAIN_CACHE_H_
#define NODE_AGENT_DFS_DOMAIN_CACHE_H_

#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "node-agent/base/mutex.h"

namespace dfscsi::dfs {

// Thread-safe. Names are compared without (ASCII) case.
class DomainCache {
 public:
  // What is known of a name.
  enum class Knowledge {
    kUnknown,  // Nobody has looked, or too long ago.
    kNotADomain,
    kDomain,  // Its bootstrap controllers are known; GetControllers may be empty.
  };
  Knowledge Get(absl::string_view name, absl::Time now) const;

  // DCList with DCHint first; empty if there is none, or it has expired.
  std::vector<std::string> GetControllers(absl::string_view domain, absl::Time now) const;
  // Whom a DC referral may be asked of: the last known controllers, whatever their age.
  std::vector<std::string> GetBootstrap(absl::string_view domain) const;

  // A domain, and at least one host that is a controller of it (SRV records, configuration).
  void PutDomain(absl::string_view name, std::vector<std::string> bootstrap);
  void PutNotADomain(absl::string_view name, absl::Time until);
  // The answer to a DC referral. The hint stays if it is still listed.
  void PutControllers(absl::string_view domain, std::vector<std::string> controllers,
                      absl::Time expiry);
  // This controller answered; it is asked first from now on.
  void SetHint(absl::string_view domain, absl::string_view controller);

  void Flush();

 private:
  struct Domain {
    bool is_domain = false;
    absl::Time not_a_domain_until = absl::InfinitePast();
    std::vector<std::string> bootstrap;
    std::vector<std::string> controllers;
    absl::Time expiry = absl::InfinitePast();
  };

  mutable Mutex mutex_;
  absl::flat_hash_map<std::string, Domain> domains_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace dfscsi::dfs

#endif  // NODE_AGENT_DFS_DOMAIN_CACHE_H_
