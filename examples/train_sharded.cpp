// train_module.cpp with deepspeed::initialize: any number of ranks, each with
// points of its own, and checkpoints that any other number of ranks reads.
//   deepspeed --num_gpus 2 train_sharded circle_config.json FOLDER
#include <torch/nn/modules/linear.h>

#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "deepspeed/base/error.h"
#include "deepspeed/engine/engine.h"

using namespace deepspeed;

namespace {

struct CircleNetImpl : torch::nn::Module {
  torch::nn::Linear hidden{register_module("hidden", torch::nn::Linear(2, 32))};
  torch::nn::Linear out{register_module("out", torch::nn::Linear(32, 1))};

  at::Tensor forward(const at::Tensor& points) {
    return out(at::tanh(hidden(points))).squeeze(1);
  }
};
TORCH_MODULE(CircleNet);

int train(const std::string& config, const std::string& folder) {
  constexpr int64_t kSteps = 300; // more of them each time it is started
  CircleNet net;
  Engine engine = initialize(net, config);
  if (std::filesystem::exists(folder + "/latest")) {
    engine.load_checkpoint(folder);
  }
  const int rank = engine.ranks().rank();
  const int64_t first = engine.global_steps();
  at::manual_seed(static_cast<uint64_t>(1000 * first + rank));

  for (int64_t step = first + 1; step <= first + kSteps; ++step) {
    const at::Tensor points =
        at::rand({engine.train_micro_batch_size_per_gpu(), 2}) * 2 - 1;
    const at::Tensor inside =
        (points.square().sum(1) < 0.5).to(points.scalar_type());
    const at::Tensor loss =
        at::binary_cross_entropy_with_logits(net->forward(points), inside);
    engine.backward(loss);
    engine.step();
    if (rank == 0 && step % 100 == 0) {
      std::printf("step %3ld loss %.4f\n", step, loss.item<double>());
    }
  }
  engine.save_checkpoint(folder);
  return 0;
}

} // namespace

int main(int argc, char** argv) {
  return base::run_program([&] {
    std::vector<std::string> arguments;
    for (int i = 1; i < argc; ++i) {
      // The launcher's; LOCAL_RANK says the same.
      if (!std::string_view(argv[i]).starts_with("--local_rank=")) {
        arguments.emplace_back(argv[i]);
      }
    }
    if (arguments.size() != 2) {
      throw base::Error(
          base::ExitCode::usage,
          "a configuration and a folder are needed",
          argv[0],
          "train_sharded ds_config.json FOLDER");
    }
    return train(arguments[0], arguments[1]);
  });
}
