// Charts and the page of a run.
#include "deepspeed/report/html_report.h"

#include <gtest/gtest.h>

#include <cctype>
#include <cmath>
#include <limits>

#include "deepspeed/file/atomic_file.h"
#include "deepspeed/file/temporary_folder.h"
#include "deepspeed/report/svg_plot.h"

namespace deepspeed::report {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

size_t count_of(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos;
       at = text.find(part, at + part.size())) {
    ++count;
  }
  return count;
}

// Whether every element is closed, in order: what an XML reader asks for. (Not
// with std::regex, whose recursion is as deep as the text is long.)
bool is_balanced(const std::string& xml) {
  std::vector<std::string> open;
  for (size_t at = xml.find('<'); at != std::string::npos;
       at = xml.find('<', at + 1)) {
    const size_t end = xml.find('>', at);
    if (end == std::string::npos) {
      return false;
    }
    const bool closes = xml[at + 1] == '/';
    const size_t first = at + (closes ? 2 : 1);
    size_t last = first;
    while (std::isalnum(static_cast<unsigned char>(xml[last]))) {
      ++last;
    }
    const std::string name = xml.substr(first, last - first);
    if (name.empty() || xml[end - 1] == '/') {
      continue; // <!doctype> or <path/>
    }
    if (!closes) {
      open.push_back(name);
    } else if (open.empty() || open.back() != name) {
      return false;
    } else {
      open.pop_back();
    }
  }
  return open.empty();
}

TEST(RoundTicks, AreRoundAndEncloseTheRange) {
  using Ticks = std::vector<double>;
  EXPECT_EQ(round_ticks(0, 10, 5), (Ticks{0, 2, 4, 6, 8, 10}));
  EXPECT_EQ(round_ticks(5.9, 10.9, 5), (Ticks{5, 6, 7, 8, 9, 10, 11}));
  EXPECT_EQ(round_ticks(0, 1000, 8), (Ticks{0, 200, 400, 600, 800, 1000}));
  EXPECT_EQ(round_ticks(-3, 4, 2), (Ticks{-5, 0, 5}));
  const Ticks small = round_ticks(0, 1e-4, 5);
  ASSERT_EQ(small.size(), 6u);
  EXPECT_NEAR(small[1], 2e-5, 1e-12);
}

TEST(Smooth, IsAMeanWithoutLag) {
  // A straight line stays as it is, to its very ends.
  std::vector<Point> line;
  for (int i = 0; i < 20; ++i) {
    line.push_back({double(i), 3.0 * i});
  }
  const auto same = smooth(line, 5);
  ASSERT_EQ(same.size(), line.size());
  for (size_t i = 0; i < line.size(); ++i) {
    EXPECT_NEAR(same[i].y, line[i].y, 1e-9);
  }
  const auto means = smooth({{0, 0}, {1, 3}, {2, kNaN}, {3, 0}}, 1);
  ASSERT_EQ(means.size(), 3u);
  EXPECT_DOUBLE_EQ(means[1].y, 1);
}

TEST(EscapeMarkup, LeavesNoMarkup) {
  EXPECT_EQ(
      escape_markup("<a href='x' b=\"&\">\n\x01"),
      "&lt;a href=&#39;x&#39; b=&quot;&amp;&quot;&gt;");
}

TEST(DrawPlot, DrawsALineWithGaps) {
  Plot plot;
  plot.title = "a < b";
  plot.series = {
      {"s",
       {{0, 0}, {1, 1}, {2, kNaN}, {3, 1}, {4, 0}},
       Series::Style::line,
       2}};
  const std::string svg = draw_plot(plot);
  EXPECT_TRUE(is_balanced(svg));
  EXPECT_EQ(svg.find("nan"), std::string::npos);
  EXPECT_NE(svg.find("a &lt; b"), std::string::npos);
  // 800 - 70 - 24 pixels wide, 400 - 48 - 52 high.
  EXPECT_NE(
      svg.find("d=\"M70.0 348.0L246.5 48.0M599.5 48.0L776.0 348.0\""),
      std::string::npos)
      << svg;
}

