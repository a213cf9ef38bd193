// metrics.jsonl: one JSON object for each log line.
#include "deepspeed/report/metrics.h"

#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <limits>
#include <optional>
#include <string_view>

#include "deepspeed/base/error.h"
#include "deepspeed/base/json.h"
#include "deepspeed/base/log.h"
#include "deepspeed/base/number_text.h"
#include "deepspeed/file/atomic_file.h"

namespace deepspeed::report {
namespace {

using base::Error;
using base::ExitCode;
using base::Json;

constexpr uint64_t kMostBytes = uint64_t{1} << 30;
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// Error(data) if the line is not a record.
MetricsRecord parse_line(std::string_view line, const std::string& place) {
  const Json object =
      base::parse_json(line, place, {.comments = false, .max_depth = 4});
  if (!object.is_object() || !object.contains("step") ||
      !object["step"].is_number_integer()) {
    throw Error(ExitCode::data, "not a line of metrics", place, "");
  }
  MetricsRecord record;
  record.step = object["step"].get<int64_t>();
  for (const auto& [name, value] : object.items()) {
    if (name == "step") {
      continue;
    }
    if (!value.is_number() && !value.is_null()) {
      throw Error(
          ExitCode::data, "not a number in a line of metrics", place, "");
    }
    record.values.emplace_back(
        name, value.is_null() ? kNaN : value.get<double>());
  }
  return record;
}

// Calls use(line with its newline, number) for each whole line.
template <typename Use>
void each_line(std::string_view text, Use use) {
  size_t number = 1;
  for (size_t end = text.find('\n'); end != std::string_view::npos;
       end = text.find('\n')) {
    use(text.substr(0, end + 1), number++);
    text.remove_prefix(end + 1);
  }
}

// The lines to keep, or nothing if those are all.
std::optional<std::string> kept_lines(
    const std::string& path,
    const std::string& text,
    int64_t start_step) {
  std::string kept;
  size_t broken = 0;
  each_line(text, [&](std::string_view line, size_t) {
    try {
      if (parse_line(line, path).step <= start_step) {
        kept += line;
      }
    } catch (const Error&) {
      ++broken;
    }
  });
  if (broken > 0) {
    base::log_warning(
        path + ": " + std::to_string(broken) + " damaged lines are dropped");
  }
  return kept.size() == text.size() ? std::nullopt : std::optional(kept);
}

} // namespace

double MetricsRecord::value(const std::string& name) const {
  for (const auto& [key, number] : values) {
    if (key == name) {
      return number;
    }
  }
  return kNaN;
}

MetricsFile::MetricsFile(const std::string& path, int64_t start_step) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  const fs::file_status status = fs::symlink_status(path, ignored);
  if (fs::exists(status) && !fs::is_symlink(status)) {
    const std::string text = file::read_file(path, kMostBytes);
    const std::optional<std::string> kept = kept_lines(path, text, start_step);
    // Another user's file can be replaced where it cannot be added to.
    if (kept || ::access(path.c_str(), W_OK) != 0) {
      file::write_file_atomically(path, kept ? *kept : text);
    }
  }
  file_ = file::AppendFile(path);
}

void MetricsFile::append(const MetricsRecord& record) {
  std::string line = "{\"step\":" + std::to_string(record.step);
  for (const auto& [name, value] : record.values) {
    line += "," + Json(name).dump() + ":" +
        (std::isfinite(value) ? base::format_exact(value) : "null");
  }
  file_.append(line + "}\n");
}

std::vector<MetricsRecord> read_metrics(const std::string& path) {
  std::vector<MetricsRecord> records;
  each_line(
      file::read_file(path, kMostBytes),
      [&](std::string_view line, size_t number) {
        records.push_back(
            parse_line(line, path + ":" + std::to_string(number)));
      });
  return records;
}

} // namespace deepspeed::report
