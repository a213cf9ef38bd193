// How much memory a rank will need, told before it is taken.
#pragma once

#include <cstdint>
#include <string>

#include "deepspeed/bert/config.h"
#include "deepspeed/pretrain/data.h"
#include "deepspeed/settings/settings.h"

namespace deepspeed::pretrain {

// Bytes of one rank, at the moment of a training step that needs most.
struct MemoryPlan {
  double program = 0; // code, libraries, tokenizer and data
  double parameters = 0; // in the compute dtype
  double gradients = 0;
  double optimizer = 0; // fp32 master weights and moments
  double activations = 0; // of the largest batch, with scratch and gaps

  double total() const {
    return program + parameters + gradients + optimizer + activations;
  }
};

struct MemoryPlanInputs {
  const settings::Settings& settings;
  const bert::RobertaConfig& model;
  const Data& data;
  int64_t rank = 0;
  int64_t ranks = 1;
  // Ranks see each other's buffers, and what they read counts as theirs.
  bool shared_memory = false;
  double moments = 2; // that the optimizer keeps of each gradient
  // Every rank has room for all gradients: not so in stage 2 without
  // accumulation.
  bool whole_gradients = true;
};

// Looks through the lengths of the run's batches (the first 2^20 lines), and at
// what the process has resident now: to be called when the data are open and no
// model is there. Right within 10 % for the default model; for
// --implementation reference the activations are a rough estimate.
MemoryPlan plan_memory(const MemoryPlanInputs& inputs);

// "parameters 65 MB, gradients 65 MB, ..., total 612 MB"
std::string memory_plan_text(const MemoryPlan& plan);

} // namespace deepspeed::pretrain