TEST(DrawPlot, SurvivesOddData) {
  const double huge = std::numeric_limits<double>::max();
  for (const std::vector<Point>& points : std::vector<std::vector<Point>>{
           {},
           {{1, 1}},
           {{1, 0}, {2, 0}},
           {{1, kNaN}},
           {{5, -2}, {5, -2}},
           {{1, 1e300}, {2, -1e300}},
           {{1, 1e-300}, {2, 2e-300}},
           {{1, huge}, {2, -huge}}}) {
    Plot plot;
    plot.series = {{"", points, Series::Style::line, 0}};
    const std::string svg = draw_plot(plot);
    EXPECT_TRUE(is_balanced(svg));
    EXPECT_EQ(svg.find("nan"), std::string::npos);
    EXPECT_EQ(svg.find("inf"), std::string::npos);
  }
}

TEST(DrawPlot, LongCurvesAreThinnedToTheirEnvelope) {
  std::vector<Point> points;
  for (int i = 0; i < 100000; ++i) {
    points.push_back({double(i), i == 54321 ? 100.0 : i % 2 * 1.0});
  }
  Plot plot;
  plot.series = {{"", points, Series::Style::thin, 0}};
  const std::string svg = draw_plot(plot);
  EXPECT_LT(svg.size(), 60000u);
  EXPECT_NE(svg.find(" 48.0L"), std::string::npos); // the peak is still there
}

TEST(LossCurve, HasRawSmoothAndValidation) {
  std::vector<Point> losses;
  for (int i = 1; i <= 600; ++i) {
    losses.push_back({i * 10.0, 6 + 5 * std::exp(-i / 80.0)});
  }
  const std::string svg = loss_curve_svg(losses, {{3000, 6.5}, {6000, 6.1}});
  EXPECT_TRUE(is_balanced(svg));
  EXPECT_EQ(count_of(svg, "class=\"thin c0\""), 2u); // curve and legend
  EXPECT_EQ(count_of(svg, "class=\"line c0\""), 2u);
  EXPECT_EQ(count_of(svg, "<circle"), 3u);
  EXPECT_NE(svg.find("prefers-color-scheme"), std::string::npos);
  EXPECT_NE(svg.find(">6,000<"), std::string::npos);
}

ReportPage page() {
  ReportPage p;
  p.title = "bert_pretrain.2026 <b>";
  p.subtitle = "6 layers";
  for (int i = 1; i <= 30; ++i) {
    p.metrics.push_back(
        {i, {{"loss", 10.0 / i}, {"lr", 1e-4}, {"tokens_per_second", kNaN}}});
  }
  p.metrics.push_back({30, {{"eval_loss", 0.4}}});
  p.numbers = {{"loss", "0.3333"}};
  p.settings = {{"dataset", "a&b"}};
  p.machine = {{"Cores", "2"}};
  return p;
}

TEST(HtmlReport, IsSelfContained) {
  const std::string html = html_report(page());
  EXPECT_EQ(html.find("<!DOCTYPE html>"), 0u);
  EXPECT_EQ(html.find("<script"), std::string::npos);
  EXPECT_EQ(html.find("<link"), std::string::npos);
  EXPECT_EQ(html.find("url("), std::string::npos);
  EXPECT_EQ(html.find("src="), std::string::npos);
  EXPECT_EQ(
      count_of(html, "http"), count_of(html, "http://www.w3.org/2000/svg"));
}

TEST(HtmlReport, ShowsWhatTheRunHas) {
  const std::string html = html_report(page());
  EXPECT_NE(html.find("2026 &lt;b&gt;"), std::string::npos);
  EXPECT_NE(html.find("a&amp;b"), std::string::npos);
  EXPECT_EQ(count_of(html, "<svg"), 2u); // loss and lr
  EXPECT_EQ(html.find("Tokens per second"), std::string::npos); // all NaN
  EXPECT_NE(html.find("validation"), std::string::npos);
  ReportPage empty;
  EXPECT_NE(html_report(empty).find("no values"), std::string::npos);
}

TEST(HtmlReport, IsWritten) {
  const file::TemporaryFolder folder;
  const std::string path = folder.path() + "/report.html";
  write_html_report(path, page());
  EXPECT_EQ(file::read_file(path, 1 << 20), html_report(page()));
}

} // namespace
} // namespace deepspeed::report
