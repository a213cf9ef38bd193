// A trace as a file for ui.perfetto.dev, and as a table.
#include "deepspeed/report/profile.h"

#include <algorithm>
#include <array>
#include <cstdio>

namespace deepspeed::report {
namespace {

constexpr double kMicrosecond = 1e3; // nanoseconds
constexpr double kMillisecond = 1e6;
constexpr double kSecond = 1e9;

void add(std::string& list, const std::string& event) {
  list += (list.empty() ? "" : ",\n") + event;
}

// An event that names a process or a thread.
std::string metadata(
    const char* what,
    int rank,
    size_t thread,
    const std::string& value) {
  return std::string(R"({"name":")") + what + R"(","ph":"M","pid":)" +
      std::to_string(rank) + R"(,"tid":)" + std::to_string(thread) +
      R"(,"args":{"name":")" + value + R"("}})";
}

// One line of the table.
struct Line {
  std::string path; // the kinds around it, and its own
  std::string kind;
  size_t depth = 0;
  int64_t count = 0;
  int64_t nanoseconds = 0;
};

std::vector<Line> lines_of(const base::ThreadTrace& thread) {
  std::vector<Line> lines;
  struct Open {
    int64_t end;
    std::string path;
  };
  std::vector<Open> open; // the spans around the current one
  for (const base::SpanRecord& span : thread.spans) {
    while (!open.empty() && open.back().end <= span.begin) {
      open.pop_back();
    }
    const std::string kind = span.name.kind();
    const std::string path =
        open.empty() ? kind : open.back().path + "/" + kind;
    auto line = std::find_if(lines.begin(), lines.end(), [&](const Line& l) {
      return l.path == path;
    });
    if (line == lines.end()) {
      lines.push_back({path, kind, open.size()});
      line = lines.end() - 1;
    }
    ++line->count;
    line->nanoseconds += span.end - span.begin;
    open.push_back({span.end, path});
  }
  return lines;
}

// The spans of one kind on all threads, as disjoint ranges.
std::vector<std::pair<int64_t, int64_t>> ranges_of(
    const base::Trace& trace,
    const std::string& kind) {
  std::vector<std::pair<int64_t, int64_t>> ranges;
  for (const base::ThreadTrace& thread : trace.threads) {
    for (const base::SpanRecord& span : thread.spans) {
      if (span.name.kind() == kind) {
        ranges.emplace_back(span.begin, span.end);
      }
    }
  }
  std::sort(ranges.begin(), ranges.end());
  std::vector<std::pair<int64_t, int64_t>> joined;
  for (const auto& range : ranges) {
    if (!joined.empty() && range.first <= joined.back().second) {
      joined.back().second = std::max(joined.back().second, range.second);
    } else {
      joined.push_back(range);
    }
  }
  return joined;
}

} // namespace

std::string trace_events(const base::Trace& trace, int rank, int64_t origin) {
  std::string events;
  add(events,
      metadata("process_name", rank, 0, "rank " + std::to_string(rank)));
  const auto shift = static_cast<double>(trace.started - origin);
  for (size_t thread = 0; thread < trace.threads.size(); ++thread) {
    add(events,
        metadata("thread_name", rank, thread, trace.threads[thread].name));
    for (const base::SpanRecord& span : trace.threads[thread].spans) {
      std::array<char, 160> numbers{};
      std::snprintf(
          numbers.data(),
          numbers.size(),
          R"("ph":"X","ts":%.3f,"dur":%.3f,"pid":%d,"tid":%zu})",
          shift + static_cast<double>(span.begin) / kMicrosecond,
          static_cast<double>(span.end - span.begin) / kMicrosecond,
          rank,
          thread);
      add(events,
          R"({"name":")" + span.name.text() + R"(","cat":")" + span.name.what +
              R"(",)" + numbers.data());
    }
  }
  return events;
}

std::string trace_file(const std::vector<std::string>& events_of_ranks) {
  std::string events;
  for (const std::string& rank : events_of_ranks) {
    add(events, rank);
  }
  return "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n" + events + "\n]}\n";
}

std::string trace_table(
    const base::Trace& trace,
    int64_t steps,
    double step_seconds) {
  std::string text =
      "  thread         span                         count   ms/step    share\n";
  for (const base::ThreadTrace& thread : trace.threads) {
    std::string name = thread.name;
    for (const Line& row : lines_of(thread)) {
      const double milliseconds = static_cast<double>(row.nanoseconds) /
          kMillisecond / static_cast<double>(steps);
      std::array<char, 160> line{};
      std::snprintf(
          line.data(),
          line.size(),
          "  %-14s %-26s %7lld %9.2f %6.1f %%\n",
          name.c_str(),
          (std::string(2 * row.depth, ' ') + row.kind).c_str(),
          static_cast<long long>(row.count),
          milliseconds,
          100 * milliseconds / (step_seconds * 1e3));
      text += line.data();
      name.clear();
    }
  }
  return text;
}

double span_seconds(const base::Trace& trace, const std::string& what) {
  double sum = 0;
  for (const base::ThreadTrace& thread : trace.threads) {
    for (const base::SpanRecord& span : thread.spans) {
      if (span.name.what == what) {
        sum += static_cast<double>(span.end - span.begin) / kSecond;
      }
    }
  }
  return sum;
}

double span_seconds_inside(
    const base::Trace& trace,
    const std::string& what,
    const std::string& inside) {
  const auto ranges = ranges_of(trace, inside);
  double sum = 0;
  for (const base::ThreadTrace& thread : trace.threads) {
    for (const base::SpanRecord& span : thread.spans) {
      if (span.name.what != what) {
        continue;
      }
      for (const auto& [begin, end] : ranges) {
        const int64_t shared =
            std::min(end, span.end) - std::max(begin, span.begin);
        sum += static_cast<double>(std::max<int64_t>(shared, 0)) / kSecond;
      }
    }
  }
  return sum;
}

} // namespace deepspeed::report
