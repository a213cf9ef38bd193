// What a run prints before its first and after its last step.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace deepspeed::report {

using Rows = std::vector<std::pair<std::string, std::string>>;

// Rows "  Key     value", the values in one column.
std::string table(const Rows& rows);

// One character of ▁▂▃▄▅▆▇█ for each of at most `width` equal parts of the
// curve, over its own range; a blank where nothing is finite.
std::string sparkline(const std::vector<double>& values, int width);

struct EndSummary {
  std::string title; // "Finished after 10,000 steps in 1h12m"
  std::optional<double> loss; // shown with its perplexity, exp(loss)
  std::optional<double> validation_loss;
  std::vector<double> losses; // of the log lines
  // Where the time went: name and seconds.
  std::vector<std::pair<std::string, double>> phases;
  Rows rows; // anything else: checkpoint, report
  std::vector<std::string> next_commands;
};

std::string end_summary(const EndSummary& summary);

} // namespace deepspeed::report
