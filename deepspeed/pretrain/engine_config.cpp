// The settings of train_bert_ds and the engine's configuration, which say some
// things twice.
#include "deepspeed/pretrain/engine_config.h"

#include <algorithm>
#include <array>

#include "deepspeed/base/error.h"
#include "deepspeed/base/json.h"

namespace deepspeed::pretrain {
namespace {

using base::Json;

config::Dtype dtype_of(const std::string& name) {
  return name == "bf16" ? config::Dtype::bf16
      : name == "fp16"  ? config::Dtype::fp16
                        : config::Dtype::fp32;
}

config::Context context_of(const settings::Settings& settings, int64_t ranks) {
  const settings::OptimizerSettings& o = settings.optimizer;
  config::Context context;
  context.world_size = ranks;
  context.dtype = dtype_of(settings.machine.dtype);
  context.micro_batch_size = o.batch_size;
  context.gradient_accumulation_steps = o.gradient_accumulation_steps;
  context.gradient_clipping = o.max_grad_norm;
  context.lr = o.learning_rate;
  context.betas = std::vector<double>{o.adam_beta1, o.adam_beta2};
  context.eps = o.adam_epsilon;
  context.weight_decay = o.weight_decay;
  context.warmup_steps = o.warmup_steps;
  context.total_steps = settings.run.num_iterations;
  context.hidden_size = settings.model.h_dim;
  context.zero_stage = settings.engine.zero_stage;
  context.offload_optimizer = settings.engine.offload_optimizer == "cpu"
      ? config::OffloadDevice::cpu
      : config::OffloadDevice::none;
  config::Optimizer& adam = context.optimizer.emplace();
  adam.type = config::OptimizerType::adam;
  adam.params.lr = o.learning_rate;
  adam.params.betas = {o.adam_beta1, o.adam_beta2};
  adam.params.eps = o.adam_epsilon;
  adam.params.weight_decay = o.weight_decay;
  return context;
}

// HelloDeepSpeed's dictionary; keys of ours only where a flag says something
// else than the configuration would without them.
Json hello_config(const settings::Settings& settings) {
  const settings::OptimizerSettings& o = settings.optimizer;
  const config::Config defaults;
  const config::OptimizerParams& without = defaults.optimizer.params;
  Json params = {{"lr", o.learning_rate}};
  if (std::array{o.adam_beta1, o.adam_beta2} != without.betas) {
    params["betas"] = {o.adam_beta1, o.adam_beta2};
  }
  if (o.adam_epsilon != without.eps) {
    params["eps"] = o.adam_epsilon;
  }
  if (o.weight_decay != without.weight_decay) {
    params["weight_decay"] = o.weight_decay;
  }
  Json json = {
      {"train_micro_batch_size_per_gpu", o.batch_size},
      {"optimizer", {{"type", "Adam"}, {"params", params}}}};
  if (settings.machine.dtype != "fp32") {
    json[settings.machine.dtype] = {{"enabled", true}};
  }
  json["zero_optimization"] = {{"stage", settings.engine.zero_stage}};
  if (settings.engine.zero_stage > 0 &&
      settings.engine.offload_optimizer != "none") {
    json["zero_optimization"]["offload_optimizer"] = {
        {"device", settings.engine.offload_optimizer}};
  }
  if (o.gradient_accumulation_steps != 1) {
    json["gradient_accumulation_steps"] = o.gradient_accumulation_steps;
  }
  if (o.max_grad_norm != defaults.gradient_clipping) {
    json["gradient_clipping"] = o.max_grad_norm;
  }
  return json;
}

// A flag that the file contradicts.
void check_flags(
    const settings::Settings& settings,
    const settings::Settings& resolved,
    const std::set<std::string>& given) {
  for (const settings::SettingChange& change :
       settings::differences(settings, resolved)) {
    if (given.contains(change.name)) {
      throw base::Error(
          base::ExitCode::config,
          "--" + change.name + " " + change.from +
              ", but the configuration says " + change.to,
          settings.engine.deepspeed_config,
          "leave the flag out, or write \"auto\" in the file");
    }
  }
}

[[noreturn]] void refuse_beside_scheduler(
    const settings::Settings& settings,
    const std::string& what,
    const std::string& hint) {
  throw base::Error(
      base::ExitCode::config, what, settings.engine.deepspeed_config, hint);
}

// Flags of the learning rate beside a scheduler of the file, which takes them
// where it says "auto" and else decides alone.
void check_scheduler(
    const settings::Settings& settings,
    const config::Config& config,
    const std::set<std::string>& given) {
  using config::SchedulerType;
  const SchedulerType type = config.scheduler.type;
  const config::SchedulerParams& params = config.scheduler.params;
  const settings::OptimizerSettings& o = settings.optimizer;
  if (given.contains("lr_scheduler_type")) {
    refuse_beside_scheduler(
        settings,
        "--lr_scheduler_type is given, but the configuration has a scheduler",
        "leave one of them out");
  }
  const bool warms_up =
      type != SchedulerType::OneCycle && type != SchedulerType::LRRangeTest;
  if (given.contains("warmup_steps") &&
      (!warms_up || params.warmup_num_steps != o.warmup_steps)) {
    refuse_beside_scheduler(
        settings,
        "--warmup_steps " + std::to_string(o.warmup_steps) +
            ", but the configuration's scheduler " +
            (warms_up ? "says warmup_num_steps " +
                     std::to_string(params.warmup_num_steps)
                      : "has no warm-up"),
        warms_up ? "leave the flag out, or write \"auto\" in the file"
                 : "leave the flag out");
  }
  const std::vector<double>& peak = params.warmup_max_lr;
  const bool other_peak = std::any_of(peak.begin(), peak.end(), [&](double lr) {
    return lr != o.learning_rate;
  });
  if (given.contains("learning_rate") && (!warms_up || other_peak)) {
    refuse_beside_scheduler(
        settings,
        "--learning_rate has no effect: the configuration's scheduler sets " +
            std::string(warms_up ? "warmup_max_lr" : "its own rates"),
        warms_up ? "leave the flag out, or write \"auto\" in the file"
                 : "leave the flag out");
  }
}

} // namespace

std::vector<settings::SettingChange> config_changes(
    const std::string& saved,
    const std::string& now) {
  const std::set<std::string> told_elsewhere{
      "/train_batch_size",
      "/train_micro_batch_size_per_gpu",
      "/gradient_accumulation_steps",
      "/gradient_clipping",
      "/optimizer/params/lr",
      "/optimizer/params/betas/0",
      "/optimizer/params/betas/1",
      "/optimizer/params/eps",
      "/optimizer/params/weight_decay",
      "/fp16/enabled",
      "/bf16/enabled",
      "/zero_optimization/stage",
      "/zero_optimization/offload_optimizer/device"};
  const Json from =
      base::parse_json(saved, "the saved configuration").flatten();
  const Json to = base::parse_json(now, "the configuration").flatten();
  std::set<std::string> paths;
  for (const Json* json : {&from, &to}) {
    for (const auto& [path, value] : json->items()) {
      paths.insert(path);
    }
  }
  std::vector<settings::SettingChange> changes;
  for (const std::string& path : paths) {
    const bool counts = (from.contains(path) && to.contains(path)) ||
        path.starts_with("/optimizer/") || path.starts_with("/scheduler/");
    const Json was = from.value(path, Json());
    const Json is = to.value(path, Json());
    if (!counts || was == is || told_elsewhere.contains(path)) {
      continue;
    }
    std::string name = path.substr(1);
    std::replace(name.begin(), name.end(), '/', '.');
    changes.push_back({name, was.dump(), is.dump()});
  }
  return changes;
}

void adopt_config(const config::Config& config, settings::Settings& settings) {
  settings::OptimizerSettings& o = settings.optimizer;
  o.batch_size = config.train_micro_batch_size_per_gpu;
  o.gradient_accumulation_steps = config.gradient_accumulation_steps;
  o.learning_rate = config.optimizer.params.lr;
  o.weight_decay = config.optimizer.params.weight_decay;
  o.adam_beta1 = config.optimizer.params.betas[0];
  o.adam_beta2 = config.optimizer.params.betas[1];
  o.adam_epsilon = config.optimizer.params.eps;
  o.max_grad_norm = config.gradient_clipping;
  settings.machine.dtype = config::dtype_name(config.dtype());
  settings.engine.zero_stage = config.zero_optimization.stage;
  settings.engine.offload_optimizer =
      config.zero_optimization.offload_optimizer.device ==
          config::OffloadDevice::cpu
      ? "cpu"
      : "none";
}

config::Config engine_config(
    const settings::Settings& settings,
    const std::set<std::string>& given,
    int64_t ranks) {
  const config::Context context = context_of(settings, ranks);
  if (settings.engine.deepspeed_config.empty()) {
    return config::parse_config(
        hello_config(settings), "the flags' configuration", context);
  }
  config::Config config =
      config::read_config(settings.engine.deepspeed_config, context);
  settings::Settings resolved = settings;
  adopt_config(config, resolved);
  check_flags(settings, resolved, given);
  if (config.scheduler.type != config::SchedulerType::none) {
    check_scheduler(settings, config, given);
  } else {
    settings::validate_schedule(settings.optimizer);
  }
  return config;
}

} // namespace deepspeed::pretrain
