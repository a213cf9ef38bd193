// Runs the jobs of deepspeed_peer.py, which explains them, with our engine.
//
//   engine_driver JOBS.jsonl ANSWERS.jsonl
//
// Started once for each rank; rank 0 writes one line for each job.
#include <torch/nn/functional/linear.h>
#include <torch/nn/functional/loss.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>

#include <cmath>
#include <fstream>
#include <map>

#include "deepspeed/base/error.h"
#include "deepspeed/base/json.h"
#include "deepspeed/checkpoint/zero_checkpoint.h"
#include "deepspeed/comm/process_group.h"
#include "deepspeed/config/config.h"
#include "deepspeed/engine/engine.h"
#include "deepspeed/file/json_file.h"
#include "deepspeed/flat/file_tensor.h"
#include "deepspeed/formats/json_value.h"
#include "deepspeed/formats/safetensors.h"

using namespace deepspeed;
using base::Json;

namespace {

// nn.Linear whose weight may be another module's parameter.
class Decoder : public torch::nn::Module {
 public:
  Decoder(at::Tensor weight, int64_t outputs)
      : weight_(register_parameter("weight", std::move(weight))),
        bias_(register_parameter("bias", torch::zeros({outputs}))) {}

  at::Tensor forward(const at::Tensor& x) {
    return torch::nn::functional::linear(x, weight_, bias_);
  }

 private:
  at::Tensor weight_;
  at::Tensor bias_;
};

// engine_toy.Toy.
class Toy : public torch::nn::Module {
 public:
  explicit Toy(const Json& spec) {
    const int64_t vocabulary = spec.value("vocabulary", 19);
    const int64_t hidden = spec.value("hidden", 7);
    std::vector<int64_t> sizes{hidden};
    for (int64_t width : spec.value("widths", std::vector<int64_t>{13, 11})) {
      sizes.push_back(width);
    }
    sizes.push_back(hidden);
    if (spec.value("buffers", true)) {
      offset_ = register_buffer("offset", torch::linspace(-0.5, 0.5, hidden));
      register_buffer("version", torch::tensor(int64_t{3}));
    }
    embed_ = register_module("embed", torch::nn::Embedding(vocabulary, hidden));
    layers_ = register_module("layers", torch::nn::ModuleList());
    for (size_t i = 0; i + 1 < sizes.size(); ++i) {
      layers_->push_back(torch::nn::Linear(sizes[i], sizes[i + 1]));
    }
    if (spec.value("spare", false)) {
      register_module("spare", torch::nn::Linear(3, 5));
    }
    at::Tensor weight = spec.value("tied", true)
        ? embed_->weight
        : torch::zeros({vocabulary, hidden});
    decoder_ = register_module(
        "decoder", std::make_shared<Decoder>(std::move(weight), vocabulary));
    for (const std::string& name :
         spec.value("frozen", std::vector<std::string>{})) {
      named_parameters()[name].set_requires_grad(false);
    }
  }

  at::Tensor forward(const at::Tensor& tokens, const at::Tensor& targets) {
    at::Tensor x = embed_->forward(tokens);
    for (const auto& layer : *layers_) {
      x = torch::tanh(layer->as<torch::nn::Linear>()->forward(x));
    }
    if (offset_.defined()) {
      x = x + offset_.to(x.scalar_type());
    }
    return torch::nn::functional::cross_entropy(
        decoder_->forward(x).to(at::kFloat), targets);
  }

