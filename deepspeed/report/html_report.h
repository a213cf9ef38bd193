// report.html: one page about a run, without scripts or outside files.
#pragma once

#include <string>
#include <vector>

#include "deepspeed/report/metrics.h"
#include "deepspeed/report/summary.h"

namespace deepspeed::report {

struct ReportPage {
  std::string title; // name of the experiment
  std::string subtitle; // one line: model, data, steps
  // The lines of metrics.jsonl: loss, eval_loss, lr, grad_norm and
  // tokens_per_second are drawn where they are present.
  std::vector<MetricsRecord> metrics;
  Rows numbers; // final numbers, shown large
  Rows settings;
  Rows machine;
};

// The whole page. Text is escaped.
std::string html_report(const ReportPage& page);

// Writes it. Error(io) or Error(cannot_create).
void write_html_report(const std::string& path, const ReportPage& page);

} // namespace deepspeed::report
