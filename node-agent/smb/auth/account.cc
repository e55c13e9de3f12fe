#include "node-agent/smb/auth/account.h"

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace dfscsi::smb::auth {
namespace {

bool HasControlByte(absl::string_view text) {
  for (const char c : text) {
    if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) return true;
  }
  return false;
}

}  // namespace

bool IsUtf8(absl::string_view text) {
  const auto byte = [text](size_t at) {
    return at < text.size() ? static_cast<unsigned char>(text[at]) : 0U;
  };
  for (size_t i = 0; i < text.size();) {
    const unsigned lead = byte(i);
    if (lead < 0x80) {
      ++i;
      continue;
    }
    if (lead < 0xc2 || lead > 0xf4) return false;
    const size_t size = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    for (size_t k = 1; k < size; ++k) {
      if ((byte(i + k) & 0xc0) != 0x80) return false;
    }
    // Overlong forms, surrogates, and what lies beyond Unicode.
    const unsigned second = byte(i + 1);
    if ((lead == 0xe0 && second < 0xa0) || (lead == 0xed && second > 0x9f) ||
        (lead == 0xf0 && second < 0x90) || (lead == 0xf4 && second > 0x8f)) {
      return false;
    }
    i += size;
  }
  return true;
}

absl::StatusOr<Account> ParseAccount(absl::string_view user, absl::string_view domain) {
  if (HasControlByte(user) || HasControlByte(domain)) {
    return absl::InvalidArgumentError("the user name holds a control character");
  }
  if (!IsUtf8(user) || !IsUtf8(domain)) {
    return absl::InvalidArgumentError("the user name is not UTF-8");
  }
  if (domain.find_first_of("\\;@") != domain.npos) {
    return absl::InvalidArgumentError(absl::StrCat("'", domain, "' is not a domain's name"));
  }
  Account account{std::string(user), std::string(domain)};
  absl::string_view found;
  if (const size_t at = user.find_first_of("\\;"); at != user.npos) {
    found = user.substr(0, at);
    account.user = std::string(user.substr(at + 1));
  } else if (const size_t sign = user.rfind('@'); sign != user.npos && domain.empty()) {
    found = user.substr(sign + 1);
    account.user = std::string(user.substr(0, sign));
    account.is_principal = true;
  } else {
    return account;
  }
  if (account.user.empty() || found.empty() ||
      account.user.find_first_of("\\;") != std::string::npos ||
      (account.is_principal && absl::StrContains(account.user, '@'))) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", user, "' is not a user's name (user, DOMAIN\\user or user@realm)"));
  }
  if (!domain.empty() && !absl::EqualsIgnoreCase(found, domain)) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", user, "' names another domain than '", domain, "'"));
  }
  account.domain = std::string(found);
  return account;
}

std::string NtlmName(const Account& account) {
  if (account.is_principal) return absl::StrCat(account.user, "\\@", account.domain);
  if (account.domain.empty()) return account.user;
  return absl::StrCat(account.domain, "\\", account.user);
}

std::string RealmOf(const Account& account) {
  if (!account.is_principal && !absl::StrContains(account.domain, '.')) return "";
  return absl::AsciiStrToUpper(account.domain);
}

std::string DisplayName(const Account& account) {
  if (account.is_principal) return absl::StrCat(account.user, "@", account.domain);
  if (account.domain.empty()) return account.user;
  return absl::StrCat(account.domain, "\\", account.user);
}

}  // namespace dfscsi::smb::auth
