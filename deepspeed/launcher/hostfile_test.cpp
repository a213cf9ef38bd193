// The rows of a hostfile: good ones, and the errors with their line.
#include "deepspeed/launcher/hostfile.h"

#include <gtest/gtest.h>

#include "deepspeed/base/error.h"

namespace deepspeed::launcher {
namespace {

TEST(Hostfile, ReadsHostsInOrder) {
  const auto hosts = parse_hostfile(
      "# comment\n\nw1 slots=4\n  w0\tslots=2   # the old one\n"
      "10.0.0.7  slots=1 max_slots=8",
      "hosts");
  ASSERT_EQ(hosts.size(), 3U);
  EXPECT_EQ(hosts[0].name, "w1");
  EXPECT_EQ(hosts[0].slots, 4);
  EXPECT_EQ(hosts[1].name, "w0");
  EXPECT_EQ(hosts[1].slots, 2);
  EXPECT_EQ(hosts[2].name, "10.0.0.7");
  EXPECT_FALSE(hosts[0].any_slot);
}

struct BadLine {
  const char* text;
  const char* where;
  const char* words;
};

TEST(Hostfile, NamesTheBadLine) {
  const BadLine table[] = {
      {"w0 slots=2\nw0 slots=3\n", "hosts:2", "several entries for w0"},
      {"w0 slots=0\n", "hosts:1", "slots=0"},
      {"\xEF\xBB\xBFw0 slots=2\n", "hosts:1", "byte-order mark"},
      {"\xFF\xFEw\1", "hosts:1", "\\xFF\\xFEw\\x01"},
      {"w\xC2\xA0 slots=1\n", "hosts:1", "'w\\xC2\\xA0'"},
      {"w0 slots=2x\n", "hosts:1", "bad entry"},
      {"w0 slots=-2\n", "hosts:1", "bad entry"},
      {"w0 slots=99999999999999999999\n", "hosts:1", "slots=9999"},
      {"w0 slots=5000\n", "hosts:1", "slots=5000"},
      {"w0 slots=2 rm -rf\n", "hosts:1", "bad entry"},
      {"w0\n", "hosts:1", "bad entry"},
      {"# a\n\nw0 slot=2\n", "hosts:3", "bad entry"},
      {"-oProxyCommand=x slots=2\n", "hosts:1", "-oProxyCommand=x"},
      {"-v slots=2\n", "hosts:1", "'-v'"},
      {"a;b slots=2\n", "hosts:1", "'a;b'"},
      {"user@w0 slots=2\n", "hosts:1", "'user@w0'"},
      {"fe80::1 slots=2\n", "hosts:1", "'fe80::1'"},
      {"[::1] slots=2\n", "hosts:1", "'[::1]'"},
      {"w0 slots=2\r\nw1 slots=2\r\n", "hosts:1", "CR LF"},
      {"", "hosts", "names no host"},
      {"# nothing\n\n", "hosts", "names no host"},
  };
  for (const BadLine& row : table) {
    SCOPED_TRACE(row.text);
    try {
      parse_hostfile(row.text, "hosts");
      FAIL() << "accepted";
    } catch (const base::Error& error) {
      EXPECT_EQ(error.code(), base::ExitCode::usage);
      EXPECT_EQ(error.where(), row.where);
      EXPECT_NE(std::string(error.what()).find(row.words), std::string::npos)
          << error.what();
    }
  }
}

TEST(Hostfile, BoundsWhatItReads) {
  EXPECT_THROW(
      parse_hostfile(std::string(1 << 20, 'x') + " slots=2", "hosts"),
      base::Error);
  EXPECT_THROW(
      parse_hostfile(std::string("w\0 slots=2", 10), "hosts"), base::Error);
}

} // namespace
} // namespace deepspeed::launcher
