// All settings of a training run, with their defaults.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

namespace deepspeed::settings {

// Where a run lives. Exactly one of the first two is set.
struct FolderSettings {
  // A new experiment folder is made in this one.
  std::string checkpoint_dir;
  // An experiment folder to go on with, or a checkpoint in one.
  std::string load_checkpoint_dir;
  // The folder in checkpoint_dir: made, or gone on with if it is there. Empty:
  // a new name.
  std::string experiment;
  // --export may take an older checkpoint than the newest, if that is damaged.
  bool newest_whole = false;
};

// What is learned from.
struct DataSettings {
  // A name, a text file, or a folder of text files.
  std::string dataset = "encyclopedia";
  // Where names of data sets and tokenizers are looked up first.
  std::string data_dir;
  // The field that holds the text in JSON and CSV, see text/text_format.h.
  std::string text_column = "text";
  // Text for evaluation; empty: the held-out part of the data set, if any.
  std::string validation_file;
  std::string tokenizer = "roberta-base";
  // Tokens of one sample with <s> and </s>; longer lines are cut.
  int64_t max_seq_length = 512;
  // Share of the tokens of a sample that are predicted.
  double mask_prob = 0.15;
  // Share of the predicted tokens that are replaced with a random one.
  double random_replace_prob = 0.1;
  // Share of the predicted tokens that stay as they are.
  double unmask_replace_prob = 0.1;
  // What a resume may find changed: none or dataset.
  std::string allow_change = "none";
};

// The shape of the RoBERTa encoder.
struct ModelSettings {
  int64_t num_layers = 6;
  int64_t num_heads = 8;
  // Width of the feed-forward layer.
  int64_t ff_dim = 512;
  // Width of the hidden states; a multiple of num_heads.
  int64_t h_dim = 256;
  // Probability, for hidden states and attention alike.
  double dropout = 0.1;
};

// How the weights are updated.
struct OptimizerSettings {
  // Samples of one micro batch.
  int64_t batch_size = 8;
  // Micro batches of one step.
  int64_t gradient_accumulation_steps = 1;
  // The micro batches of a step have nearly as many tokens each, whichever rank
  // they are of. False: they are slices of the order of the samples, as in
  // experiments of before this setting.
  bool balance_batches = true;
  double learning_rate = 1e-4;
  double weight_decay = 0.0;
  double adam_beta1 = 0.9;
  double adam_beta2 = 0.999;
  double adam_epsilon = 1e-8;
  // Gradients are scaled down to this norm; 0: never.
  double max_grad_norm = 0.0;
  // constant, constant_with_warmup, linear or cosine.
  std::string lr_scheduler_type = "constant";
  int64_t warmup_steps = 0;
};

// How long a run takes, and what it leaves behind.
struct RunSettings {
  // The step at which training ends.
  int64_t num_iterations = 10000;
  int64_t checkpoint_every = 1000;
  int64_t log_every = 10;
  // Steps between evaluations; 0: only at the end.
  int64_t eval_every = 0;
  // Checkpoints that are kept; 0: all.
  int64_t keep_last = 0;
  // Folder for a copy that Hugging Face's transformers reads; empty: none.
  std::string export_dir;
  int64_t seed = 42;
};

// How the work is done on this machine.
struct MachineSettings {
  // fp32, bf16 or fp16 (the latter two with fp32 master weights).
  std::string dtype = "fp32";
  // fast, or reference: plain libtorch operators, slow, for comparison.
  std::string implementation = "fast";
  // 0: all cores this process may use.
  int64_t num_threads = 0;
  // Set by launchers; -1: no launcher.
  int64_t local_rank = -1;
  // Print all settings as JSON and exit.
  bool print_config = false;
  // Steps to record for profile.json; 0: none.
  int64_t profile = 0;
  // Check files, settings and memory, make one step, write nothing, exit.
  bool dry_run = false;
};

// What train_bert_ds adds: how DeepSpeed's engine works.
struct EngineSettings {
  // The run uses the engine; the fields below mean something.
  bool enabled = false;
  // A ds_config.json; empty: HelloDeepSpeed's configuration.
  std::string deepspeed_config;
  int64_t zero_stage = 1;
  // none or cpu.
  std::string offload_optimizer = "cpu";
};

// What the run was trained on last: not flags, but what a resume compares.
// Empty or 0: not known.
struct TrainedData {
  std::string dataset_hash; // of text, tokenizer and text_column
  int64_t dataset_bytes = 0; // of the files
  std::string validation_hash;
  std::string tokenizer_hash;
};

struct Settings {
  FolderSettings folders;
  DataSettings data;
  ModelSettings model;
  OptimizerSettings optimizer;
  RunSettings run;
  MachineSettings machine;
  EngineSettings engine;
  TrainedData trained_data;
};

// train_bert_ds' defaults: with the engine, bf16, and DeepSpeed's clipping.
Settings engine_defaults();

// One setting by its name: flags, help and hparams.json are made from this.
struct Setting {
  using Value = std::variant<int64_t*, double*, bool*, std::string*>;

  std::string name; // the flag without "--", and the key in hparams.json
  std::string group; // heading in the help
  Value value; // points into the Settings given to fields_of()
  std::string help;
  std::vector<std::string> choices; // of a text setting; empty: anything
  bool stored = true; // in hparams.json
  bool shapes_model = false; // fixed for the life of an experiment
  bool engine_only = false; // a setting of train_bert_ds
  bool is_flag = true; // false: only in hparams.json
  bool is_path = false;
};

// The values that name files become absolute, as seen from the current folder.
// A data set or tokenizer that is not there stays: it is a name to look up.
void make_paths_absolute(Settings& settings);

// All fields: the 13 that HelloDeepSpeed stores first, in its order. The
// pointers are valid as long as `settings`.
std::vector<Setting> fields_of(Settings& settings);

// The value as hparams.json has it, but text without quotes: 0.15, 1e-08.
std::string value_text(const Setting& field);

// A setting that differs between two Settings.
struct SettingChange {
  std::string name;
  std::string from;
  std::string to;
};

// The stored fields that differ, in the order of fields_of().
std::vector<SettingChange> differences(
    const Settings& from,
    const Settings& to);

// Throws Error(config) for the first value that is out of its range or does not
// go together with another one, with the flag and the value.
// With a ds_config.json, which may have a scheduler, without
// validate_schedule().
void validate(const Settings& settings);

// Error(config) for warm-up steps that the learning rate's schedule has not.
void validate_schedule(const OptimizerSettings& optimizer);

} // namespace deepspeed::settings
