// The batch equation: train = micro x accumulation x ranks.
#include "deepspeed/base/error.h"
#include "deepspeed/config/reader.h"

namespace deepspeed::config {
namespace {

const char* const kTrain = "train_batch_size";
const char* const kMicro = "train_micro_batch_size_per_gpu";
const char* const kAccumulation = "gradient_accumulation_steps";

std::string set_to(const char* key, int64_t value) {
  return "set \"" + std::string(key) + "\" to " + std::to_string(value);
}

// The product, or 0 if it does not fit.
int64_t product(int64_t a, int64_t b, int64_t c) {
  int64_t result = 0;
  return __builtin_mul_overflow(a, b, &result) ||
          __builtin_mul_overflow(result, c, &result)
      ? 0
      : result;
}

// "train_batch_size 10 is not train_micro_batch_size_per_gpu 2 x ..."
std::string equation(const Config& config, int64_t ranks, int64_t right) {
  return std::string(kTrain) + " " + std::to_string(config.train_batch_size) +
      " is not " + kMicro + " " +
      std::to_string(config.train_micro_batch_size_per_gpu) + " x " +
      kAccumulation + " " + std::to_string(config.gradient_accumulation_steps) +
      " x " + std::to_string(ranks) + (ranks == 1 ? " rank" : " ranks") +
      (right > 0 ? " = " + std::to_string(right) : "");
}

// Two ways out: another accumulation (or micro batch) for the same batch, and
// the nearest batch for the same rest.
std::string fixes(const Config& config, int64_t ranks, int64_t right) {
  const int64_t train = config.train_batch_size;
  const int64_t micro = config.train_micro_batch_size_per_gpu;
  const int64_t accumulation = config.gradient_accumulation_steps;
  std::string text = set_to(kTrain, right);
  if (micro > 0 && train % ranks == 0 && train / ranks % micro == 0) {
    text += ", or " + set_to(kAccumulation, train / ranks / micro);
  } else if (train % ranks == 0 && train / ranks % accumulation == 0) {
    text += ", or " + set_to(kMicro, train / ranks / accumulation);
  } else if (train % ranks != 0) {
    text += ", or to another multiple of the number of ranks";
  }
  return text;
}

// The multiple of `unit` that is nearest to `value`, and not 0.
int64_t nearest_multiple(int64_t value, int64_t unit) {
  const int64_t below = value / unit * unit;
  return below == 0 || value - below > unit / 2 ? below + unit : below;
}

// DeepSpeed's table: what is missing follows from the rest.
void derive(Config& config, int64_t ranks) {
  int64_t& train = config.train_batch_size;
  int64_t& micro = config.train_micro_batch_size_per_gpu;
  int64_t& accumulation = config.gradient_accumulation_steps;
  if (train > 0 && micro > 0 && accumulation == 0) {
    accumulation = train / micro / ranks;
  } else if (train > 0 && micro == 0) {
    accumulation = accumulation > 0 ? accumulation : 1;
    micro = train / ranks / accumulation;
  } else if (train == 0) {
    accumulation = accumulation > 0 ? accumulation : 1;
    train = product(micro, accumulation, ranks);
  }
}

} // namespace

void resolve_batch(Section& root, const Context& context, Config& config) {
  const int64_t ranks = context.world_size;
  const bool has_train = config.train_batch_size > 0;
  const bool has_micro = config.train_micro_batch_size_per_gpu > 0;
  const bool has_accumulation = config.gradient_accumulation_steps > 0;
  if (!has_train && !has_micro) {
    root.fail(
        kMicro,
        std::string("neither ") + kTrain + " nor " + kMicro + " is given",
        std::string("write \"") + kMicro + "\": 8, or \"auto\" for the " +
            "program's --batch_size");
  }
  derive(config, ranks);
  if (config.train_batch_size == 0) {
    root.fail(kMicro, "the batch sizes are too large", "use smaller ones");
  }
  const int64_t right = product(
      config.train_micro_batch_size_per_gpu,
      config.gradient_accumulation_steps,
      ranks);
  if (right == config.train_batch_size && right > 0) {
    return;
  }
  std::string hint;
  if (has_micro && has_accumulation) {
    hint = fixes(config, ranks, right);
  } else {
    // What was derived is a quotient with a rest: only the batch can change,
    // or what was given beside it.
    const char* beside = has_micro ? kMicro : kAccumulation;
    const int64_t given = has_micro ? config.train_micro_batch_size_per_gpu
        : has_accumulation          ? config.gradient_accumulation_steps
                                    : 1;
    const int64_t unit = product(given, ranks, 1);
    hint = unit == 0
        ? "use smaller batch sizes"
        : set_to(kTrain, nearest_multiple(config.train_batch_size, unit));
    hint += has_micro || has_accumulation
        ? std::string(", or change \"") + beside + "\""
        : ", or to another multiple of the number of ranks";
  }
  root.fail(kTrain, equation(config, ranks, right), hint);
}

void set_train_batch_size(
    Config& config,
    int64_t train_batch_size,
    int64_t world_size) {
  const int64_t unit =
      product(config.train_micro_batch_size_per_gpu, world_size, 1);
  if (train_batch_size <= 0 || unit <= 0 || train_batch_size % unit != 0) {
    throw base::Error(
        base::ExitCode::config,
        "train_batch_size " + std::to_string(train_batch_size) +
            " is no multiple of train_micro_batch_size_per_gpu " +
            std::to_string(config.train_micro_batch_size_per_gpu) + " x " +
            std::to_string(world_size) + " ranks",
        "set_train_batch_size",
        "use a multiple of " + std::to_string(unit));
  }
  config.train_batch_size = train_batch_size;
  config.gradient_accumulation_steps = train_batch_size / unit;
}

void set_train_micro_batch_size(
    Config& config,
    int64_t micro_batch_size,
    int64_t world_size) {
  const int64_t train =
      product(micro_batch_size, config.gradient_accumulation_steps, world_size);
  if (micro_batch_size <= 0 || train <= 0) {
    throw base::Error(
        base::ExitCode::config,
        "train_micro_batch_size_per_gpu is " + std::to_string(micro_batch_size),
        "set_train_micro_batch_size",
        "it must be at least 1");
  }
  config.train_micro_batch_size_per_gpu = micro_batch_size;
  config.train_batch_size = train;
}

} // namespace deepspeed::config
