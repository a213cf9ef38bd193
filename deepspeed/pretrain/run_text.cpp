// What a run says about itself before its first and after its last step.
#include "deepspeed/pretrain/run_text.h"

#include <cmath>
#include <cstdlib>
#include <filesystem>

#include "deepspeed/base/error.h"
#include "deepspeed/base/json.h"
#include "deepspeed/base/log.h"
#include "deepspeed/base/number_text.h"
#include "deepspeed/base/shell_word.h"
#include "deepspeed/checkpoint/layout.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/flat/parallel.h"
#include "deepspeed/kernels/isa.h"
#include "deepspeed/machine/stop_signal.h"
#include "deepspeed/machine/system_info.h"
#include "deepspeed/pretrain/profiler.h"
#include "deepspeed/report/html_report.h"
#include "deepspeed/report/metrics.h"
#include "deepspeed/report/svg_plot.h"

namespace deepspeed::pretrain {
namespace {

using base::format_count;

int64_t parameter_count(const TrainedModel& trained) {
  int64_t count = 0;
  for (const at::Tensor& parameter : trained.model()->parameters()) {
    count += parameter.numel();
  }
  return count;
}

std::string describe(const TextSource& source) {
  return source.path + " (" +
      format_count(static_cast<int64_t>(source.cache->size())) + " lines, " +
      format_count(static_cast<int64_t>(source.cache->tokens())) + " tokens, " +
      source.files + ")";
}

// The first of them; the rest is counted.
std::string describe(const std::vector<text::LeftOut>& left_out) {
  constexpr size_t kShown = 6;
  std::string text;
  for (size_t i = 0; i < left_out.size() && i < kShown; ++i) {
    text += (i == 0 ? "" : ", ") + left_out[i].name + " (" +
        left_out[i].reason + ")";
  }
  return left_out.size() <= kShown
      ? text
      : text + ", and " + std::to_string(left_out.size() - kShown) + " more";
}

std::string model_text(const settings::Settings& settings) {
  const settings::ModelSettings& m = settings.model;
  return "RoBERTa, " + std::to_string(m.num_layers) + " layers, hidden " +
      std::to_string(m.h_dim) + ", " + std::to_string(m.num_heads) +
      " heads, feed-forward " + std::to_string(m.ff_dim);
}

std::string machine_text() {
  const int64_t threads = flat::threads();
  return machine::cpu_model() + ", " + std::to_string(threads) +
      (threads == 1 ? " thread, " : " threads, ") + kernels::active_isa();
}

std::string optimizer_text(const RunStart& run) {
  const settings::Settings& settings = run.settings;
  const settings::OptimizerSettings& o = settings.optimizer;
  base::Json resolved = base::Json::object(); // of a ds_config.json
  if (run.engine != nullptr) {
    resolved = base::parse_json(config::print_config(*run.engine), "");
  }
  const auto type = [&](const char* block, const std::string& otherwise) {
    return resolved.contains(block) ? resolved[block].value("type", otherwise)
                                    : otherwise;
  };
  std::string text = type("optimizer", "Adam") + ", learning rate " +
      base::format_short(o.learning_rate, 4) + " " +
      type("scheduler", o.lr_scheduler_type);
  if (o.warmup_steps > 0 && !resolved.contains("scheduler")) {
    text += " with " + format_count(o.warmup_steps) + " warm-up steps";
  }
  if (o.max_grad_norm > 0) {
    text += ", clipped to norm " + base::format_short(o.max_grad_norm, 4);
  }
  return text + ", " + settings.machine.dtype;
}

std::string engine_text(const RunStart& run) {
  const settings::EngineSettings& engine = run.settings.engine;
  std::string text = "ZeRO stage " + std::to_string(engine.zero_stage) + ", " +
      std::to_string(run.ranks) + (run.ranks == 1 ? " rank" : " ranks");
  if (run.ranks > 1) {
    text += " over " + run.transport;
  }
  if (engine.offload_optimizer == "cpu") {
    text += ", optimizer in host memory (where it is anyway on the CPU)";
  }
  return text;
}

report::Rows settings_rows(settings::Settings settings) {
  report::Rows rows;
  for (const settings::Setting& field : settings::fields_of(settings)) {
    if (field.is_flag && field.stored &&
        (settings.engine.enabled || !field.engine_only)) {
      rows.emplace_back(field.name, settings::value_text(field));
    }
  }
  return rows;
}

std::vector<report::Point> curve(
    const std::vector<report::MetricsRecord>& metrics,
    const std::string& name) {
  std::vector<report::Point> points;
  for (const report::MetricsRecord& record : metrics) {
    const double value = record.value(name);
    if (std::isfinite(value)) {
      points.push_back({static_cast<double>(record.step), value});
    }
  }
  return points;
}

std::string shown(const std::optional<double>& value) {
  return value ? base::format_short(*value, 5) : "not measured";
}

std::string speed_text(const Speed& speed) {
  const std::string text =
      format_count(static_cast<int64_t>(speed.tokens)) + " tokens/s";
  return speed.peak > 0
      ? text + ", " + utilization_text(speed.flops, speed.peak)
      : text;
}

// None if the file is not there or cannot be read: it is not worth an end.
std::vector<double> logged_losses(const std::string& path) {
  std::vector<double> losses;
  try {
    for (const report::Point& point :
         curve(report::read_metrics(path), "loss")) {
      losses.push_back(point.y);
    }
  } catch (const base::Error&) {
  }
  return losses;
}

} // namespace

report::Rows start_table(const RunStart& run) {
  const settings::Settings& settings = run.settings;
  const settings::OptimizerSettings& o = settings.optimizer;
  const int64_t parameters = parameter_count(run.trained);
  report::Rows rows{
      {"Model", model_text(settings)},
      {"Parameters", format_count(parameters)},
      {"Data", describe(run.data.train())}};
  if (run.data.validation() != nullptr) {
    rows.emplace_back("Validation", describe(*run.data.validation()));
  }
  if (!run.data.left_out().empty()) {
    rows.emplace_back("Left out", describe(run.data.left_out()));
  }
  rows.emplace_back(
      "Batch",
      std::to_string(o.batch_size * o.gradient_accumulation_steps * run.ranks) +
          " lines = " + std::to_string(o.batch_size) + " x " +
          std::to_string(o.gradient_accumulation_steps) + " micro batches" +
          (run.ranks > 1 ? " x " + std::to_string(run.ranks) + " ranks" : "") +
          (o.gradient_accumulation_steps * run.ranks == 1 ? ""
               : o.balance_batches ? ", balanced by tokens"
                                   : ", in the order of the samples"));
  rows.emplace_back(
      "Steps",
      format_count(run.first_step) + " done, until " +
          format_count(settings.run.num_iterations));
  rows.emplace_back("Optimizer", optimizer_text(run));
  if (settings.engine.enabled) {
    rows.emplace_back("Engine", engine_text(run));
  }
  rows.emplace_back("Machine", machine_text());
  if (!run.experiment.empty()) {
    rows.emplace_back("Output", run.experiment);
    rows.emplace_back("Stop", "Ctrl-C finishes the step, saves, and exits");
  }
  return rows;
}

namespace {

// A program of ours, as this one was started: by a path, or found in PATH.
std::string command_of(const std::string& program) {
  const std::string own = program_invocation_name;
  return base::shell_word(own.substr(0, own.rfind('/') + 1) + program);
}

// As this run was started: the launcher says how, with hosts and slots.
std::string training_command(const settings::Settings& settings) {
  if (!settings.engine.enabled) {
    return command_of("train_bert");
  }
  const std::string program = "train_bert_ds";
  const char* command = std::getenv("DS_LAUNCH_COMMAND");
  return command != nullptr && std::string_view(command).ends_with(program)
      ? command
      : command_of("deepspeed") + " " + program;
}

} // namespace

report::EndSummary end_summary(const RunResult& result) {
  report::EndSummary summary;
  double seconds = 0;
  for (const auto& phase : result.phases) {
    seconds += phase.second;
  }
  summary.title = result.signal != 0
      ? "Stopped by " + std::string(machine::signal_name(result.signal)) +
          " after step " + format_count(result.step) +
          (result.saved ? ", saved" : ", not saved")
      : "Finished after " + format_count(result.step) + " steps in " +
          base::format_duration(seconds);
  summary.loss = result.loss;
  summary.validation_loss = result.validation_loss;
  summary.losses = logged_losses(result.experiment.metrics_path());
  summary.phases = result.phases;
  if (result.speed.tokens > 0) {
    summary.rows.emplace_back("Speed", speed_text(result.speed));
  }
  summary.rows.emplace_back("Report", result.experiment.report_path());
  const std::string folder = base::shell_word(result.experiment.path());
  // What was stopped has steps left; what has finished needs a new end.
  summary.next_commands.push_back(
      training_command(result.settings) + " --load_checkpoint_dir " + folder +
      (result.signal != 0 ? ""
                          : " --num_iterations " +
               std::to_string(2 * result.settings.run.num_iterations)));
  const std::string& exported = result.settings.run.export_dir;
  summary.next_commands.push_back(
      command_of("fill_mask") + " " +
      (exported.empty() || result.signal != 0 ? folder
                                              : base::shell_word(exported)) +
      " \"The capital of France is <mask>.\"");
  summary.next_commands.push_back("tensorboard --logdir " + folder);
  return summary;
}

void write_report(const RunResult& result) {
  try {
    report::ReportPage page;
    page.title =
        std::filesystem::path(result.experiment.path()).filename().string();
    page.subtitle = model_text(result.settings) + "; " +
        result.data.train().path + "; " + format_count(result.step) + " steps";
    page.metrics = report::read_metrics(result.experiment.metrics_path());
    page.numbers = {
        {"Steps", format_count(result.step)},
        {"Training loss", shown(result.loss)},
        {"Validation loss", shown(result.validation_loss)},
        {"Tokens per second",
         format_count(static_cast<int64_t>(result.speed.tokens))},
        {"Parameters", format_count(parameter_count(result.trained))}};
    if (result.speed.peak > 0) {
      page.numbers.emplace_back(
          "FLOPs utilization",
          base::format_short(100 * result.speed.flops / result.speed.peak, 3) +
              " %");
    }
    page.settings = settings_rows(result.settings);
    page.machine = {
        {"Processor", machine_text()},
        {"Peak memory", base::format_bytes(machine::peak_memory())}};
    report::write_html_report(result.experiment.report_path(), page);
    file::write_file_atomically(
        checkpoint::join(result.experiment.path(), checkpoint::kLossCurveFile),
        report::loss_curve_svg(
            curve(page.metrics, "loss"), curve(page.metrics, "eval_loss")));
  } catch (const base::Error& error) {
    base::log_warning("no report was written\n" + error.report());
  }
}

std::string recovery_hint(
    const settings::Settings& settings,
    const std::string& folder,
    int64_t saved_step) {
  const settings::OptimizerSettings& o = settings.optimizer;
  // Far above what trains any model of this kind, the rate alone is wrong.
  constexpr double kHigh = 1e-3;
  const double rate = o.learning_rate > kHigh
      ? settings::OptimizerSettings().learning_rate
      : o.learning_rate / 10;
  std::string flags = settings.engine.deepspeed_config.empty()
      ? "--learning_rate " + base::format_short(rate, 4)
      : "a smaller lr in " + settings.engine.deepspeed_config;
  if (o.max_grad_norm == 0 && settings.engine.deepspeed_config.empty()) {
    flags += " --max_grad_norm 1";
  }
  return saved_step < 0
      ? "nothing good was saved: start again with " + flags
      : "the last good checkpoint is of step " + std::to_string(saved_step) +
          ": --load_checkpoint_dir " + base::shell_word(folder) + " " + flags;
}

} // namespace deepspeed::pretrain
