// US/Pacific local time, without a time zone database.
#pragma once

#include <cstdint>

namespace deepspeed::report {

struct CivilTime {
  int year = 1970;
  int month = 1; // 1-12
  int day = 1; // 1-31
  int hour = 0; // 0-23
  int minute = 0;
  int second = 0;
};

// The wall clock in Los Angeles at a Unix time (seconds since 1970, UTC), by
// the rule in force since 2007: UTC-7 from the second Sunday of March, 2:00, to
// the first Sunday of November, 2:00 summer time; UTC-8 otherwise.
CivilTime pacific_time(int64_t unix_seconds);

// Proleptic Gregorian date and time of day in UTC.
CivilTime utc_time(int64_t unix_seconds);

} // namespace deepspeed::report
