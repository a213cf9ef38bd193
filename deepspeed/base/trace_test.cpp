// Traces: threads, nesting, and nothing recorded without one.
#include "deepspeed/base/trace.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <thread>

namespace deepspeed::base {
namespace {

const ThreadTrace* thread_of(const Trace& trace, const std::string& name) {
  for (const ThreadTrace& thread : trace.threads) {
    if (thread.name == name) {
      return &thread;
    }
  }
  return nullptr;
}

TEST(Trace, NamesOfSpans) {
  EXPECT_EQ((SpanName{"forward", "layer", 3}.text()), "forward layer 3");
  EXPECT_EQ((SpanName{"forward", "layer", 3}.kind()), "forward layer");
  EXPECT_EQ((SpanName{"update"}.text()), "update");
}

TEST(Trace, SpansNest) {
  name_this_thread("main");
  start_trace();
  {
    const Span outer({"outer"});
    { const Span inner({"inner", "", 0}); }
    { const Span inner({"inner", "", 1}); }
  }
  const Trace trace = stop_trace();
  EXPECT_GT(trace.started, 1'600'000'000'000'000);
  ASSERT_EQ(trace.threads.size(), 1u);
  EXPECT_EQ(trace.threads[0].name, "main");
  const std::vector<SpanRecord>& spans = trace.threads[0].spans;
  ASSERT_EQ(spans.size(), 3u);
  EXPECT_EQ(spans[0].name.text(), "outer");
  EXPECT_EQ(spans[1].name.text(), "inner 0");
  EXPECT_EQ(spans[2].name.text(), "inner 1");
  EXPECT_LE(0, spans[0].begin);
  EXPECT_LE(spans[0].begin, spans[1].begin);
  EXPECT_LE(spans[1].begin, spans[1].end);
  EXPECT_LE(spans[1].end, spans[2].begin);
  EXPECT_LE(spans[2].end, spans[0].end);
}

TEST(Trace, OnlyWhatLiesInsideIsRecorded) {
  { const Span before({"before"}); }
  auto across_start = std::make_unique<Span>(SpanName{"across start"});
  start_trace();
  across_start.reset();
  auto across_end = std::make_unique<Span>(SpanName{"across end"});
  { const Span inside({"inside"}); }
  const Trace trace = stop_trace();
  across_end.reset();
  { const Span after({"after"}); }
  ASSERT_EQ(trace.threads.size(), 1u);
  ASSERT_EQ(trace.threads[0].spans.size(), 1u);
  EXPECT_EQ(trace.threads[0].spans[0].name.text(), "inside");
  // And the next one begins anew.
  start_trace();
  EXPECT_TRUE(stop_trace().threads.empty());
}

TEST(Trace, SpansBeyondTheRoomAreCounted) {
  start_trace(3);
  for (int i = 0; i < 5; ++i) {
    const Span span({"span"});
  }
  const Trace trace = stop_trace();
  ASSERT_EQ(trace.threads.size(), 1u);
  EXPECT_EQ(trace.threads[0].spans.size(), 3u);
  EXPECT_EQ(trace.threads[0].lost, 2u);
}

TEST(Trace, OneAtATime) {
  start_trace();
  EXPECT_THROW(start_trace(), std::logic_error);
  stop_trace();
}

// Threads make spans while traces come and go; each trace has whole spans of
// its own time only.
TEST(Trace, Threads) {
  std::atomic<bool> stop = false;
  const auto work = [&](const char* name) {
    name_this_thread(name);
    for (int64_t i = 0; !stop; ++i) {
      const Span outer({"outer", "", i});
      const Span inner({"inner", "", i});
    }
  };
  std::thread one(work, "one");
  std::thread two(work, "two");
  for (int round = 0; round < 20; ++round) {
    start_trace(1000);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    const Trace trace = stop_trace();
    for (const char* name : {"one", "two"}) {
      const ThreadTrace* thread = thread_of(trace, name);
      if (thread == nullptr) {
        continue; // it had no time on a busy machine
      }
      int64_t last = 0;
      for (const SpanRecord& span : thread->spans) {
        EXPECT_LE(last, span.begin);
        EXPECT_LE(span.begin, span.end);
        last = span.begin;
      }
      EXPECT_LE(thread->spans.size(), 1000u);
    }
  }
  start_trace();
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  const Trace trace = stop_trace();
  stop = true;
  one.join();
  two.join();
  ASSERT_NE(thread_of(trace, "one"), nullptr);
  ASSERT_NE(thread_of(trace, "two"), nullptr);
  EXPECT_GT(thread_of(trace, "one")->spans.size(), 100u);
}

} // namespace
} // namespace deepspeed::base
