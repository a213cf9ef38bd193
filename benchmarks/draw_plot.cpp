// Draws a CSV table as a chart: draw_plot TITLE X_LABEL Y_LABEL OUT.svg < CSV
//
// The first line names the columns: x, then up to four pairs of what was
// measured (dots) and its bound (a line). An empty cell is a gap.
#include <cmath>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "deepspeed/base/error.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/report/svg_plot.h"

namespace {

using namespace deepspeed;

std::vector<std::string> cells_of(const std::string& line) {
  std::vector<std::string> cells;
  std::istringstream stream(line);
  for (std::string cell; std::getline(stream, cell, ',');) {
    cells.push_back(cell);
  }
  return cells;
}

double number(const std::string& cell) {
  return cell.empty() ? std::nan("") : std::stod(cell);
}

int run(int argc, char** argv) {
  if (argc != 5) {
    throw base::Error(
        base::ExitCode::usage,
        "four arguments are needed",
        "",
        "usage: draw_plot TITLE X_LABEL Y_LABEL OUT.svg < CSV");
  }
  report::Plot plot;
  plot.title = argv[1];
  plot.x_label = argv[2];
  plot.y_label = argv[3];
  plot.from_zero = true;
  std::string line;
  std::getline(std::cin, line);
  const std::vector<std::string> labels = cells_of(line);
  for (size_t i = 1; i < labels.size(); ++i) {
    report::Series series;
    series.label = labels[i];
    series.style =
        i % 2 == 1 ? report::Series::Style::dots : report::Series::Style::line;
    series.color = static_cast<int>(i - 1) / 2 % 4;
    plot.series.push_back(series);
  }
  while (std::getline(std::cin, line)) {
    std::vector<std::string> cells = cells_of(line);
    cells.resize(labels.size());
    for (size_t i = 1; i < cells.size(); ++i) {
      plot.series[i - 1].points.push_back({number(cells[0]), number(cells[i])});
    }
  }
  file::write_file_atomically(argv[4], report::draw_plot(plot));
  return 0;
}

} // namespace

int main(int argc, char** argv) {
  return deepspeed::base::run_program([&] { return run(argc, argv); });
}
