// All settings of a training run: names, help and comparison.
#include "deepspeed/settings/settings.h"

#include <filesystem>
#include <iterator>

#include "deepspeed/base/number_text.h"

namespace deepspeed::settings {
namespace {

constexpr const char* kFolders = "Folders";
constexpr const char* kData = "Data";
constexpr const char* kModel = "Model";
constexpr const char* kOptimizer = "Optimizer";
constexpr const char* kRun = "Run";
constexpr const char* kMachine = "Machine";
constexpr const char* kEngine = "Engine";

constexpr const char* kPaths[] = {
    "dataset",
    "tokenizer",
    "data_dir",
    "validation_file",
    "export",
    "deepspeed_config"};

using Fields = std::vector<Setting>;

// What HelloDeepSpeed's create_experiment_dir stores, in its order.
Fields hello_fields(Settings& s) {
  DataSettings& data = s.data;
  ModelSettings& model = s.model;
  Fields fields{
      {"mask_prob",
       kData,
       &data.mask_prob,
       "share of the tokens that are predicted",
       {}},
      {"random_replace_prob",
       kData,
       &data.random_replace_prob,
       "share of those replaced with a random token",
       {}},
      {"unmask_replace_prob",
       kData,
       &data.unmask_replace_prob,
       "share of those left as they are",
       {}},
      {"max_seq_length",
       kData,
       &data.max_seq_length,
       "tokens of one sample; longer lines are cut",
       {}},
      {"tokenizer",
       kData,
       &data.tokenizer,
       "name or folder of a tokenizer",
       {}},
      {"num_layers", kModel, &model.num_layers, "encoder layers", {}},
      {"num_heads", kModel, &model.num_heads, "attention heads", {}},
      {"ff_dim", kModel, &model.ff_dim, "width of the feed-forward layer", {}},
      {"h_dim",
       kModel,
       &model.h_dim,
       "width of the hidden states; a multiple of num_heads",
       {}},
      {"dropout", kModel, &model.dropout, "dropout probability", {}},
      {"batch_size",
       kOptimizer,
       &s.optimizer.batch_size,
       "samples of one micro batch",
       {}},
      {"num_iterations",
       kRun,
       &s.run.num_iterations,
       "step at which training ends",
       {}},
      {"checkpoint_every",
       kRun,
       &s.run.checkpoint_every,
       "steps between checkpoints",
       {}},
  };
  for (Setting& field : fields) {
    field.shapes_model = field.name == "tokenizer" ||
        (field.group == kModel && field.name != "dropout");
  }
  return fields;
}

Fields data_fields(Settings& s) {
  DataSettings& data = s.data;
  TrainedData& trained = s.trained_data;
  Fields fields{
      {"dataset",
       kData,
       &data.dataset,
       "name of a data set, text file, or folder of text files",
       {}},
      {"data_dir",
       kData,
       &data.data_dir,
       "where names of data sets and tokenizers are looked up first",
       {}},
      {"text_column",
       kData,
       &data.text_column,
       "field of the text in JSON and CSV",
       {}},
      {"validation_file",
       kData,
       &data.validation_file,
       "text for evaluation; none: the held-out part of the data set",
       {}},
      {"dataset_hash", kData, &trained.dataset_hash, "", {}},
      {"dataset_bytes", kData, &trained.dataset_bytes, "", {}},
      {"validation_hash", kData, &trained.validation_hash, "", {}},
      {"tokenizer_hash", kData, &trained.tokenizer_hash, "", {}},
  };
  for (Setting& field : fields) {
    field.is_flag = field.help != "";
  }
  return fields;
}

Fields optimizer_fields(Settings& s) {
  OptimizerSettings& optimizer = s.optimizer;
  return {
      {"gradient_accumulation_steps",
       kOptimizer,
       &optimizer.gradient_accumulation_steps,
       "micro batches of one step",
       {}},
      {"balance_batches",
       kOptimizer,
       &optimizer.balance_batches,
       "a step's micro batches, of all ranks, get nearly equal tokens (on)",
       {}},
      {"learning_rate",
       kOptimizer,
       &optimizer.learning_rate,
       "peak learning rate",
       {}},
      {"weight_decay",
       kOptimizer,
       &optimizer.weight_decay,
       "weight decay of Adam",
       {}},
      {"adam_beta1",
       kOptimizer,
       &optimizer.adam_beta1,
       "decay of the first moment",
       {}},
      {"adam_beta2",
       kOptimizer,
       &optimizer.adam_beta2,
       "decay of the second moment",
       {}},
      {"adam_epsilon",
       kOptimizer,
       &optimizer.adam_epsilon,
       "added to the denominator of Adam",
       {}},
      {"max_grad_norm",
       kOptimizer,
       &optimizer.max_grad_norm,
       "clip gradients to this norm; 0: off",
       {}},
      {"lr_scheduler_type",
       kOptimizer,
       &optimizer.lr_scheduler_type,
       "learning rate over the steps",
       {"constant", "constant_with_warmup", "linear", "cosine"}},
      {"warmup_steps",
       kOptimizer,
       &optimizer.warmup_steps,
       "steps of linear warm-up",
       {}},
  };
}

Fields run_fields(Settings& s) {
  RunSettings& run = s.run;
  return {
      {"log_every", kRun, &run.log_every, "steps between log lines", {}},
      {"eval_every",
       kRun,
       &run.eval_every,
       "steps between evaluations; 0: only at the end",
       {}},
      {"keep_last",
       kRun,
       &run.keep_last,
       "checkpoints that are kept; 0: all",
       {}},
      {"export",
       kRun,
       &run.export_dir,
       "folder for a copy that transformers reads",
       {}},
      {"seed", kRun, &run.seed, "of weights, order, masks and dropout", {}},
  };
}

Fields machine_fields(Settings& s) {
  MachineSettings& machine = s.machine;
  // fp16 needs the engine's loss scaling.
  std::vector<std::string> dtypes{"fp32", "bf16"};
  if (s.engine.enabled) {
    dtypes.emplace_back("fp16");
  }
  Fields fields{
      {"dtype",
       kMachine,
       &machine.dtype,
       "others than fp32 keep fp32 master weights",
       dtypes},
      {"implementation",
       kMachine,
       &machine.implementation,
       "reference: plain libtorch operators, slow",
       {"fast", "reference"}},
      {"num_threads",
       kMachine,
       &machine.num_threads,
       "0: all cores this process may use",
       {}},
  };
  return fields;
}

// Of one start of the program only.
Fields momentary_fields(Settings& s) {
  MachineSettings& machine = s.machine;
  Fields fields{
      {"allow_change",
       kData,
       &s.data.allow_change,
       "what a resume may find changed",
       {"none", "dataset"}},
      {"local_rank",
       kMachine,
       &machine.local_rank,
       "set by launchers; -1: none",
       {}},
      {"print_config",
       kMachine,
       &machine.print_config,
       "print all settings as JSON and exit",
       {}},
      {"profile",
       kMachine,
       &machine.profile,
       "steps to record for profile.json; 0: none",
       {}},
      {"dry_run",
       kMachine,
       &machine.dry_run,
       "check everything, make one step, write nothing, exit",
       {}},
      {"checkpoint_dir",
       kFolders,
       &s.folders.checkpoint_dir,
       "start: a new experiment folder is made in this one",
       {}},
      {"load_checkpoint_dir",
       kFolders,
       &s.folders.load_checkpoint_dir,
       "go on: an experiment folder, or a checkpoint in one",
       {}},
      {"experiment",
       kFolders,
       &s.folders.experiment,
       "name of the folder in checkpoint_dir: made, or gone on with",
       {}},
      {"newest_whole",
       kFolders,
       &s.folders.newest_whole,
       "export an older checkpoint if the newest is damaged",
       {}},
  };
  for (Setting& field : fields) {
    field.stored = false;
  }
  return fields;
}

Fields engine_fields(Settings& s) {
  EngineSettings& engine = s.engine;
  Fields fields{
      {"deepspeed_config",
       kEngine,
       &engine.deepspeed_config,
       "a ds_config.json; flags are what it says \"auto\" for",
       {}},
      {"zero_stage",
       kEngine,
       &engine.zero_stage,
       "ZeRO: 0 nothing, 1 optimizer states, 2 gradients too are sharded",
       {}},
      {"offload_optimizer",
       kEngine,
       &engine.offload_optimizer,
       "where optimizer states lie",
       {"none", "cpu"}},
  };
  for (Setting& field : fields) {
    field.engine_only = true;
  }
  return fields;
}

struct ValueText {
  std::string operator()(const int64_t* value) const {
    return std::to_string(*value);
  }
  std::string operator()(const double* value) const {
    return base::format_exact(*value);
  }
  std::string operator()(const bool* value) const {
    return *value ? "true" : "false";
  }
  std::string operator()(const std::string* value) const {
    return *value;
  }
};

} // namespace

std::vector<Setting> fields_of(Settings& settings) {
  Fields all = hello_fields(settings);
  for (auto* part :
       {data_fields,
        optimizer_fields,
        run_fields,
        machine_fields,
        momentary_fields,
        engine_fields}) {
    Fields fields = part(settings);
    all.insert(
        all.end(),
        std::make_move_iterator(fields.begin()),
        std::make_move_iterator(fields.end()));
  }
  for (Setting& field : all) {
    for (const char* path : kPaths) {
      field.is_path = field.is_path || field.name == path;
    }
  }
  return all;
}

Settings engine_defaults() {
  Settings settings;
  settings.engine.enabled = true;
  settings.machine.dtype = "bf16";
  settings.optimizer.max_grad_norm = 1.0;
  return settings;
}

void make_paths_absolute(Settings& settings) {
  namespace fs = std::filesystem;
  for (const Setting& field : fields_of(settings)) {
    if (!field.is_path) {
      continue;
    }
    std::string& path = *std::get<std::string*>(field.value);
    const bool may_be_a_name =
        field.name == "dataset" || field.name == "tokenizer";
    std::error_code error;
    if (path.empty() || (may_be_a_name && !fs::exists(path, error))) {
      continue;
    }
    const fs::path absolute = fs::absolute(path, error);
    if (!error) {
      path = absolute.lexically_normal();
    }
  }
}

std::string value_text(const Setting& field) {
  return std::visit(ValueText(), field.value);
}

std::vector<SettingChange> differences(
    const Settings& from,
    const Settings& to) {
  Settings old_settings = from;
  Settings new_settings = to;
  const std::vector<Setting> old_fields = fields_of(old_settings);
  const std::vector<Setting> new_fields = fields_of(new_settings);
  std::vector<SettingChange> changes;
  for (size_t i = 0; i < old_fields.size(); ++i) {
    SettingChange change{
        old_fields[i].name,
        value_text(old_fields[i]),
        value_text(new_fields[i])};
    if (old_fields[i].stored && change.from != change.to) {
      changes.push_back(std::move(change));
    }
  }
  return changes;
}

} // namespace deepspeed::settings
