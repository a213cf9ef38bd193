// The ranges of all settings, and which of them go together.
#include <cmath>
#include <limits>

#include "deepspeed/base/error.h"
#include "deepspeed/base/number_text.h"
#include "deepspeed/settings/settings.h"

namespace deepspeed::settings {
namespace {

using base::Error;
using base::ExitCode;

constexpr int64_t kMostCount = std::numeric_limits<int32_t>::max();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

[[noreturn]] void refuse(
    const std::string& what,
    const std::string& where,
    const std::string& hint = "") {
  throw Error(ExitCode::config, what, where, hint);
}

void check_count(
    const char* name,
    int64_t value,
    int64_t low,
    int64_t high = kMostCount) {
  if (value < low || value > high) {
    refuse(
        std::string(name) + " must be from " + std::to_string(low) + " to " +
            std::to_string(high) + ", not " + std::to_string(value),
        std::string("--") + name);
  }
}

// low <= value <= high, or < high; NaN is refused.
void check_real(
    const char* name,
    double value,
    double low,
    double high,
    bool with_high) {
  if (value >= low && (with_high ? value <= high : value < high)) {
    return;
  }
  const std::string range = std::isinf(high)
      ? "a finite number, at least " + base::format_short(low, 6)
      : "from " + base::format_short(low, 6) +
          (with_high ? " to " : " to below ") + base::format_short(high, 6);
  refuse(
      std::string(name) + " must be " + range + ", not " +
          base::format_exact(value),
      std::string("--") + name);
}

void check_data(const DataSettings& data) {
  check_count("max_seq_length", data.max_seq_length, 3, 512);
  check_real("mask_prob", data.mask_prob, 0, 1, true);
  if (data.mask_prob == 0) {
    refuse(
        "mask_prob must be above 0: nothing would be learned", "--mask_prob");
  }
  check_real("random_replace_prob", data.random_replace_prob, 0, 1, true);
  check_real("unmask_replace_prob", data.unmask_replace_prob, 0, 1, true);
  const double sum = data.random_replace_prob + data.unmask_replace_prob;
  if (sum > 1 + 1e-9) { // 0.9 + 0.1 may be a little above 1
    refuse(
        "random_replace_prob + unmask_replace_prob must be at most 1, not " +
            base::format_short(sum, 6),
        "--random_replace_prob " +
            base::format_exact(data.random_replace_prob) +
            "  --unmask_replace_prob " +
            base::format_exact(data.unmask_replace_prob));
  }
}

void check_model(const ModelSettings& model) {
  check_count("num_layers", model.num_layers, 1);
  check_count("num_heads", model.num_heads, 1);
  check_count("ff_dim", model.ff_dim, 1);
  check_count("h_dim", model.h_dim, 1);
  check_real("dropout", model.dropout, 0, 1, false);
  if (model.h_dim % model.num_heads != 0) {
    const int64_t below = model.h_dim / model.num_heads * model.num_heads;
    refuse(
        "h_dim " + std::to_string(model.h_dim) +
            " is not a multiple of num_heads " +
            std::to_string(model.num_heads),
        "--h_dim  --num_heads",
        "use --h_dim " + std::to_string(below + model.num_heads) +
            ", or another number of heads");
  }
}

void check_optimizer(const OptimizerSettings& optimizer) {
  check_count("batch_size", optimizer.batch_size, 1);
  check_count(
      "gradient_accumulation_steps", optimizer.gradient_accumulation_steps, 1);
  check_real("learning_rate", optimizer.learning_rate, 0, kInfinity, false);
  check_real("weight_decay", optimizer.weight_decay, 0, kInfinity, false);
  check_real("adam_beta1", optimizer.adam_beta1, 0, 1, false);
  check_real("adam_beta2", optimizer.adam_beta2, 0, 1, false);
  check_real("adam_epsilon", optimizer.adam_epsilon, 0, kInfinity, false);
  check_real("max_grad_norm", optimizer.max_grad_norm, 0, kInfinity, false);
  check_count("warmup_steps", optimizer.warmup_steps, 0);
}

void check_run(const RunSettings& run, const MachineSettings& machine) {
  check_count("num_iterations", run.num_iterations, 1);
  check_count("checkpoint_every", run.checkpoint_every, 1);
  check_count("log_every", run.log_every, 1);
  check_count("eval_every", run.eval_every, 0);
  check_count("keep_last", run.keep_last, 0);
  check_count("seed", run.seed, 0, std::numeric_limits<int64_t>::max());
  check_count("num_threads", machine.num_threads, 0, 4096);
  check_count("profile", machine.profile, 0, 10000);
  check_count("local_rank", machine.local_rank, -1);
}

// Whether `text` is UTF-8 without a zero byte: a path that is not could not be
// written to hparams.json. Overlong forms and surrogates are refused, as in
// RFC 3629.
bool is_clean_text(const std::string& text) {
  size_t i = 0;
  while (i < text.size()) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const int more = lead < 0x80      ? 0
        : lead >= 0xC2 && lead < 0xE0 ? 1
        : lead >= 0xE0 && lead < 0xF0 ? 2
        : lead >= 0xF0 && lead < 0xF5 ? 3
                                      : -1;
    if (lead == 0 || more < 0 || i + more >= text.size()) {
      return false;
    }
    uint32_t point = more == 0 ? lead : lead & (0x3F >> more);
    for (int k = 1; k <= more; ++k) {
      const auto next = static_cast<unsigned char>(text[i + k]);
      if ((next & 0xC0) != 0x80) {
        return false;
      }
      point = point << 6 | (next & 0x3F);
    }
    const bool surrogate = point >= 0xD800 && point <= 0xDFFF;
    if ((more == 2 && point < 0x800) || (more == 3 && point < 0x10000) ||
        point > 0x10FFFF || surrogate) {
      return false;
    }
    i += 1 + more;
  }
  return true;
}

void check_texts(const Settings& settings) {
  Settings copy = settings;
  for (const Setting& field : fields_of(copy)) {
    const auto* text = std::get_if<std::string*>(&field.value);
    if (text == nullptr) {
      continue;
    }
    const std::string flag = "--" + field.name;
    if (!is_clean_text(**text)) {
      refuse(field.name + " is not valid UTF-8, or has a zero byte", flag);
    }
    bool known = field.choices.empty();
    std::string list;
    for (const std::string& choice : field.choices) {
      known = known || choice == **text;
      list += (list.empty() ? "" : ", ") + choice;
    }
    if (!known) {
      const std::string nearest = base::nearest_name(**text, field.choices);
      refuse(
          field.name + " must be one of " + list + ", not \"" + **text + "\"",
          flag,
          nearest.empty() ? "" : "did you mean " + nearest + "?");
    }
  }
  for (const auto& [name, value] :
       {std::pair("dataset", &settings.data.dataset),
        std::pair("tokenizer", &settings.data.tokenizer),
        std::pair("text_column", &settings.data.text_column)}) {
    if (value->empty()) {
      refuse(
          std::string(name) + " must not be empty", std::string("--") + name);
    }
  }
}

} // namespace

void validate_schedule(const OptimizerSettings& optimizer) {
  if (optimizer.warmup_steps > 0 && optimizer.lr_scheduler_type == "constant") {
    refuse(
        "warmup_steps " + std::to_string(optimizer.warmup_steps) +
            " has no effect with a constant learning rate",
        "--warmup_steps  --lr_scheduler_type",
        "use --lr_scheduler_type constant_with_warmup");
  }
}

void validate(const Settings& settings) {
  check_texts(settings);
  check_data(settings.data);
  check_model(settings.model);
  check_optimizer(settings.optimizer);
  if (settings.engine.deepspeed_config.empty()) {
    validate_schedule(settings.optimizer);
  }
  check_run(settings.run, settings.machine);
  if (settings.engine.enabled) {
    if (settings.engine.zero_stage == 3) {
      refuse(
          "stage 3 (sharded parameters) is not implemented yet",
          "--zero_stage",
          "use --zero_stage 2: gradients and optimizer states are sharded");
    }
    check_count("zero_stage", settings.engine.zero_stage, 0, 2);
  }
}

} // namespace deepspeed::settings
