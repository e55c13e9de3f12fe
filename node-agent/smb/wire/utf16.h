// UTF-16 as SMB sends it, UTF-8 as Linux wants it, and comparison without case.
//
// Windows file names are sequences of 16-bit units, not text: a lone surrogate is a legal name.
// Such units become WTF-8 (three bytes, U+D800..U+DFFF) and back, so every file of a server can be
// reached and every name has exactly one spelling. All functions are pure and locale-free.

#ifndef NODE_AGENT_SMB_WIRE_UTF16_H_
#define NODE_AGENT_SMB_WIRE_UTF16_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "node-agent/smb/wire/reader.h"

namespace dfscsi::smb::wire {

// Units from UTF-16LE bytes at any alignment. A trailing odd byte is dropped: decoders reject odd
// lengths before they call this.
std::u16string Utf16FromBytes(Bytes utf16le);

// WTF-8 to UTF-16. nullopt: not WTF-8 (overlong, beyond U+10FFFF, cut short, or a surrogate pair
// spelled as two three-byte sequences, which would be a second spelling of one name). To a user of
// the file system that is EILSEQ.
std::optional<std::u16string> Utf8ToUtf16(std::string_view utf8);

// UTF-16 to WTF-8; never fails.
std::string Utf16ToUtf8(std::u16string_view utf16);
// The same, appended, straight from a received buffer (directory entries).
void AppendUtf8(Bytes utf16le, std::string* utf8);

// Simple upper case of one unit by the table of Windows file systems; units without an upper-case
// form, and surrogates, stay.
char16_t FoldCase(char16_t unit);

// For cache keys and hashes: equal results mean equal names to a case-insensitive server. A name is
// never sent to a server in this form.
std::u16string FoldCase(std::u16string_view utf16);
bool EqualsIgnoreCase(std::u16string_view a, std::u16string_view b);
// FoldCase of WTF-8, unit for unit. Bytes that are not WTF-8 stay as they are.
std::string FoldCaseUtf8(std::string_view utf8);

}  // namespace dfscsi::smb::wire

#endif  // NODE_AGENT_SMB_WIRE_UTF16_H_
