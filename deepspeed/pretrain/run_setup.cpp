// How a run comes about: ranks, settings, data, experiment folder.
#include <algorithm>
#include <cstdlib>

#include "deepspeed/base/error.h"
#include "deepspeed/base/log.h"
#include "deepspeed/base/memory_advice.h"
#include "deepspeed/base/number_text.h"
#include "deepspeed/checkpoint/layout.h"
#include "deepspeed/comm/agree.h"
#include "deepspeed/comm/shared_folder.h"
#include "deepspeed/flat/parallel.h"
#include "deepspeed/machine/stop_signal.h"
#include "deepspeed/machine/system_info.h"
#include "deepspeed/ops/cpu/product.h"
#include "deepspeed/pretrain/engine_config.h"
#include "deepspeed/pretrain/memory_plan.h"
#include "deepspeed/pretrain/model_files.h"
#include "deepspeed/pretrain/run.h"
#include "deepspeed/settings/hparams.h"

namespace deepspeed::pretrain {
namespace {

// Says how the settings of a resumed run differ from the stored ones, whether
// by flags or by a changed ds_config.json. The engine itself compares some with
// the checkpoint.
void tell_changes(
    const settings::Settings& stored,
    const settings::Settings& now) {
  const std::set<std::string> told_by_engine{
      "dtype",
      "max_grad_norm",
      "weight_decay",
      "adam_beta1",
      "adam_beta2",
      "adam_epsilon"};
  for (const settings::SettingChange& change :
       settings::differences(stored, now)) {
    if (!now.engine.enabled || !told_by_engine.contains(change.name)) {
      base::log_info(
          "changed: " + change.name + " " + change.from + " -> " + change.to);
    }
  }
}

// What ranks must have alike. Where their files lie may differ between hosts:
// their content is compared.
std::string common_text(settings::Settings settings) {
  for (const settings::Setting& field : settings::fields_of(settings)) {
    if (field.is_path) {
      std::get<std::string*>(field.value)->clear();
    }
  }
  return settings::to_hparams(settings) + "profile " +
      std::to_string(settings.machine.profile); // all meet for it
}

std::string data_text(const settings::TrainedData& data) {
  return "data set " + std::to_string(data.dataset_bytes) + " bytes, hash " +
      data.dataset_hash + "\ntokenizer hash " + data.tokenizer_hash +
      "\ntext for evaluation hash " + data.validation_hash;
}

settings::Settings defaults_of(const settings::Options& options) {
  return options.settings.engine.enabled ? settings::engine_defaults()
                                         : settings::Settings();
}

std::string hparams_of(const std::string& folder) {
  return checkpoint::join(folder, checkpoint::kHparamsFile);
}

} // namespace

std::string print_config(const settings::Options& options) {
  settings::Options now = options;
  settings::make_paths_absolute(now.settings);
  settings::Settings settings = now.settings;
  const RunFolder folder = find_run_folder(options);
  const std::string resume_from = folder.loads() ? folder.path : "";
  if (!resume_from.empty()) {
    settings::Settings stored =
        settings::read_hparams(hparams_of(resume_from), defaults_of(options));
    settings::make_paths_absolute(stored);
    settings = settings::resume_settings(stored, now).settings;
  }
  settings::validate(settings);
  if (!settings.engine.enabled) {
    return settings::to_hparams(settings) + "\n";
  }
  const int64_t ranks = comm::rank_from_environment().world_size;
  const config::Config config = engine_config(settings, options.given, ranks);
  adopt_config(config, settings);
  return settings::to_hparams(settings) + "\n" + config::print_config(config);
}

Run::Run(const settings::Options& options) : settings_(options.settings) {
  clock_.enter("start");
  settings::validate(settings_);
  base::keep_freed_memory();
  join_ranks();
  // Not before: a rank that waits for others ends at once.
  machine::install_stop_signals(/*speak=*/is_root());
  find_folder(options);
  comm::agree(*ranks_, [&] { take_settings(options); });
  set_threads();
  ranks_->require_equal("the settings", common_text(settings_));
  open_data();
  tell_memory_plan();
  open_experiment();
}

void Run::take_settings(const settings::Options& options) {
  settings::Options now = options;
  settings::make_paths_absolute(now.settings);
  settings_ = now.settings;
  if (run_folder_.loads()) {
    const std::string& resume_from = run_folder_.path;
    if (now.settings.machine.dry_run) { // nothing is written
      report::Experiment::check_folder(resume_from);
    } else if (is_root()) {
      experiment_ = report::Experiment::open(resume_from);
    }
    stored_ =
        settings::read_hparams(hparams_of(resume_from), defaults_of(options));
    // Stored relative by older versions.
    settings::make_paths_absolute(*stored_);
    settings_ = settings::resume_settings(*stored_, now).settings;
  }
  settings::validate(settings_);
  if (!stored_ && settings_.data.allow_change != "none") {
    throw base::Error(
        base::ExitCode::usage,
        "--allow_change " + settings_.data.allow_change +
            " belongs to a run that goes on",
        "--checkpoint_dir",
        "leave it out, or give --load_checkpoint_dir");
  }
  if (settings_.engine.enabled) {
    engine_config_ =
        pretrain::engine_config(settings_, options.given, ranks_->size());
    adopt_config(*engine_config_, settings_);
  }
  if (is_root() && !settings_.run.export_dir.empty()) {
    check_export_folder(settings_.run.export_dir);
  }
  if (stored_) {
    tell_changes(*stored_, settings_);
  }
}

void Run::open_data() {
  comm::agree(*ranks_, [&] {
    data_ = std::make_unique<Data>(
        settings_, bert::RobertaConfig{}.vocab_size, ranks_->size());
  });
  settings_.trained_data = data_->identity();
  ranks_->require_equal("the data", data_text(settings_.trained_data));
  if (stored_) {
    comm::agree(*ranks_, [&] { check_trained_data(*stored_, settings_); });
  }
}

// Before the model is there. Other ranks need about as much as rank 0.
void Run::tell_memory_plan() const {
  if (!is_root()) {
    return;
  }
  const bert::RobertaConfig model = model_config(settings_.model);
  MemoryPlanInputs inputs{settings_, model, *data_};
  inputs.rank = ranks_->rank();
  inputs.ranks = ranks_->size();
  inputs.shared_memory = ranks_->name() == "shared memory";
  if (engine_config_) {
    const config::Optimizer& optimizer = engine_config_->optimizer;
    if (optimizer.type == config::OptimizerType::sgd) {
      inputs.moments = optimizer.params.momentum != 0 ? 1 : 0;
    }
    inputs.whole_gradients = engine_config_->keeps_whole_gradients();
  }
  const MemoryPlan plan = plan_memory(inputs);
  base::log_info("memory plan: " + memory_plan_text(plan));
  const double wanted = local_ranks_ * (plan.total() - plan.program);
  const auto available = static_cast<double>(machine::memory_info().available);
  if (wanted > available) {
    base::log_warning(
        "the ranks of this host want " +
        base::format_bytes(static_cast<uint64_t>(wanted)) + " more, and " +
        base::format_bytes(static_cast<uint64_t>(available)) +
        " are available: use a smaller --batch_size, or fewer ranks");
  }
}

void Run::join_ranks() {
  const comm::RankInfo info = comm::rank_from_environment();
  if (!settings_.engine.enabled && info.world_size > 1) {
    throw base::Error(
        base::ExitCode::config,
        "train_bert is a single process, and this is rank " +
            std::to_string(info.rank) + " of " +
            std::to_string(info.world_size) +
            ": each would train a run of its own",
        "",
        "start train_bert_ds in place of train_bert; it has the same flags");
  }
  base::set_quiet(info.rank != 0);
  local_ranks_ = info.local_world_size;
  ranks_ = comm::make_process_group(info);
}

void Run::set_threads() {
  // A launcher that has shared out the cores says so.
  const int cores = std::getenv("OMP_NUM_THREADS") != nullptr
      ? at::get_num_threads()
      : std::max(1, machine::usable_cores() / local_ranks_);
  const int threads = settings_.machine.num_threads > 0
      ? static_cast<int>(settings_.machine.num_threads)
      : cores;
  const bool fast =
      model_options().implementation == bert::Implementation::fast;
  if (fast && ops::cpu::has_own_product(compute_dtype())) {
    flat::use_own_threads(threads);
  } else {
    at::set_num_threads(threads);
  }
}

// Rank 0 looks; the others do what it found.
void Run::find_folder(const settings::Options& options) {
  comm::agree_at_root(*ranks_, [&] { run_folder_ = find_run_folder(options); });
  const std::string found = ranks_->broadcast_text(to_text(run_folder_), 0);
  if (!is_root()) {
    run_folder_ = run_folder_of(found);
  }
}

// One folder for all ranks: rank 0 makes it.
void Run::open_experiment() {
  comm::require_shared_folder(
      *ranks_,
      run_folder_.loads() ? run_folder_.path
                          : settings_.folders.checkpoint_dir);
  if (settings_.machine.dry_run) {
    experiment_.reset();
    return;
  }
  comm::agree(*ranks_, [&] {
    if (!is_root() || experiment_) {
      return;
    }
    write_notes(run_folder_);
    if (!run_folder_.exists) {
      experiment_ = report::Experiment::create(run_folder_.path, settings_);
      base::log_info("experiment folder: " + experiment_->path());
      return;
    }
    experiment_ = report::Experiment::open(run_folder_.path);
    if (!checkpoint::find_checkpoint(run_folder_.path).kinds.empty()) {
      throw base::Error(
          base::ExitCode::cannot_create,
          "another run has just saved a checkpoint in this folder",
          run_folder_.path,
          "start it again to go on with that one");
    }
    experiment_->save_settings(settings_);
  });
  folder_ = ranks_->broadcast_text(experiment_ ? experiment_->path() : "", 0);
}

// What the run goes on with; what is newer is left behind.
LoopState Run::load() {
  const LoadedState loaded = trained_->load(run_folder_.from);
  const settings::RunSettings& run = settings_.run;
  if (!loaded.passed_over.empty() && !run.export_dir.empty() &&
      loaded.loop.step >= run.num_iterations &&
      !settings_.folders.newest_whole) {
    // It would be exported as it is, in place of the one that was meant.
    throw base::Error(
        base::ExitCode::data,
        "the newest checkpoint cannot be exported: " + loaded.passed_over[0],
        run_folder_.path,
        checkpoint::join(run_folder_.path, loaded.name) +
            " is the newest that is whole: give it to --load_checkpoint_dir, "
            "or --newest_whole");
  }
  base::log_info(
      "resuming after step " + std::to_string(loaded.loop.step) + " of " +
      std::to_string(run.num_iterations) +
      (loaded.loop.step < run.num_iterations
           ? ""
           : ": no step is left (--num_iterations sets another end)"));
  comm::agree(*ranks_, [&] {
    if (experiment_) {
      for (const std::string& line : checkpoint::set_newer_aside(
               run_folder_.path, trained_->kind(), loaded.name)) {
        base::log_info(line);
      }
      // Not before: what was named is `latest` now.
      write_notes(run_folder_);
      // Not before: a run that cannot go on leaves the folder as it was.
      experiment_->save_settings(settings_);
    }
  });
  return loaded.loop;
}

} // namespace deepspeed::pretrain
