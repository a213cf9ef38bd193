// A trace as a file for ui.perfetto.dev, and as a table.
//
// The format is "Trace Event Format" (Google, 2016), which chrome://tracing and
// Perfetto read: complete events ("ph": "X") with "ts" and "dur" in
// microseconds, "pid" a rank, "tid" a thread of it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "deepspeed/base/trace.h"

namespace deepspeed::report {

// The events of one rank, separated by commas. "ts" counts from `origin`,
// microseconds since 1970: the start of the earliest rank's trace.
std::string trace_events(const base::Trace& trace, int rank, int64_t origin);

// The whole file from the events of all ranks.
std::string trace_file(const std::vector<std::string>& events_of_ranks);

// A line for each kind of span on each thread, and for each place where it
// nests, in the order of their first begin: how often it came in `steps` steps,
// its milliseconds a step, and that time's share of a step, which takes
// `step_seconds`. Spans of several threads overlap, and those of one hold
// others: the lines do not add up.
std::string trace_table(
    const base::Trace& trace,
    int64_t steps,
    double step_seconds);

// Seconds in spans with this SpanName::what, on all threads...
double span_seconds(const base::Trace& trace, const std::string& what);
// ... and how many of them lie inside spans of kind `inside`.
double span_seconds_inside(
    const base::Trace& trace,
    const std::string& what,
    const std::string& inside);

} // namespace deepspeed::report
