// metrics.jsonl: one JSON object for each log line.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "deepspeed/file/append_file.h"

namespace deepspeed::report {

// One line: {"step":10,"loss":9.1,...}. Values keep their order.
struct MetricsRecord {
  int64_t step = 0;
  std::vector<std::pair<std::string, double>> values;

  // The value of `name`, or NaN.
  double value(const std::string& name) const;
};

// Appends records to a file. Not thread-safe. A failed write gives one warning
// on standard error, and later calls do nothing.
class MetricsFile {
 public:
  // Opens `path` for a run that has done `start_step` steps (0: a new run).
  // Lines of later steps, left by a run that was killed after its last
  // checkpoint, are dropped, and so is a torn last line: the curve has no
  // double part. Error(cannot_create) if the file cannot be opened.
  MetricsFile(const std::string& path, int64_t start_step);

  // NaN and infinity are written as null.
  void append(const MetricsRecord& record);

 private:
  file::AppendFile file_;
};

// All records. null reads as NaN. A torn last line is left out; Error(data) for
// any other line that is not a record, Error(no_input) without a file.
std::vector<MetricsRecord> read_metrics(const std::string& path);

} // namespace deepspeed::report
