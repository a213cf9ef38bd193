// Line charts as SVG.
#include "deepspeed/report/svg_plot.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <limits>

#include "deepspeed/base/number_text.h"

namespace deepspeed::report {
namespace {

constexpr double kLeft = 70;
constexpr double kRight = 24;
constexpr double kTop = 48;
constexpr double kBottom = 52;

template <typename... Values>
std::string print(const char* format, Values... values) {
  std::array<char, 256> text{};
  std::snprintf(text.data(), text.size(), format, values...);
  return text.data();
}

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  void add(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  // A single value gets room on both sides.
  void widen() {
    if (high <= low) {
      const double room = low != 0 ? std::abs(low) * 0.1 : 1;
      low -= room;
      high += room;
    }
  }
};

// Beyond that the difference of two values could overflow.
bool is_drawable(const Point& point) {
  constexpr double kMost = 1e300;
  return std::abs(point.x) <= kMost && std::abs(point.y) <= kMost;
}

// From data to pixels, and the ticks of both axes.
struct Frame {
  Range x;
  Range y;
  std::vector<double> x_ticks;
  std::vector<double> y_ticks;
  double left = kLeft;
  double right = 0;
  double top = kTop;
  double bottom = 0;
  bool empty = false;

  explicit Frame(const Plot& plot)
      : right(plot.width - kRight), bottom(plot.height - kBottom) {
    for (const Series& series : plot.series) {
      for (const Point& point : series.points) {
        if (is_drawable(point)) {
          x.add(point.x);
          y.add(point.y);
        }
      }
    }
    empty = x.high < x.low;
    if (empty) {
      return;
    }
    if (x.low > 0 && x.low < 0.1 * x.high) {
      x.low = 0;
    }
    if (plot.from_zero) {
      y.add(0);
    }
    x.widen();
    y.widen();
    for (const double tick : round_ticks(x.low, x.high, 8)) {
      if (tick >= x.low && tick <= x.high) {
        x_ticks.push_back(tick);
      }
    }
    y_ticks = round_ticks(y.low, y.high, 5);
    y = {y_ticks.front(), y_ticks.back()};
  }

