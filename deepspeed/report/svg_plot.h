// Line charts as SVG.
#pragma once

#include <string>
#include <vector>

namespace deepspeed::report {

struct Point {
  double x = 0;
  double y = 0; // a point that is not finite is a gap
};

struct Series {
  enum class Style { thin, line, dots };

  std::string label; // in the legend; empty: none
  std::vector<Point> points; // by rising x
  Style style = Style::line;
  int color = 0; // 0 to 3: a color of the palette
};

struct Plot {
  std::string title;
  std::string x_label;
  std::string y_label;
  std::vector<Series> series;
  int width = 800;
  int height = 400;
  bool from_zero = false; // the y axis holds 0
  // Alone: with its own style sheet and background. Otherwise the page has
  // plot_style().
  bool standalone = true;
};

// An <svg> element with axes, ticks at round numbers, grid and legend. Curves
// with more points than pixels are thinned to their envelope.
std::string draw_plot(const Plot& plot);

// Loss over steps, 800 x 400, standing alone: the raw values thin, their
// running mean strong, validation losses as dots.
std::string loss_curve_svg(
    const std::vector<Point>& losses,
    const std::vector<Point>& validation_losses = {});

// The same chart, to be drawn in a page.
Plot loss_plot(
    const std::vector<Point>& losses,
    const std::vector<Point>& validation_losses);

// Style sheet of the charts, for light and dark.
std::string plot_style();

// Mean over up to `radius` points on either side, over fewer near the ends, so
// that the curve starts and ends with its points and never lags behind.
// Points that are not finite are left out.
std::vector<Point> smooth(const std::vector<Point>& points, int radius);

// Multiples of 1, 2, 2.5 or 5 times a power of ten that enclose [low, high], in
// about `count` parts. `low` < `high`, both finite.
std::vector<double> round_ticks(double low, double high, int count);

// &, <, >, " and ' as entities; control characters are left out.
std::string escape_markup(const std::string& text);

} // namespace deepspeed::report
