// Trains an own module with the library's optimizer, and saves what Python's
// torch.load reads. The task: tell the points inside a circle from the others.
#include <torch/nn/modules/linear.h>

#include <cstdio>
#include <string>

#include "deepspeed/base/error.h"
#include "deepspeed/flat/flat_parameters.h"
#include "deepspeed/formats/torch_file.h"
#include "deepspeed/optim/adam.h"
#include "deepspeed/optim/schedule.h"

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

// The state dict: names and tensors, which are written from where they lie.
formats::Value state_dict(const flat::FlatParameters& parameters) {
  formats::Value dict = formats::make_ordered_dict();
  for (const flat::FlatEntry& entry : parameters.entries()) {
    dict.set(
        entry.name,
        formats::Tensor::borrow(
            formats::DType::float32,
            entry.parameter.sizes().vec(),
            parameters.master(entry).const_data_ptr()));
  }
  return dict;
}

int train(const std::string& file) {
  constexpr int64_t kSteps = 300;
  at::manual_seed(1);
  CircleNet net;

  // The parameters move into one buffer; the module keeps views of it.
  flat::FlatParameters parameters(*net, at::kFloat);
  optim::Adam adam(parameters, optim::AdamOptions{});
  const optim::Schedule schedule{optim::ScheduleType::cosine, 0.03, 20, kSteps};

  const at::Tensor points = at::rand({512, 2}) * 2 - 1;
  const at::Tensor inside =
      (points.square().sum(1) < 0.5).to(points.scalar_type());
  for (int64_t step = 0; step < kSteps; ++step) {
    parameters.begin_step();
    const at::Tensor loss =
        at::binary_cross_entropy_with_logits(net->forward(points), inside);
    loss.backward();
    parameters.collect();
    const double norm = optim::gradient_norm(parameters);
    adam.step(schedule.at(step), optim::clip_factor(norm, 1.0));
    if (step % 100 == 0 || step + 1 == kSteps) {
      std::printf("step %3ld loss %.4f\n", step + 1, loss.item<double>());
    }
  }
  formats::save_torch_file(file, state_dict(parameters));
  std::printf("saved %s\n", file.c_str());
  return 0;
}

} // namespace

int main(int argc, char** argv) {
  return base::run_program(
      [&] { return train(argc > 1 ? argv[1] : "circle.pt"); });
}
