// Line charts as SVG.
#pragma once

#include <cstdint>
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
  std::vector<Point> points;
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
  // Alone: with its own colors and background. In a page the style sheet of the
  // page gives them, for light and dark.
  bool standalone = true;
};

// An <svg> element with axes, ticks at round numbers, grid and legend.
std::string draw_plot(const Plot& plot);

// Loss over steps, 800 x 400: the raw values thin, their running mean strong,
// validation losses as dots. For a picture in a README.
std::string loss_curve_svg(
    const std::vector<Point>& losses,
    const std::vector<Point>& validation_losses = {});

// Exponential running mean, corrected for its start as Adam's moments are.
std::vector<Point> smooth(const std::vector<Point>& points, double weight);

// Round numbers (1, 2, 2.5 or 5 times a power of ten) that cover [low, high] in
// about `count` parts. `low` < `high`, both finite.
std::vector<double> round_ticks(double low, double high, int count);

// &, <, >, " and ' as entities; control characters are left out.
std::string escape_markup(const std::string& text);

} // namespace deepspeed::report
