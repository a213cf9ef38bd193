// Numbers as people read them.
#include "deepspeed/base/number_text.h"

#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <string_view>

namespace deepspeed::base {
namespace {

template <typename... Values>
std::string print(const char* format, Values... values) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), format, values...);
  return text.data();
}

} // namespace

std::string format_count(int64_t n) {
  std::string text = std::to_string(n);
  const size_t first_digit = n < 0 ? 1 : 0;
  for (size_t at = text.size(); at > first_digit + 3;) {
    at -= 3;
    text.insert(at, 1, ',');
  }
  return text;
}

std::string format_bytes(uint64_t bytes) {
  static constexpr std::array<const char*, 6> kUnits{
      "B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  // 1023.95 would be shown as 1024.0.
  while (value >= 1023.95 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return print(unit == 0 ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
}

std::string format_rate(double per_second) {
  if (per_second >= 999.95e3) {
    return print("%.1fM", per_second / 1e6);
  }
  if (per_second >= 999.5) {
    return print("%.1fk", per_second / 1e3);
  }
  return print(per_second >= 9.95 ? "%.0f" : "%.1f", per_second);
}

std::string format_duration(double seconds) {
  if (!(seconds < 1e12)) { // also NaN
    return "?";
  }
  if (seconds < 9.95) {
    return print("%.1fs", seconds < 0 ? 0.0 : seconds);
  }
  const auto total = static_cast<int64_t>(std::llround(seconds));
  if (total < 60) {
    return print("%ds", static_cast<int>(total));
  }
  const auto pair = [](int64_t high, const char* unit, int64_t low) {
    return print(
        "%lld%s%02lld",
        static_cast<long long>(high),
        unit,
        static_cast<long long>(low));
  };
  if (total < 3600) {
    return pair(total / 60, "m", total % 60) + "s";
  }
  if (total < 86400) {
    return pair(total / 3600, "h", total % 3600 / 60) + "m";
  }
  return pair(total / 86400, "d", total % 86400 / 3600) + "h";
}

std::string format_exact(double value) {
  if (std::isnan(value)) {
    return "NaN";
  }
  if (std::isinf(value)) {
    return value < 0 ? "-Infinity" : "Infinity";
  }
  std::array<char, 32> buffer{};
  const auto end = std::to_chars(
      buffer.data(),
      buffer.data() + buffer.size(),
      value,
      std::chars_format::scientific);
  const std::string scientific(buffer.data(), end.ptr);
  // Python writes 1e-05 and 1e+16, but 0.0001 and 1000000000000000.0.
  const size_t e = scientific.find('e');
  const int exponent = std::atoi(scientific.c_str() + e + 1);
  if (exponent < -4 || exponent >= 16) {
    return scientific;
  }
  const auto fixed_end = std::to_chars(
      buffer.data(),
      buffer.data() + buffer.size(),
      value,
      std::chars_format::fixed);
  const std::string fixed(buffer.data(), fixed_end.ptr);
  return fixed.find('.') == std::string::npos ? fixed + ".0" : fixed;
}

std::string format_short(double value, int digits) {
  return print("%.*g", digits, value);
}

} // namespace deepspeed::base