  double to_x(double value) const {
    return left + (value - x.low) / (x.high - x.low) * (right - left);
  }
  double to_y(double value) const {
    return bottom - (value - y.low) / (y.high - y.low) * (bottom - top);
  }
};

std::string tick_text(double tick) {
  if (std::abs(tick) >= 1000 && std::abs(tick) < 1e15 &&
      tick == std::round(tick)) {
    return base::format_count(static_cast<int64_t>(tick));
  }
  return base::format_short(tick, 6);
}

std::string text_at(
    const char* attributes,
    double x,
    double y,
    const std::string& text) {
  return print("<text %s x=\"%.1f\" y=\"%.1f\">", attributes, x, y) +
      escape_markup(text) + "</text>\n";
}

std::string axes(const Plot& plot, const Frame& frame) {
  std::string svg;
  for (const double tick : frame.y_ticks) {
    const double y = frame.to_y(tick);
    svg += print(
        "<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" "
        "y2=\"%.1f\"/>\n",
        frame.left,
        y,
        frame.right,
        y);
    svg += text_at(
        "class=\"tick\" text-anchor=\"end\"",
        frame.left - 8,
        y + 4,
        tick_text(tick));
  }
  for (const double tick : frame.x_ticks) {
    const double x = frame.to_x(tick);
    svg += print(
        "<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" "
        "y2=\"%.1f\"/>\n",
        x,
        frame.top,
        x,
        frame.bottom);
    svg += text_at(
        "class=\"tick\" text-anchor=\"middle\"",
        x,
        frame.bottom + 18,
        tick_text(tick));
  }
  svg += print(
      "<path class=\"axis\" d=\"M%.1f %.1fV%.1fH%.1f\"/>\n",
      frame.left,
      frame.top,
      frame.bottom,
      frame.right);
  svg += text_at(
      "class=\"label\" text-anchor=\"middle\"",
      (frame.left + frame.right) / 2,
      frame.bottom + 40,
      plot.x_label);
  const double middle = (frame.top + frame.bottom) / 2;
  svg += print(
      "<text class=\"label\" text-anchor=\"middle\" "
      "transform=\"translate(18 %.1f) rotate(-90)\">",
      middle);
  return svg + escape_markup(plot.y_label) + "</text>\n";
}

// At most two points, the lowest and the highest, for each half pixel.
std::vector<Point> thinned(
    const std::vector<Point>& points,
    const Frame& frame) {
  const auto most = static_cast<size_t>(2 * (frame.right - frame.left));
  if (points.size() <= 2 * most) {
    return points;
  }
  std::vector<Point> kept;
  for (size_t part = 0; part < most; ++part) {
    const auto begin = points.begin() + points.size() * part / most;
    const auto end = points.begin() + points.size() * (part + 1) / most;
    auto low = end;
    auto high = end;
    for (auto at = begin; at != end; ++at) {
      if (is_drawable(*at)) {
        low = low == end || at->y < low->y ? at : low;
        high = high == end || at->y > high->y ? at : high;
      }
    }
    if (low == end) {
      kept.push_back(*begin); // a gap
      continue;
    }
    kept.push_back(*std::min(low, high));
    if (low != high) {
      kept.push_back(*std::max(low, high));
    }
  }
  return kept;
}

std::string curve(const Series& series, const Frame& frame) {
  std::string path;
  bool joined = false;
  for (const Point& point : thinned(series.points, frame)) {
    const bool drawn = is_drawable(point);
    if (drawn) {
      path += joined ? "L" : "M";
      path += print("%.1f %.1f", frame.to_x(point.x), frame.to_y(point.y));
    }
    joined = drawn;
  }
  const char* style = series.style == Series::Style::thin ? "thin" : "line";
  return print("<path class=\"%s c%d\" d=\"", style, series.color) + path +
      "\"/>\n";
}

std::string dots(const Series& series, const Frame& frame) {
  std::string svg;
  for (const Point& point : thinned(series.points, frame)) {
    if (is_drawable(point)) {
      svg += print(
          "<circle class=\"dot f%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"4\"/>\n",
          series.color,
          frame.to_x(point.x),
          frame.to_y(point.y));
    }
  }
  return svg;
}

// From the right: a mark and its label for each series that has one.
std::string legend(const Plot& plot) {
  constexpr double kCharacter = 6.6; // of the legend's font, on average
  std::string svg;
  double x = plot.width - kRight;
  for (size_t i = plot.series.size(); i-- > 0;) {
    const Series& series = plot.series[i];
    if (series.label.empty() || series.points.empty()) {
      continue;
    }
    x -= kCharacter * static_cast<double>(series.label.size());
    svg += text_at("class=\"legend\"", x, 28, series.label);
    if (series.style == Series::Style::dots) {
      svg += print(
          "<circle class=\"dot f%d\" cx=\"%.1f\" cy=\"24\" r=\"4\"/>\n",
          series.color,
          x - 12);
    } else {
      svg += print(
          "<path class=\"%s c%d\" d=\"M%.1f 24h18\"/>\n",
          series.style == Series::Style::thin ? "thin" : "line",
          series.color,
          x - 24);
    }
    x -= 40;
  }
  return svg;
}

bool is_single(const std::vector<Point>& points) {
  return std::count_if(points.begin(), points.end(), is_drawable) == 1;
}

} // namespace

std::string plot_style() {
  return ".plot{font-family:system-ui,-apple-system,'Segoe UI',Roboto,"
         "'Helvetica Neue',Arial,sans-serif}"
         ".plot .back{fill:#ffffff}"
         ".plot text{fill:#57606a;font-size:12px}"
         ".plot .title{fill:#1f2328;font-size:15px;font-weight:600}"
         ".plot .grid{stroke:#d8dee4;stroke-width:1}"
         ".plot .axis{stroke:#8c959f;stroke-width:1;fill:none}"
         ".plot .thin{fill:none;stroke-width:1;stroke-opacity:.35}"
         ".plot .line{fill:none;stroke-width:2.2;stroke-linejoin:round;"
         "stroke-linecap:round}"
         ".plot .dot{stroke:#ffffff;stroke-width:1.5}"
         ".c0{stroke:#1f6feb}.c1{stroke:#d1500c}.c2{stroke:#1a7f37}"
         ".c3{stroke:#8250df}"
         ".f0{fill:#1f6feb}.f1{fill:#d1500c}.f2{fill:#1a7f37}.f3{fill:#8250df}"
         "@media (prefers-color-scheme:dark){"
         ".plot .back{fill:#0d1117}"
         ".plot text{fill:#9198a1}"
         ".plot .title{fill:#f0f6fc}"
         ".plot .grid{stroke:#2a313a}"
         ".plot .axis{stroke:#656c76}"
         ".plot .thin{stroke-opacity:.45}"
         ".plot .dot{stroke:#0d1117}"
         ".c0{stroke:#58a6ff}.c1{stroke:#f0883e}.c2{stroke:#3fb950}"
         ".c3{stroke:#bc8cff}"
         ".f0{fill:#58a6ff}.f1{fill:#f0883e}.f2{fill:#3fb950}.f3{fill:#bc8cff}"
         "}";
}

std::string draw_plot(const Plot& plot) {
  const Frame frame(plot);
  std::string svg = print(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"plot\" role=\"img\" "
      "viewBox=\"0 0 %d %d\"",
      plot.width,
      plot.height);
  if (plot.standalone) {
    svg += print(" width=\"%d\" height=\"%d\"", plot.width, plot.height);
  }
  svg += ">\n<title>" + escape_markup(plot.title) + "</title>\n";
  if (plot.standalone) {
    svg += "<style>" + plot_style() + "</style>\n";
    svg += print(
        "<rect class=\"back\" width=\"%d\" height=\"%d\" rx=\"6\"/>\n",
        plot.width,
        plot.height);
  }
  svg += text_at("class=\"title\"", 18, 29, plot.title);
  if (frame.empty) {
    svg += text_at(
        "class=\"label\" text-anchor=\"middle\"",
        plot.width / 2.0,
        plot.height / 2.0,
        "no values");
    return svg + "</svg>\n";
  }
  svg += axes(plot, frame);
  for (const Series& series : plot.series) {
    const bool as_dots =
        series.style == Series::Style::dots || is_single(series.points);
    svg += as_dots ? dots(series, frame) : curve(series, frame);
  }
  return svg + legend(plot) + "</svg>\n";
}

Plot loss_plot(
    const std::vector<Point>& losses,
    const std::vector<Point>& validation_losses) {
  Plot plot;
  plot.title = "Loss";
  plot.x_label = "step";
  plot.y_label = "cross-entropy (nats)";
  const int radius = static_cast<int>(losses.size() / 60);
  if (radius > 0) {
    plot.series.push_back({"training", losses, Series::Style::thin, 0});
    plot.series.push_back(
        {"running mean", smooth(losses, radius), Series::Style::line, 0});
  } else {
    plot.series.push_back({"training", losses, Series::Style::line, 0});
  }
  if (!validation_losses.empty()) {
    plot.series.push_back(
        {"validation", validation_losses, Series::Style::dots, 1});
  }
  return plot;
}

std::string loss_curve_svg(
    const std::vector<Point>& losses,
    const std::vector<Point>& validation_losses) {
  return draw_plot(loss_plot(losses, validation_losses));
}

std::vector<Point> smooth(const std::vector<Point>& points, int radius) {
  std::vector<Point> finite;
  std::copy_if(
      points.begin(), points.end(), std::back_inserter(finite), is_drawable);
  std::vector<double> sums{0}; // sums[i]: of the first i values
  for (const Point& point : finite) {
    sums.push_back(sums.back() + point.y);
  }
  std::vector<Point> means = finite;
  for (size_t i = 0; i < finite.size(); ++i) {
    const size_t reach =
        std::min({static_cast<size_t>(radius), i, finite.size() - 1 - i});
    means[i].y = (sums[i + reach + 1] - sums[i - reach]) /
        static_cast<double>(2 * reach + 1);
  }
  return means;
}

std::vector<double> round_ticks(double low, double high, int count) {
  const double least = (high - low) / count;
  const double power = std::pow(10, std::floor(std::log10(least)));
  double step = 10 * power;
  for (const double factor : {5.0, 2.5, 2.0, 1.0}) {
    // Allow for rounding: 0.1 parts of 1 are ten parts, not nine.
    step = factor * power >= least * (1 - 1e-9) ? factor * power : step;
  }
  const double first = std::floor(low / step + 1e-9);
  const double last = std::ceil(high / step - 1e-9);
  std::vector<double> ticks;
  for (double i = first; i <= last && ticks.size() < 1000; ++i) {
    ticks.push_back(i * step);
  }
  return ticks;
}

std::string escape_markup(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default:
        if (static_cast<unsigned char>(c) >= ' ' && c != '\x7f') {
          escaped += c;
        }
    }
  }
  return escaped;
}

} // namespace deepspeed::report