 private:
  torch::nn::Embedding embed_{nullptr};
  torch::nn::ModuleList layers_{nullptr};
  std::shared_ptr<Decoder> decoder_;
  at::Tensor offset_;
};

// JSON has no inf and nan: they become text.
Json number(double value) {
  if (std::isfinite(value)) {
    return value;
  }
  return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
}

double number_of(const Json& json) {
  return json.is_string() ? std::stod(json.get<std::string>())
                          : json.get<double>();
}

at::Tensor tensor_of(const Json& values) {
  return torch::tensor(values.get<std::vector<int64_t>>());
}

class Job {
 public:
  Job(Json job, std::shared_ptr<comm::ProcessGroup> group)
      : job_(std::move(job)),
        group_(std::move(group)),
        batches_(file::read_json(job_.at("batches"), 1 << 24)),
        model_(std::make_shared<Toy>(job_.value("module", Json::object()))) {
    load_weights();
    config::Context context;
    context.world_size = group_->size();
    InitializeOptions options;
    options.ranks = group_;
    options.param_groups = param_groups();
    engine_.emplace(initialize(
        model_,
        config::parse_config(job_.at("config"), "config", context),
        std::move(options)));
  }

  Json run() {
    Json answer = {
        {"losses", Json::array()},
        {"grad_norm", Json::array()},
        {"lr", Json::array()},
        {"scale", Json::array()},
        {"applied", Json::array()},
        {"global_steps", Json::array()},
        {"skipped_steps", Json::array()}};
    if (job_.contains("load")) {
      answer["load"] = load(job_["load"]);
    }
    model_->train();
    const int64_t first = job_.value("first_step", 0);
    const int64_t end = first + job_.value("steps", 0);
    for (int64_t step = first; step < end; ++step) {
      answer["losses"].push_back(train(step));
      answer["grad_norm"].push_back(number(engine_->get_global_grad_norm()));
      answer["lr"].push_back(engine_->get_lr());
      answer["scale"].push_back(number(engine_->loss_scale()));
      answer["applied"].push_back(engine_->was_step_applied());
      answer["global_steps"].push_back(engine_->global_steps());
      answer["skipped_steps"].push_back(engine_->skipped_steps());
      for (const Json& save : job_.value("save", Json::array())) {
        if (save.at("after") == step + 1) {
          this->save(save);
        }
      }
    }
    if (job_.contains("final")) {
      write_final(job_["final"]);
    }
    return answer;
  }

 private:
  void load_weights() {
    const auto file = formats::load_safetensors(job_.at("weights"));
    torch::NoGradGuard no_grad;
    for (auto& parameter : model_->named_parameters()) {
      // A tied name has no weight of its own.
      if (const auto* weight = file.find(parameter.key())) {
        flat::copy_from_file(*weight, parameter.key(), parameter.value());
      }
    }
  }

  std::vector<ParamGroup> param_groups() const {
    std::vector<ParamGroup> groups;
    for (const Json& json : job_.value("param_groups", Json::array())) {
      ParamGroup group;
      for (const Json& name : json.at("names")) {
        group.parameters.push_back(
            model_->named_parameters()[name.get<std::string>()]);
      }
      if (json.contains("lr")) {
        group.lr = json["lr"].get<double>();
      }
      if (json.contains("weight_decay")) {
        group.weight_decay = json["weight_decay"].get<double>();
      }
      groups.push_back(std::move(group));
    }
    return groups;
  }

  Json load(const Json& from) {
    LoadOptions options;
    options.tag = from.value("tag", "");
    options.module_only = from.value("load_module_only", false);
    options.optimizer_states = from.value("load_optimizer_states", true);
    options.lr_scheduler_states = from.value("load_lr_scheduler_states", true);
    const LoadedCheckpoint loaded =
        engine_->load_checkpoint(from.at("dir"), options);
    if (from.contains("final")) {
      write_final(from["final"]);
    }
    return {
        {"path", loaded.path},
        {"client_state", formats::json_of_value(loaded.client_state)},
        {"global_steps", engine_->global_steps()},
        {"skipped_steps", engine_->skipped_steps()},
        {"global_samples", engine_->global_samples()},
        {"lr", engine_->get_lr()},
        {"scale", number(engine_->loss_scale())}};
  }

  void save(const Json& to) {
    SaveOptions options;
    options.tag = to.value("tag", "");
    options.client_state =
        formats::value_of_json(to.value("client_state", Json::object()));
    engine_->save_checkpoint(to.at("dir"), options);
    if (to.contains("final")) {
      write_final(to["final"]);
    }
  }

