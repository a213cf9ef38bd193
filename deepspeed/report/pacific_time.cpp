// US/Pacific local time, without a time zone database.
#include "deepspeed/report/pacific_time.h"

#include <chrono>

namespace deepspeed::report {
namespace {

using std::chrono::March;
using std::chrono::November;
using std::chrono::Sunday;
using std::chrono::sys_days;
using std::chrono::sys_seconds;

sys_seconds at(int64_t unix_seconds) {
  return sys_seconds(std::chrono::seconds(unix_seconds));
}

} // namespace

CivilTime utc_time(int64_t unix_seconds) {
  const sys_seconds time = at(unix_seconds);
  const sys_days day = std::chrono::floor<std::chrono::days>(time);
  const std::chrono::year_month_day date(day);
  const std::chrono::hh_mm_ss clock(time - day);
  CivilTime civil;
  civil.year = static_cast<int>(date.year());
  civil.month = static_cast<int>(static_cast<unsigned>(date.month()));
  civil.day = static_cast<int>(static_cast<unsigned>(date.day()));
  civil.hour = static_cast<int>(clock.hours().count());
  civil.minute = static_cast<int>(clock.minutes().count());
  civil.second = static_cast<int>(clock.seconds().count());
  return civil;
}

CivilTime pacific_time(int64_t unix_seconds) {
  using std::chrono::hours;
  const sys_seconds time = at(unix_seconds);
  // In winter time the year is never ambiguous with regard to the rule.
  const auto year = std::chrono::year(utc_time(unix_seconds - 8 * 3600).year);
  // 2:00 is 10:00 UTC before the change in March, 9:00 UTC in November.
  const sys_seconds begin = sys_days(year / March / Sunday[2]) + hours(10);
  const sys_seconds end = sys_days(year / November / Sunday[1]) + hours(9);
  const bool summer = time >= begin && time < end;
  return utc_time(unix_seconds - (summer ? 7 : 8) * 3600);
}

} // namespace deepspeed::report
