// Los Angeles time around the changes of the clock.
#include "deepspeed/report/pacific_time.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <string>

namespace deepspeed::report {
namespace {

std::string text(const CivilTime& t) {
  char buffer[64];
  std::snprintf(
      buffer,
      sizeof(buffer),
      "%d-%02d-%02d %02d:%02d:%02d",
      t.year,
      t.month,
      t.day,
      t.hour,
      t.minute,
      t.second);
  return buffer;
}

TEST(PacificTime, ChangesInMarch) {
  // 2026-03-08 is the second Sunday: 2:00 becomes 3:00.
  EXPECT_EQ(text(pacific_time(1772963999)), "2026-03-08 01:59:59");
  EXPECT_EQ(text(pacific_time(1772964000)), "2026-03-08 03:00:00");
  // 2024-03-10; the month begins on a Friday.
  EXPECT_EQ(text(pacific_time(1710064799)), "2024-03-10 01:59:59");
  EXPECT_EQ(text(pacific_time(1710064800)), "2024-03-10 03:00:00");
}

TEST(PacificTime, ChangesInNovember) {
  // 2026-11-01 is a Sunday: 2:00 becomes 1:00, so 1:30 comes twice.
  EXPECT_EQ(text(pacific_time(1793523599)), "2026-11-01 01:59:59");
  EXPECT_EQ(text(pacific_time(1793523600)), "2026-11-01 01:00:00");
  EXPECT_EQ(text(pacific_time(1793527200)), "2026-11-01 02:00:00");
}

TEST(PacificTime, TurnOfTheYear) {
  EXPECT_EQ(text(pacific_time(1767254399)), "2025-12-31 23:59:59");
  EXPECT_EQ(text(pacific_time(1767254400)), "2026-01-01 00:00:00");
  EXPECT_EQ(text(utc_time(1767254400)), "2026-01-01 08:00:00");
}

TEST(PacificTime, MiddleOfSummerAndLeapDay) {
  EXPECT_EQ(text(pacific_time(1784635200)), "2026-07-21 05:00:00");
  EXPECT_EQ(text(utc_time(1709208000)), "2024-02-29 12:00:00");
  EXPECT_EQ(text(utc_time(0)), "1970-01-01 00:00:00");
}

} // namespace
} // namespace deepspeed::report
