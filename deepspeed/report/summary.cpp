// What a run prints before its first and after its last step.
#include "deepspeed/report/summary.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>

#include "deepspeed/base/number_text.h"

namespace deepspeed::report {
namespace {

constexpr int kSparklineWidth = 60;

// Characters of UTF-8 text: all bytes but those that continue one.
size_t width_of(const std::string& text) {
  return std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  });
}

std::string loss_text(double loss) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%.4f", loss);
  return std::string(text.data()) + "  (perplexity " +
      base::format_short(std::exp(loss), 4) + ")";
}

std::string phases_text(
    const std::vector<std::pair<std::string, double>>& phases) {
  double total = 0;
  for (const auto& phase : phases) {
    total += phase.second;
  }
  std::string text;
  for (const auto& [name, seconds] : phases) {
    const double percent = total > 0 ? 100 * seconds / total : 0;
    std::array<char, 32> share{};
    std::snprintf(share.data(), share.size(), " %.1f%%", percent);
    text += (text.empty() ? "" : ", ") + name + share.data() + " (" +
        base::format_duration(seconds) + ")";
  }
  return text;
}

// Means of `count` equal parts; NaN for a part without a finite value.
std::vector<double> part_means(const std::vector<double>& values, int count) {
  std::vector<double> means;
  for (int part = 0; part < count; ++part) {
    const size_t begin = values.size() * part / count;
    const size_t end = values.size() * (part + 1) / count;
    double sum = 0;
    int n = 0;
    for (size_t i = begin; i < end; ++i) {
      if (std::isfinite(values[i])) {
        sum += values[i];
        ++n;
      }
    }
    means.push_back(n > 0 ? sum / n : std::numeric_limits<double>::quiet_NaN());
  }
  return means;
}

} // namespace

std::string table(const Rows& rows) {
  size_t width = 0;
  for (const auto& row : rows) {
    width = std::max(width, width_of(row.first));
  }
  std::string text;
  for (const auto& [key, value] : rows) {
    text +=
        "  " + key + std::string(width - width_of(key) + 2, ' ') + value + "\n";
  }
  return text;
}

std::string sparkline(const std::vector<double>& values, int width) {
  static constexpr std::array<const char*, 8> kBlocks{
      "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
  const int count = std::min<int>(width, static_cast<int>(values.size()));
  const std::vector<double> means = part_means(values, count);
  double low = std::numeric_limits<double>::infinity();
  double high = -low;
  for (const double mean : means) {
    if (std::isfinite(mean)) {
      low = std::min(low, mean);
      high = std::max(high, mean);
    }
  }
  std::string line;
  for (const double mean : means) {
    if (!std::isfinite(mean)) {
      line += " ";
      continue;
    }
    const double height = high > low ? (mean - low) / (high - low) : 0;
    line += kBlocks[std::min(7, static_cast<int>(height * 8))];
  }
  return line;
}

std::string end_summary(const EndSummary& summary) {
  Rows rows;
  if (summary.loss) {
    rows.emplace_back("Loss", loss_text(*summary.loss));
  }
  if (summary.validation_loss) {
    rows.emplace_back("Validation loss", loss_text(*summary.validation_loss));
  }
  if (summary.losses.size() > 1) {
    rows.emplace_back("Loss curve", sparkline(summary.losses, kSparklineWidth));
  }
  if (!summary.phases.empty()) {
    rows.emplace_back("Time", phases_text(summary.phases));
  }
  rows.insert(rows.end(), summary.rows.begin(), summary.rows.end());
  std::string text = summary.title + "\n" + table(rows);
  if (!summary.next_commands.empty()) {
    text += "Next:\n";
    for (const std::string& command : summary.next_commands) {
      text += "  " + command + "\n";
    }
  }
  return text;
}

} // namespace deepspeed::report
