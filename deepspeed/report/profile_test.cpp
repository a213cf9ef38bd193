// The file and the table of a trace.
#include "deepspeed/report/profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "deepspeed/base/json.h"

namespace deepspeed::report {
namespace {

using testing::HasSubstr;

constexpr int64_t kMs = 1'000'000; // nanoseconds

// Two steps of 10 ms, and a reduction of which a half lies inside backward.
base::Trace sample() {
  base::Trace trace;
  trace.started = 2'000'500;
  trace.threads.push_back(
      {"main",
       {{{"step", "", 3}, 0, 10 * kMs},
        {{"forward", "layer", 0}, 1 * kMs, 2 * kMs},
        {{"forward", "layer", 1}, 2 * kMs, 3 * kMs},
        {{"backward"}, 4 * kMs, 8 * kMs},
        {{"backward", "head"}, 4 * kMs, 5 * kMs},
        {{"step", "", 4}, 10 * kMs, 20 * kMs}}});
  trace.threads.push_back(
      {"communication", {{{"reduce", "bucket", 0}, 6 * kMs, 10 * kMs}}});
  return trace;
}

TEST(Profile, FileIsJsonThatViewersRead) {
  const std::string text = trace_file(
      {trace_events(sample(), 0, 2'000'000), trace_events({}, 1, 2'000'000)});
  const base::Json file = base::parse_json(text, "profile.json");
  const base::Json& events = file.at("traceEvents");
  std::vector<std::string> names;
  for (const base::Json& event : events) {
    if (event.at("ph") == "M") {
      names.push_back(event.at("args").at("name"));
    }
  }
  EXPECT_THAT(
      names, testing::ElementsAre("rank 0", "main", "communication", "rank 1"));
  const auto layer =
      std::find_if(events.begin(), events.end(), [](const base::Json& event) {
        return event.at("name") == "forward layer 1";
      });
  ASSERT_NE(layer, events.end());
  EXPECT_EQ(
      *layer,
      base::parse_json(
          R"({"name": "forward layer 1", "cat": "forward", "ph": "X",
              "ts": 2500.0, "dur": 1000.0, "pid": 0, "tid": 0})",
          "expected"));
}

TEST(Profile, Table) {
  const std::string table = trace_table(sample(), 2, 0.010);
  EXPECT_THAT(
      table,
      HasSubstr("  main           step                             2     10.00 "
                " 100.0 %\n"));
  EXPECT_THAT(
      table,
      HasSubstr("                   forward layer                  2      1.00 "
                "  10.0 %\n"));
  EXPECT_THAT(
      table,
      HasSubstr("                     backward head                1      0.50 "
                "   5.0 %\n"));
  EXPECT_THAT(
      table,
      HasSubstr("  communication  reduce bucket                    1      2.00 "
                "  20.0 %\n"));
}

TEST(Profile, Overlap) {
  EXPECT_DOUBLE_EQ(span_seconds(sample(), "reduce"), 0.004);
  EXPECT_DOUBLE_EQ(span_seconds_inside(sample(), "reduce", "backward"), 0.002);
  EXPECT_DOUBLE_EQ(span_seconds_inside(sample(), "reduce", "update"), 0);
}

} // namespace
} // namespace deepspeed::report