  // The losses of each micro step, of all ranks.
  Json train(int64_t step) {
    Json factors = job_.value("loss_factors", Json::object());
    const std::string key = std::to_string(step);
    Json mine = Json::array();
    const int64_t accumulation = engine_->gradient_accumulation_steps();
    for (int64_t micro = 0; micro < accumulation; ++micro) {
      const Json& batch = batches_.at(static_cast<size_t>(
          (step * accumulation + micro) * group_->size() + group_->rank()));
      at::Tensor loss = model_->forward(
          tensor_of(batch.at("tokens")), tensor_of(batch.at("targets")));
      mine.push_back(number(loss.item<double>()));
      if (factors.contains(key)) {
        loss = loss * number_of(factors[key]);
      }
      engine_->backward(loss);
      engine_->step();
    }
    Json losses = Json::array();
    const auto ranks = group_->all_gather_text(mine.dump());
    for (int64_t micro = 0; micro < accumulation; ++micro) {
      Json of_ranks = Json::array();
      for (const std::string& text : ranks) {
        of_ranks.push_back(base::parse_json(text, "losses")[micro]);
      }
      losses.push_back(of_ranks);
    }
    return losses;
  }

  // From a checkpoint: the one place where whole optimizer states appear.
  void write_final(const std::string& path) {
    SaveOptions options;
    options.tag = "final";
    engine_->save_checkpoint(path + ".checkpoint", options);
    if (group_->rank() == 0) {
      const auto file =
          checkpoint::ZeroCheckpoint::open(path + ".checkpoint", "final");
      std::vector<at::Tensor> tensors;
      std::vector<formats::NamedTensor> out;
      flat::FileTensors files;
      const auto add = [&](const std::string& name, at::Tensor tensor) {
        tensors.push_back(tensor.contiguous());
        out.push_back({name, files.add(tensors.back())});
      };
      for (const auto& parameter : model_->named_parameters()) {
        const std::string& name = parameter.key();
        if (!is_alias(file, name)) {
          add("module." + name, parameter.value().detach().clone());
        }
      }
      for (const auto& group : file.topology().groups) {
        for (const auto& parameter : group.parameters) {
          at::Tensor fp32 = torch::empty(parameter.sizes);
          file.read_fp32(
              parameter.name, 0, fp32.numel(), fp32.data_ptr<float>());
          add("fp32." + parameter.name, fp32);
          for (const std::string& state : file.state_names()) {
            at::Tensor values = torch::empty(parameter.sizes);
            file.read_state(
                state,
                parameter.name,
                0,
                values.numel(),
                values.data_ptr<float>());
            add(state + "." + parameter.name, values);
          }
        }
      }
      formats::save_safetensors(path, out);
    }
    group_->barrier();
  }

  static bool is_alias(
      const checkpoint::ZeroCheckpoint& file,
      const std::string& name) {
    for (const auto& [alias, owner] : file.shared()) {
      if (alias == name) {
        return true;
      }
    }
    return false;
  }

  Json job_;
  std::shared_ptr<comm::ProcessGroup> group_;
  Json batches_;
  std::shared_ptr<Toy> model_;
  std::optional<Engine> engine_;
};

int run(const std::vector<std::string>& arguments) {
  at::set_num_threads(1);
  auto group = comm::make_process_group(comm::rank_from_environment());
  std::ifstream jobs(arguments.at(0));
  std::ofstream answers;
  if (group->rank() == 0) {
    answers.open(arguments.at(1));
  }
  for (std::string line; std::getline(jobs, line);) {
    Json answer;
    try {
      answer = Job(base::parse_json(line, "job"), group).run();
    } catch (const base::Error& error) {
      answer = {
          {"error", error.report()}, {"code", static_cast<int>(error.code())}};
    }
    answers << answer.dump() << "\n" << std::flush;
  }
  return 0;
}

} // namespace

int main(int argc, char** argv) {
  return base::run_program([&] { return run({argv + 1, argv + argc}); });
}
