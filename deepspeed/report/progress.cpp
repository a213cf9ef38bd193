// The progress of a run on the screen.
#include "deepspeed/report/progress.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <utility>
#include <vector>

#include "deepspeed/base/number_text.h"

namespace deepspeed::report {
namespace {

constexpr double kRedrawSeconds = 0.2;
constexpr double kSilenceSeconds = 60;
constexpr const char* kClearLine = "\r\x1b[K";

std::string print(const char* format, double value) {
  std::array<char, 48> text{};
  std::snprintf(text.data(), text.size(), format, value);
  return text.data();
}

std::string step_part(int64_t step, int64_t total) {
  const std::string all = std::to_string(total);
  std::string done = std::to_string(step);
  if (done.size() < all.size()) {
    done.insert(0, all.size() - done.size(), ' ');
  }
  const double percent = total > 0 ? 100.0 * step / total : 0.0;
  return "step " + done + "/" + all + " " + print("%4.1f%%", percent);
}

int terminal_columns() {
  const char* term = std::getenv("TERM");
  if (::isatty(STDERR_FILENO) == 0 || term == nullptr ||
      std::string_view(term) == "dumb") {
    return 0;
  }
  winsize size{};
  const bool known = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0;
  return known && size.ws_col > 0 ? size.ws_col : 80;
}

void write_to_stderr(std::string_view text) {
  // A progress line is not worth stopping for: a closed terminal is fine.
  while (!text.empty()) {
    const ssize_t n = ::write(STDERR_FILENO, text.data(), text.size());
    if (n <= 0) {
      return;
    }
    text.remove_prefix(static_cast<size_t>(n));
  }
}

} // namespace

std::string status_line(
    const StepStatus& status,
    int64_t total_steps,
    double seconds_left,
    int columns) {
  // A part and its rank: the higher, the sooner it is left out.
  std::vector<std::pair<std::string, int>> parts;
  parts.emplace_back(step_part(status.step, total_steps), 0);
  const auto add = [&](int rank, const std::string& text) {
    parts.emplace_back(" | " + text, rank);
  };
  if (status.loss) {
    add(1, print("loss %.4f", *status.loss));
  }
  if (status.learning_rate) {
    add(4, "lr " + base::format_short(*status.learning_rate, 3));
  }
  if (status.grad_norm) {
    add(5, print("gnorm %.2f", *status.grad_norm));
  }
  if (status.tokens_per_second) {
    add(3, base::format_rate(*status.tokens_per_second) + " tok/s");
  }
  if (status.memory_bytes > 0) {
    add(6, "mem " + base::format_bytes(status.memory_bytes));
  }
  if (seconds_left >= 0) {
    add(2, "ETA " + base::format_duration(seconds_left));
  }
  const auto joined = [&](int highest_rank) {
    std::string line;
    for (const auto& [text, rank] : parts) {
      line += rank <= highest_rank ? text : "";
    }
    return line;
  };
  int highest_rank = 6;
  while (columns > 0 && highest_rank > 0 &&
         joined(highest_rank).size() > static_cast<size_t>(columns)) {
    --highest_rank;
  }
  return joined(highest_rank);
}

ProgressOptions progress_on_stderr(int64_t first_step, int64_t total_steps) {
  ProgressOptions options;
  options.first_step = first_step;
  options.total_steps = total_steps;
  options.columns = terminal_columns();
  options.write = write_to_stderr;
  options.now = [] {
    return std::chrono::duration<double>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  };
  return options;
}

Progress::Progress(ProgressOptions options)
    : options_(std::move(options)),
      start_(options_.now()),
      last_output_(start_) {}

Progress::~Progress() {
  finish();
}

void Progress::step(const StepStatus& status, bool log) {
  last_ = status;
  pending_ = true;
  const double silence = options_.now() - last_output_;
  const bool terminal = options_.columns > 0;
  if (terminal ? !drawn_ || silence >= kRedrawSeconds
               : log || silence >= kSilenceSeconds) {
    draw();
  }
}

void Progress::draw() {
  const double now = options_.now();
  const int64_t done = last_.step - options_.first_step;
  const double seconds_left = done > 0
      ? (now - start_) / static_cast<double>(done) *
          static_cast<double>(options_.total_steps - last_.step)
      : -1;
  const bool terminal = options_.columns > 0;
  // The last column stays free: some terminals wrap there.
  const std::string line = status_line(
      last_,
      options_.total_steps,
      seconds_left,
      terminal ? options_.columns - 1 : 0);
  options_.write(terminal ? kClearLine + line : line + "\n");
  last_output_ = now;
  drawn_ = terminal;
  pending_ = false;
}

void Progress::message(std::string_view text) {
  std::string line(drawn_ ? kClearLine : "");
  line += text;
  if (!text.ends_with('\n')) {
    line += '\n';
  }
  options_.write(line);
  if (drawn_) {
    draw();
  }
}

void Progress::finish() {
  if (pending_) {
    draw();
  }
  if (drawn_) {
    options_.write("\n");
    drawn_ = false;
  }
}

} // namespace deepspeed::report
