#include "node-agent/dfs/path.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace dfscsi::dfs {
namespace {

using testing::HasSubstr;

DfsPath P(absl::string_view text) {
  absl::StatusOr<DfsPath> path = DfsPath::Parse(text);
  EXPECT_TRUE(path.ok()) << path.status();
  return *std::move(path);
}

// A22: trailing, doubled and mixed separators.
TEST(DfsPathTest, A22_SpellingsOfOneSourceAreEqual) {
  for (const absl::string_view source :
       {"//root1/dfs", "//root1/dfs/", "//root1//dfs//", "\\\\root1\\dfs", "\\\\root1\\dfs\\",
        "\\/root1/\\dfs", "//ROOT1/Dfs", "////root1/dfs"}) {
    const DfsPath path = P(source);
    EXPECT_EQ(path, P("//root1/dfs")) << source;
    EXPECT_EQ(path.size(), 2u) << source;
    EXPECT_EQ(path.Key(), u"\\ROOT1\\DFS") << source;
  }
}

TEST(DfsPathTest, KeepsTheSpelling) {
  const DfsPath path = P("\\\\Root1/Dfs\\a b/Ünï");
  EXPECT_EQ(path.ToString(), "//Root1/Dfs/a b/Ünï");
  EXPECT_EQ(path.ToWire(), u"\\Root1\\Dfs\\a b\\Ünï");
  EXPECT_EQ(path.host(), "Root1");
  EXPECT_EQ(path.share(), "Dfs");
  EXPECT_EQ(path.Component(3), "Ünï");
  EXPECT_EQ(path.Relative(2), "a b\\Ünï");
  EXPECT_EQ(path.Relative(3), "Ünï");
  EXPECT_EQ(path.Relative(4), "");
}

struct BadSource {
  std::string name;
  std::string source;
  absl::string_view want;  // Part of the message.
};

class BadSourceTest : public testing::TestWithParam<BadSource> {};

TEST_P(BadSourceTest, IsRefusedWithAReason) {
  const absl::StatusOr<DfsPath> path = DfsPath::Parse(GetParam().source);
  ASSERT_FALSE(path.ok());
  EXPECT_EQ(path.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(path.status().message()), HasSubstr(std::string(GetParam().want)));
  EXPECT_THAT(std::string(path.status().message()), HasSubstr("expected //host/share"));
  for (const char c : path.status().message()) EXPECT_FALSE(c >= 0 && c < ' ');
}

INSTANTIATE_TEST_SUITE_P(DfsPath, BadSourceTest,
                         testing::ValuesIn<BadSource>({
                             {"Empty", "", "empty"},
                             {"OneSlash", "/host/share", "two slashes"},
                             {"NoSlash", "host/share", "two slashes"},
                             {"NfsStyle", "host:/share", "two slashes"},
                             {"Url", "smb://host/share", "URL"},
                             {"OnlySlashes", "////", "no host"},
                             {"NoShare", "//host", "no share"},
                             {"NoShareSlash", "//host/", "no share"},
                             {"DotDot", "//host/share/../x", "\"..\" is not allowed"},
                             {"Dot", "//host/share/.", "\".\" is not allowed"},
                             {"Control", "//host/share/a\nb", "control character"},
                             {"Nul", std::string("//host/share/a\0b", 16), "control character"},
                             {"Star", "//host/share/*", "contains '*'"},
                             {"Stream", "//host/share/a:b", "contains ':'"},
                             {"ShareColon", "//host/sh:are", "share \"sh:are\" contains ':'"},
                             {"HostPortColon", "//host:445/share", "written host@1445"},
                             {"HostUser", "//user%pw@host/share", "port"},
                             {"PortZero", "//host@0/share", "1 to 65535"},
                             {"PortBig", "//host@65536/share", "1 to 65535"},
                             {"PortEmpty", "//host@/share", "1 to 65535"},
                             {"PortSigned", "//host@+44/share", "1 to 65535"},
                             {"HostEmpty", "//@445/share", "host is empty"},
                             {"Brackets", "//[host]/share", "no IPv6 address"},
                             {"HostBlank", "//a b/share", "contains ' '"},
                             {"NotUtf8", "//host/share/\xff", "not valid UTF-8"},
                             {"HostLong", "//" + std::string(256, 'h') + "/s", "longer than 255"},
                             {"ShareLong", "//h/" + std::string(81, 's'), "longer than 80"},
                             {"NameLong", "//h/s/" + std::string(256, 'n'), "longer than 255"},
                         }),
                         [](const auto& info) { return info.param.name; });

TEST(DfsPathTest, APasswordInASourceIsNotRepeated) {
  for (const absl::string_view source : {"//user%hunter2@host/share", "//user:hunter2@host/share",
                                         "smb://user:hunter2@host/share", "user:hunter2@host"}) {
    const absl::StatusOr<DfsPath> path = DfsPath::Parse(source);
    ASSERT_FALSE(path.ok());
    EXPECT_THAT(std::string(path.status().message()), testing::Not(HasSubstr("hunter2")));
  }
}

// A27
TEST(DfsPathTest, A27_LongPathsWorkUpToTheLimitAndAreNeverCut) {
  DfsPath path = P("//h/s");  // 4 units
  for (int i = 0; i < 127; ++i) {
    absl::StatusOr<DfsPath> longer = path.Join(std::string(255, 'n'));
    ASSERT_TRUE(longer.ok()) << i;
    path = *std::move(longer);
  }
  EXPECT_EQ(path.Key().size(), 4u + 127 * 256);
  EXPECT_TRUE(path.Join(std::string(250, 'n')).ok());
  EXPECT_EQ(path.Join(std::string(251, 'n')).status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(path.Join(std::string(256, 'n')).status().code(), absl::StatusCode::kOutOfRange);
  // Units, not bytes: 255 three-byte characters are one legal name.
  std::string cjk;
  for (int i = 0; i < 255; ++i) cjk += "链";
  EXPECT_TRUE(P("//h/s").Join(cjk).ok());
  EXPECT_EQ(path.ReplacePrefix(2, P("//h/s/" + std::string(251, 'x'))).status().code(),
            absl::StatusCode::kOutOfRange);
}

// A23, A24, A26
TEST(DfsPathTest, A23_CaseIsIgnoredWithoutALocale) {
  EXPECT_EQ(P("//ROOT1/DFS/Link"), P("//root1/dfs/link"));
  EXPECT_EQ(P("//h/s/ÜNÏ"), P("//h/s/ünï"));
}

TEST(DfsPathTest, A24_NamesThatOnlyALocaleWouldJoinStayApart) {
  const std::vector<std::string> names = {"I", "ı", "İ", "ß", "ss", "ẞ"};
  for (size_t i = 0; i < names.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      EXPECT_FALSE(P("//h/s/" + names[i]) == P("//h/s/" + names[j])) << names[i] << names[j];
    }
  }
}

TEST(DfsPathTest, A26_NoNormalisation) { EXPECT_FALSE(P("//h/s/\u00fc") == P("//h/s/u\u0308")); }

TEST(DfsPathTest, A25_SurrogatePairsKeepTheirUnits) {
  const DfsPath path = P("//h/s/ünïcødé-链接/😀/x");
  EXPECT_EQ(path.KeyPrefix(4).size(), std::u16string(u"\\h\\s\\ünïcødé-链接\\😀").size());
  EXPECT_EQ(path.ToWire(), u"\\h\\s\\ünïcødé-链接\\😀\\x");
}

// A30
TEST(DfsPathTest, A30_HostsWithPortsAndAddresses) {
  struct Case {
    absl::string_view source, name, wire_host;
    int port;
  };
  for (const Case& c :
       std::vector<Case>{{"//h/s", "h", "\\h\\s", 0},
                         {"//h@1445/s", "h", "\\h\\s", 1445},
                         {"//10.0.0.1@445/s", "10.0.0.1", "\\10.0.0.1\\s", 445},
                         {"//[fd00::1]/s", "fd00::1", "\\fd00::1\\s", 0},
                         {"//fd00::1/s", "fd00::1", "\\fd00::1\\s", 0},
                         {"//[fd00::1]@99/s", "fd00::1", "\\fd00::1\\s", 99},
                         {"//fe80::1%eth0/s", "fe80::1%eth0", "\\fe80::1%eth0\\s", 0}}) {
    const DfsPath path = P(c.source);
    EXPECT_EQ(path.HostName(), c.name) << c.source;
    EXPECT_EQ(path.Port().value_or(0), c.port) << c.source;
    const std::u16string wire = path.ToWire();
    EXPECT_EQ(std::string(wire.begin(), wire.end()), c.wire_host) << c.source;
    EXPECT_EQ(path.ToString(), c.source);
    // As the referrals of that host will name it.
    for (const char* below : {"", "/Dir/file"}) {
      EXPECT_EQ(P(absl::StrCat(c.source, below)).WithoutPort().ToString(),
                absl::StrCat("//", c.name, "/s", below))
          << c.source;
    }
  }
}

// E11
TEST(DfsPathTest, E11_PrefixIsByWholeComponents) {
  const DfsPath a = P("//d/n/a");
  EXPECT_TRUE(P("//D/N/A/b").HasPrefix(a));
  EXPECT_TRUE(a.HasPrefix(a));
  EXPECT_FALSE(P("//d/n/ab").HasPrefix(a));
  EXPECT_FALSE(P("//d/n").HasPrefix(a));
  EXPECT_EQ(P("//d/n/a/b").Prefix(3), a);
}

TEST(DfsPathTest, ReplacePrefixRewritesForATarget) {
  const DfsPath path = P("//root/dfs/Link/x/y");
  EXPECT_EQ(path.ReplacePrefix(3, P("//t1/share/deep"))->ToString(), "//t1/share/deep/x/y");
  EXPECT_EQ(path.ReplacePrefix(5, P("//t1/share"))->ToString(), "//t1/share");
  const DfsPath rewritten = *path.ReplacePrefix(3, P("//t1/share"));
  EXPECT_EQ(rewritten.size(), 4u);
  EXPECT_EQ(rewritten.Component(3), "y");
  EXPECT_EQ(rewritten.KeyPrefix(3), u"\\T1\\SHARE\\X");
}

TEST(DfsPathTest, JoinRefusesWhatCannotBeAName) {
  const DfsPath path = P("//h/s");
  for (const absl::string_view name : {"", ".", "..", "a/b", "a\\b", "a\tb", "a?"}) {
    EXPECT_EQ(path.Join(name).status().code(), absl::StatusCode::kInvalidArgument) << name;
  }
  EXPECT_EQ(path.Join("a")->ToString(), "//h/s/a");
  EXPECT_EQ(path.Join("\uf03a")->size(), 3u);  // A mapped ':'.
}

struct TargetCase {
  std::u16string address;
  absl::string_view want;  // Empty: refused.
};

// G13, G15
TEST(DfsPathTest, G13_TargetsOfReferrals) {
  const std::vector<TargetCase> cases = {
      {u"\\h\\s", "//h/s"},
      {u"\\h\\s\\", "//h/s"},
      {u"\\\\h\\s", "//h/s"},
      {u"\\h\\s\\p\\q", "//h/s/p/q"},
      {u"\\10.1.2.3\\s$", "//10.1.2.3/s$"},
      {u"\\h\\s\\😀", "//h/s/😀"},
      {u"", ""},
      {u"\\", ""},
      {u"\\\\", ""},
      {u"\\h", ""},
      {u"\\h\\", ""},
      {u"h\\s", ""},
      {u"nobackslash", ""},
      {u"\\nobackslash", ""},
      {u"\\\\\\h\\s", ""},
      {u"\\h\\\\s", ""},
      {u"\\h\\s\\\\x", ""},
      {u"\\h\\s\\..\\..", ""},
      {u"\\h\\..", ""},
      {u"\\..\\s", ""},
      {u"\\h\\s\\.", ""},
      {u"\\h\\s/x", ""},
      {u"/h/s", ""},
      {u"\\h:445\\s", ""},
      {u"\\h@1445\\s", ""},
      {u"\\[fd00::1]\\s", ""},
      {u"\\user%pw@h\\s", ""},
      {u"\\h\\s\\a:b", ""},
      {u"\\h\\s*", ""},
      {u"\\h\\s\\?", ""},
      {std::u16string(u"\\h\\s\\a\0b", 8), ""},
      {u"\\h\\s\\a\x1F", ""},
      {std::u16string(u"\\h\\s\\a") + char16_t{0xD800}, ""},
      {std::u16string(u"\\h\\s\\") + char16_t{0xDC00} + char16_t{0xD800}, ""},
      {u"\\h\\IPC$", ""},
      {u"\\h\\ipc$\\x", ""},
      {u"\\" + std::u16string(256, u'h') + u"\\s", ""},
      {u"\\h\\" + std::u16string(81, u's'), ""},
      {u"\\h\\s\\" + std::u16string(256, u'n'), ""},
      {u"\\h\\s" + std::u16string(32768, u'\\'), ""},
  };
  for (const TargetCase& c : cases) {
    const absl::StatusOr<DfsPath> path = DfsPath::ParseTarget(c.address);
    const std::string shown(c.address.begin(), c.address.end());
    if (c.want.empty()) {
      EXPECT_FALSE(path.ok()) << shown << " became " << *path;
    } else {
      ASSERT_TRUE(path.ok()) << shown << ": " << path.status();
      EXPECT_EQ(path->ToString(), c.want);
    }
  }
  std::u16string huge = u"\\h\\s";
  while (huge.size() <= kMaxPathUnits) huge += u"\\" + std::u16string(255, u'n');
  EXPECT_EQ(DfsPath::ParseTarget(huge).status().code(), absl::StatusCode::kOutOfRange);
}

}  // namespace
}  // namespace dfscsi::dfs
