// DeepSpeed's training engine for any torch::nn::Module: mixed precision,
// gradient accumulation, ZeRO stages 0, 1 and 2, and sharded checkpoints.
//
//   deepspeed::Engine engine = deepspeed::initialize(model, "ds_config.json");
//   for (...) {
//     at::Tensor loss = ...;      // model->forward() as ever
//     engine.backward(loss);
//     engine.step();
//   }
//   engine.save_checkpoint("checkpoints");
#pragma once

#include <concepts>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "deepspeed/comm/process_group.h"
#include "deepspeed/config/config.h"
#include "deepspeed/engine/checkpoint_options.h"
#include "deepspeed/flat/torch_headers.h"

namespace deepspeed {

struct EngineState;

// Parameters with settings of their own; what is not given is the
// configuration's.
struct ParamGroup {
  std::vector<at::Tensor> parameters;
  std::optional<double> lr;
  std::optional<double> weight_decay;
};

struct InitializeOptions {
  // Null: the ranks that the launcher's environment variables describe.
  std::shared_ptr<comm::ProcessGroup> ranks;
  // Empty: all parameters that require a gradient, in one group. Parameters
  // that are in no group are not trained; they get rank 0's values and the
  // compute dtype, as the whole module does in DeepSpeed. Groups without
  // parameters go.
  std::vector<ParamGroup> param_groups;
  // The learning rate of the update after `steps` updates, of all groups.
  // Error(config) beside a scheduler in the configuration or a ParamGroup::lr.
  std::function<double(int64_t steps)> learning_rate;
  // How ranks that are joined here communicate, as ProcessGroupOptions'
  // transport: "nccl" for modules on GPUs, one for each rank. Not with `ranks`.
  std::string dist_backend;
};

// Each call looks whether the module is as the last one has left it.
// std::logic_error when it was moved, cast or loaded by somebody else, and when
// parameters have gradients that backward() did not make. Weights that were
// changed in place, on all ranks alike, are taken, in every dtype.
//
// All ranks make the same calls in the same order. Settings that do not go
// together are base::Error(config), see docs/configuration.md; a rank that is
// gone is base::Error(unavailable). Not thread-safe. Movable.
class Engine {
 public:
  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;
  ~Engine();

  // Gradients of loss / gradient_accumulation_steps * loss_scale; in the last
  // micro batch of a step they are summed over the ranks while backward runs.
  // `loss` is a scalar that needs a gradient. Returns what was differentiated,
  // without the loss scale. A parameter may be used in backward passes inside
  // of this one (recomputation), and more than once.
  at::Tensor backward(const at::Tensor& loss);

  // At the boundary of gradient accumulation: unscale, clip, update, gather,
  // and the scheduler's step. Elsewhere it only counts the micro batch.
  // An update with a gradient that is not finite is skipped. Error(internal)
  // when the loss scale is at its minimum, or without loss scaling after 10
  // skipped steps in a row; the weights are those before the first of them.
  void step();

  // True if the next step() is an update.
  bool is_gradient_accumulation_boundary() const;
  // Takes the decision out of the engine's hands, until the next call.
  void set_gradient_accumulation_boundary(bool is_boundary);

  // While the object lives, backward() sums nothing over the ranks. Not for
  // stage 2, not one inside another, and no step() inside: std::logic_error.
  class NoSync {
   public:
    ~NoSync();
    NoSync(const NoSync&) = delete;
    NoSync& operator=(const NoSync&) = delete;

   private:
    friend class Engine;
    explicit NoSync(EngineState& state);
    EngineState& state_;
  };
  [[nodiscard]] NoSync no_sync();

  // Of the last step: unscaled, before clipping; not finite if it was skipped.
  double get_global_grad_norm() const;
  bool was_step_applied() const;
  int64_t global_steps() const;
  int64_t global_samples() const;
  int64_t micro_steps() const;
  int64_t skipped_steps() const;
  double loss_scale() const;
  // One value for each param group: of the next update.
  std::vector<double> get_lr() const;
  std::vector<std::pair<double, double>> get_mom() const; // betas
  int64_t train_batch_size() const;
  int64_t train_micro_batch_size_per_gpu() const;
  int64_t gradient_accumulation_steps() const;
  // Changes gradient_accumulation_steps.
  void set_train_batch_size(int64_t train_batch_size);
  // Changes train_batch_size.
  void set_train_micro_batch_size(int64_t micro_batch_size);

  // Publishes FOLDER/TAG in DeepSpeed's layout, and FOLDER/latest: whole or not
  // at all, on all ranks alike. Error(usage) for a client_state key that is the
  // engine's own, Error(io), Error(cannot_create). Returns the folder's path.
  std::string save_checkpoint(
      const std::string& folder,
      const SaveOptions& options = {});
  // From any number of ranks and any stage, ours or Python's. Error(no_input),
  // Error(data); the engine is unchanged if the checkpoint does not fit it.
  LoadedCheckpoint load_checkpoint(
      const std::string& folder,
      const LoadOptions& options = {});
  // Whether this rank's master weights and optimizer states all are.
  bool is_finite() const;
  // The weights in the compute dtype, as torch.load() reads a state_dict.
  void save_16bit_model(
      const std::string& folder,
      const std::string& name = "pytorch_model.bin");

  const config::Config& config() const;
  comm::ProcessGroup& ranks() const;
  torch::nn::Module& module() const;

  // fp32 weights of all parameters, gathered: every rank gets all.
  std::vector<std::pair<std::string, at::Tensor>> fp32_parameters() const;

 private:
  friend Engine initialize(
      std::shared_ptr<torch::nn::Module>,
      config::Config,
      InitializeOptions);
  explicit Engine(std::unique_ptr<EngineState> state);

  std::unique_ptr<EngineState> state_;
};

// Moves the parameters of `module` into the engine's flat buffers, in the
// compute dtype; buffers keep their dtype. Rank 0's values go to all
// ranks. The module must not be moved or cast afterwards; build optimizers of
// your own only on parameters outside the param groups.
// Error(config) when the batch sizes of `config` are those of another number of
// ranks, and when two parameters share memory without being one tensor.
Engine initialize(
    std::shared_ptr<torch::nn::Module> module,
    config::Config config,
    InitializeOptions options = {});

// The same with a file as in docs/configuration.md.
Engine initialize(
    std::shared_ptr<torch::nn::Module> module,
    const std::string& config_path,
    InitializeOptions options = {});

// The same with the configuration itself. A template, since a path would
// convert to a Json; text goes through base::parse_json().
Engine initialize_with_json(
    std::shared_ptr<torch::nn::Module> module,
    const base::Json& config,
    InitializeOptions options = {});
template <std::same_as<base::Json> J>
Engine initialize(
    std::shared_ptr<torch::nn::Module> module,
    const J& config,
    InitializeOptions options = {}) {
  return initialize_with_json(std::move(module), config, std::move(options));
}

template <typename Module, typename Config>
Engine initialize(
    const torch::nn::ModuleHolder<Module>& module,
    Config&& config,
    InitializeOptions options = {}) {
  return initialize(
      std::shared_ptr<torch::nn::Module>(module.ptr()),
      std::forward<Config>(config),
      std::move(options));
}

} // namespace deepspeed
