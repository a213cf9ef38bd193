// Spans of time on all threads of a process, recorded while a profile is taken.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace deepspeed::base {

// "forward layer 3". Only the pointers are kept: give literals, of plain ASCII
// without quotes and backslashes.
struct SpanName {
  const char* what = ""; // "forward"
  const char* of = ""; // "layer"
  int64_t index = -1; // 3; -1: there is only one

  std::string text() const;
  // Without the index: what spans are added up under.
  std::string kind() const;
};

struct SpanRecord {
  SpanName name;
  int64_t begin = 0; // nanoseconds since start_trace()
  int64_t end = 0;
};

struct ThreadTrace {
  std::string name;
  // Rising by begin; one that holds others comes before them.
  std::vector<SpanRecord> spans;
  uint64_t lost = 0; // spans for which there was no room
};

struct Trace {
  // When it started, in microseconds since 1970: what ranks have in common.
  int64_t started = 0;
  // Those with a span; the one that called start_trace() first.
  std::vector<ThreadTrace> threads;
};

// Starts recording, with room for so many spans on each thread (40 bytes each;
// memory is taken only for those that come). std::logic_error if a trace is
// being taken. Threads may make spans all the while.
void start_trace(size_t spans_per_thread = size_t{1} << 18);

// Ends it. Spans that began earlier, or have not ended yet, are left out.
Trace stop_trace();

// What traces call the calling thread; a literal. Without it: "thread".
void name_this_thread(const char* name);

// The number of the trace being taken, 0 for none. For Span.
extern std::atomic<uint64_t> current_trace;

// Records the time of its life. Without a trace it costs one relaxed load and
// one branch at each end. Belongs to one thread; spans of a thread nest.
class Span {
 public:
  explicit Span(SpanName name)
      : trace_(current_trace.load(std::memory_order_relaxed)) {
    if (trace_ != 0) [[unlikely]] {
      begin(name);
    }
  }
  ~Span() {
    if (trace_ != 0) [[unlikely]] {
      end();
    }
  }
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;

 private:
  void begin(SpanName name);
  void end();

  uint64_t trace_;
  SpanName name_;
  int64_t begin_ = 0; // nanoseconds of the steady clock
};

} // namespace deepspeed::base
