// report.html: one page about a run, without scripts or outside files.
#include "deepspeed/report/html_report.h"

#include <cmath>

#include "deepspeed/file/atomic_file.h"
#include "deepspeed/report/svg_plot.h"

namespace deepspeed::report {
namespace {

constexpr const char* kPageStyle =
    ":root{color-scheme:light dark}"
    "body{margin:0;background:#f6f8fa;color:#1f2328;"
    "font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,"
    "'Helvetica Neue',Arial,sans-serif}"
    "main{max-width:960px;margin:0 auto;padding:32px 20px 64px}"
    "h1{font-size:22px;margin:0;overflow-wrap:anywhere}"
    "h2{font-size:16px;margin:32px 0 10px}"
    ".subtitle{color:#57606a;margin:4px 0 20px}"
    ".card{background:#fff;border:1px solid #d8dee4;border-radius:8px}"
    ".numbers{display:grid;gap:12px;margin-bottom:20px;"
    "grid-template-columns:repeat(auto-fit,minmax(140px,1fr))}"
    ".number{padding:10px 14px}"
    ".number b{display:block;font-size:20px;font-weight:600;"
    "overflow-wrap:anywhere}"
    ".number span{color:#57606a;font-size:13px}"
    ".chart{margin-bottom:16px;padding:4px}"
    ".chart svg{display:block;width:100%;height:auto}"
    ".tables{display:grid;gap:0 24px;"
    "grid-template-columns:repeat(auto-fit,minmax(320px,1fr));"
    "align-items:start}"
    "table{width:100%;border-collapse:collapse;font-size:13px}"
    "td{padding:5px 14px;border-top:1px solid #d8dee4;vertical-align:top;"
    "overflow-wrap:anywhere}"
    "tr:first-child td{border-top:0}"
    "td:first-child{color:#57606a;white-space:nowrap;width:1%}"
    "td:last-child{font-family:ui-monospace,SFMono-Regular,Menlo,"
    "Consolas,monospace}"
    "@media (prefers-color-scheme:dark){"
    "body{background:#010409;color:#f0f6fc}"
    ".card{background:#0d1117;border-color:#2a313a}"
    "td{border-color:#2a313a}"
    ".subtitle,.number span,td:first-child{color:#9198a1}"
    "}";

// The finite values of one metric over the steps.
std::vector<Point> points_of(
    const std::vector<MetricsRecord>& metrics,
    const std::string& name) {
  std::vector<Point> points;
  for (const MetricsRecord& record : metrics) {
    const double value = record.value(name);
    if (std::isfinite(value)) {
      points.push_back({static_cast<double>(record.step), value});
    }
  }
  return points;
}

std::string chart(Plot plot) {
  plot.standalone = false;
  return "<div class=\"card chart\">\n" + draw_plot(plot) + "</div>\n";
}

// A smaller chart of one metric; nothing if the run has none of it.
std::string metric_chart(
    const ReportPage& page,
    const char* name,
    const char* title,
    int color) {
  const std::vector<Point> points = points_of(page.metrics, name);
  if (points.empty()) {
    return "";
  }
  Plot plot;
  plot.title = title;
  plot.x_label = "step";
  plot.series = {{"", points, Series::Style::line, color}};
  plot.height = 260;
  plot.from_zero = true;
  return chart(plot);
}

std::string table_of(const char* heading, const Rows& rows) {
  if (rows.empty()) {
    return "";
  }
  std::string html = std::string("<section>\n<h2>") + heading +
      "</h2>\n<div class=\"card\"><table>\n";
  for (const auto& [key, value] : rows) {
    html += "<tr><td>" + escape_markup(key) + "</td><td>" +
        escape_markup(value) + "</td></tr>\n";
  }
  return html + "</table></div>\n</section>\n";
}

} // namespace

std::string html_report(const ReportPage& page) {
  std::string html =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width,"
      "initial-scale=1\">\n<title>" +
      escape_markup(page.title) + "</title>\n<style>" + kPageStyle +
      plot_style() + "</style>\n</head>\n<body>\n<main>\n<h1>" +
      escape_markup(page.title) + "</h1>\n<p class=\"subtitle\">" +
      escape_markup(page.subtitle) + "</p>\n<div class=\"numbers\">\n";
  for (const auto& [key, value] : page.numbers) {
    html += "<div class=\"card number\"><b>" + escape_markup(value) +
        "</b><span>" + escape_markup(key) + "</span></div>\n";
  }
  html += "</div>\n";
  html += chart(loss_plot(
      points_of(page.metrics, "loss"), points_of(page.metrics, "eval_loss")));
  html += metric_chart(page, "lr", "Learning rate", 3);
  html += metric_chart(page, "grad_norm", "Gradient norm", 1);
  html += metric_chart(page, "tokens_per_second", "Tokens per second", 2);
  html += "<div class=\"tables\">\n" +
      table_of("settings::Settings", page.settings) +
      table_of("Machine", page.machine) + "</div>\n";
  return html + "</main>\n</body>\n</html>\n";
}

void write_html_report(const std::string& path, const ReportPage& page) {
  file::write_file_atomically(path, html_report(page));
}

} // namespace deepspeed::report
