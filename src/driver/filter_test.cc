#include "driver/filter.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace twinstack::driver {
namespace {

using ::testing::HasSubstr;

ConnectionView redis_v4() {
  ConnectionView view;
  view.cookie = 0x1f;
  view.hw_conn_id = 0xa00000001;
  view.pid = 4711;
  view.program = "redis-server";
  view.stack = "engine";
  view.state = "ESTAB";
  view.flow.local = *parse_address("10.0.0.1");
  view.flow.local_port = 6379;
  view.flow.remote = *parse_address("10.0.200.7");
  view.flow.remote_port = 40000;
  return view;
}

ConnectionView nginx_v6() {
  ConnectionView view;
  view.cookie = 0x20;
  view.pid = 12;
  view.program = "nginx";
  view.stack = "kernel";
  view.state = "CLOSE-WAIT";
  view.flow.local = *parse_address("fd00::1");
  view.flow.local_port = 443;
  view.flow.remote = *parse_address("fd00:1::2");
  view.flow.remote_port = 443;
  return view;
}

// "46": the filter takes the IPv4 view and the IPv6 one; "4", "6" or "" for fewer; "error" when it does not parse.
std::string taken(const std::string& text) {
  const Result<ConnectionFilter> filter = parse_filter(text);
  if (!filter.has_value()) return "error";
  return std::string((*filter)(redis_v4()) ? "4" : "") + ((*filter)(nginx_v6()) ? "6" : "");
}

std::string complaint(const std::string& text) {
  const Result<ConnectionFilter> filter = parse_filter(text);
  return filter.has_value() ? "no error" : filter.error().message();
}

struct Case {
  std::string text;
  std::string taken;
};

class FilterCases : public ::testing::TestWithParam<Case> {};

TEST_P(FilterCases, Takes) { EXPECT_EQ(taken(GetParam().text), GetParam().taken) << GetParam().text; }

INSTANTIATE_TEST_SUITE_P(Identities, FilterCases,
                         ::testing::Values(Case{"all", "46"}, Case{"sk:1f", "4"}, Case{"sk:0x1F", "4"},
                                           Case{"sk:20", "6"}, Case{"hw:a00000001", "4"}, Case{"hw:1", ""},
                                           Case{"pid 12", "6"}, Case{"pid = 12", "6"}, Case{"pid != 12", "4"},
                                           Case{"program redis*", "4"}, Case{"program \"redis-server\"", "4"},
                                           Case{"program [!r]*", "6"}, Case{"program != nginx", "4"},
                                           Case{"stack kernel", "6"}, Case{"stack engine", "4"},
                                           Case{"stack to-kernel", ""}, Case{"state established", "4"},
                                           Case{"state close-wait", "6"}, Case{"state ne ESTAB", "6"}));

INSTANTIATE_TEST_SUITE_P(Hosts, FilterCases,
                         ::testing::Values(Case{"src 10.0.0.1", "4"}, Case{"src = 10.0.0.1:6379", "4"},
                                           Case{"src 10.0.0.1:6380", ""}, Case{"dst 10.0.128.0/17", "4"},
                                           Case{"dst 10.0.0.0/17", ""}, Case{"dst 10.0.0.0/16:40000", "4"},
                                           Case{"dst 0.0.0.0/0", "4"}, Case{"dst ::/0", "6"}, Case{"src fd00::1", "6"},
                                           Case{"src [fd00::1]:443", "6"}, Case{"src [fd00::1]", "6"},
                                           Case{"dst [fd00::]/16:443", "6"}, Case{"dst [fd00::/16]:443", "6"},
                                           Case{"dst fd00::/32", ""}, Case{"dst fd00::/31", "6"}, Case{"src :443", "6"},
                                           Case{"src *:443", "6"}, Case{"src *", "46"}, Case{"dst != fd00::/16", "4"},
                                           Case{"src ::ffff:10.0.0.1", "4"}));

INSTANTIATE_TEST_SUITE_P(Ports, FilterCases,
                         ::testing::Values(Case{"sport 6379", "4"}, Case{"sport :6379", "4"}, Case{"sport = :443", "6"},
                                           Case{"sport == 443", "6"}, Case{"sport eq 443", "6"},
                                           Case{"sport != 443", "4"}, Case{"sport ne :443", "4"},
                                           Case{"sport neq 443", "4"}, Case{"sport < 6379", "6"},
                                           Case{"sport lt 443", ""}, Case{"sport <= 443", "6"},
                                           Case{"sport le 443", "6"}, Case{"dport > 443", "4"},
                                           Case{"dport gt 40000", ""}, Case{"dport>=40000", "4"},
                                           Case{"dport geq :443", "46"}));

INSTANTIATE_TEST_SUITE_P(Logic, FilterCases,
                         ::testing::Values(Case{"pid 12 sport 443", "6"}, Case{"pid 12 and sport 6379", ""},
                                           Case{"pid 12 or sport 6379", "46"}, Case{"pid 12 || sport 6379", "46"},
                                           Case{"pid 12 | pid 4711", "46"}, Case{"pid 12 & stack kernel && all", "6"},
                                           Case{"not pid 12", "4"}, Case{"! pid 12", "4"}, Case{"!pid 12", "4"},
                                           Case{"not not pid 12", "6"},
                                           // and binds tighter than or, not tighter than and
                                           Case{"pid 12 or pid 4711 and stack kernel", "6"},
                                           Case{"(pid 12 or pid 4711) and stack engine", "4"},
                                           Case{"not pid 12 and stack engine", "4"},
                                           Case{"not (pid 12 or stack engine)", ""}, Case{"((all))", "46"},
                                           Case{"(sport=:443)and(not(pid 1))", "6"}));

TEST(Filter, SaysWhereAndWhatIsWrong) {
  EXPECT_EQ(
      complaint("sport 80 xyz 3"),
      "filter, column 10: expected all, sk:, hw:, pid, program, stack, state, src, dst, sport, dport, not or '(', "
      "not 'xyz'");
  EXPECT_EQ(complaint("pid"), "filter, column 4: expected a process number after 'pid', but the filter ends here");
  EXPECT_EQ(complaint("dport = http"), "filter, column 9: expected a port number from 0 to 65535, not 'http'");
  EXPECT_EQ(complaint("(all"), "filter, column 5: expected the ')' of column 1, but the filter ends here");
  EXPECT_EQ(complaint("all)"), "filter, column 4: expected 'and', 'or' or the end, not ')'");
  EXPECT_EQ(complaint("program \"x"), "filter, column 9: this quote is never closed");
  EXPECT_THAT(complaint(""), HasSubstr("say `all`"));
}

class WrongFilters : public ::testing::TestWithParam<std::string> {};

TEST_P(WrongFilters, AreRefused) { EXPECT_EQ(taken(GetParam()), "error") << GetParam(); }

INSTANTIATE_TEST_SUITE_P(All, WrongFilters,
                         ::testing::Values("sport 65536", "sport -1", "sport", "sport < ", "pid 0", "pid x", "pid < 3",
                                           "sk:", "sk:0", "sk:xyz", "hw:11112222333344445", "src 10.0.0.256",
                                           "src 10.0.0.0/33", "src fd00::/129", "src 10.0.0.1:99999", "src /8",
                                           "src [fd00::1", "src [fd00::1]443", "src \"\"", "src 10.0.0.1:1:2",
                                           "stack sideways", "state open", "program", "and all", "all and", "all or",
                                           "not", "()", "\"all\"", "=", "all = all"));

TEST(Filter, BoundsNestingAndLength) {
  EXPECT_EQ(taken(std::string(kMaxFilterDepth, '(') + "all" + std::string(kMaxFilterDepth, ')')), "46");
  EXPECT_THAT(complaint(std::string(8000, '(')), HasSubstr("column 65: nested too deeply"));
  EXPECT_THAT(complaint(std::string(8000, '!')), HasSubstr("nested too deeply"));
  EXPECT_THAT(complaint(std::string(kMaxFilterBytes + 1, ' ')), HasSubstr("at most 16384 bytes"));
  std::string many = "all";
  while (many.size() + 4 < kMaxFilterBytes) many += " all";
  EXPECT_EQ(taken(many), "46");
  // Depth is nesting, not the number of parentheses.
  std::string flat = "(all)";
  for (int i = 0; i < 200; ++i) flat += " (!(pid 3))";
  EXPECT_EQ(taken(flat), "46");
}

}  // namespace
}  // namespace twinstack::driver
