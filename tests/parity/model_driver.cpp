// Runs the model on given weights and batches, for comparison with Python.
//
//   model_driver CONFIG.json WEIGHTS.pt BATCHES.jsonl OUT.pt MODE [DTYPE]
//   [IMPL]
//
// MODE `gradients` writes {"losses": [...], "gradients": [{name: tensor}...]},
// one for each batch; MODE `train` does a step of Adam on each batch and writes
// {"losses": [...], "model": {name: tensor}}.
#include <fstream>

#include "deepspeed/base/error.h"
#include "deepspeed/base/json.h"
#include "deepspeed/bert/roberta.h"
#include "deepspeed/file/json_file.h"
#include "deepspeed/flat/file_tensor.h"
#include "deepspeed/formats/torch_file.h"
#include "deepspeed/optim/adam.h"
#include "deepspeed/pretrain/model_files.h"

using namespace deepspeed;
using formats::Value;

namespace {

bert::RobertaConfig read_config(const std::string& path) {
  const base::Json json = file::read_json(path, 1 << 20);
  bert::RobertaConfig config;
  config.vocab_size = json.at("vocab_size");
  config.hidden_size = json.at("hidden_size");
  config.num_hidden_layers = json.at("num_hidden_layers");
  config.num_attention_heads = json.at("num_attention_heads");
  config.intermediate_size = json.at("intermediate_size");
  config.dropout = 0;
  return config;
}

std::shared_ptr<const bert::Batch> read_batch(const std::string& line) {
  const base::Json json = base::parse_json(line, "batch");
  text::PackedBatch packed;
  json.at("ids").get_to(packed.ids);
  json.at("positions").get_to(packed.positions);
  json.at("cu_seqlens").get_to(packed.cu_seqlens);
  json.at("masked").get_to(packed.masked);
  json.at("labels").get_to(packed.labels);
  packed.visits.resize(packed.cu_seqlens.size() - 1);
  return std::make_shared<bert::Batch>(std::move(packed));
}

Value tensors_of(
    const flat::FlatParameters& parameters,
    bool gradients,
    flat::FileTensors& files) {
  Value dict = formats::make_dict();
  for (const flat::FlatEntry& entry : parameters.entries()) {
    if (!gradients) {
      dict.set(entry.name, files.add(parameters.master(entry)));
    } else if (!entry.slot.is_fresh()) {
      dict.set(entry.name, files.add(entry.slot.grad().clone()));
    }
  }
  return dict;
}

int write_logits(const std::vector<std::string>& arguments) {
  pretrain::LoadedModel loaded = pretrain::load_model(arguments[0], "");
  formats::List logits;
  flat::FileTensors files;
  std::ifstream batches(arguments[1]);
  for (std::string line; std::getline(batches, line);) {
    logits.emplace_back(files.add(loaded.model->logits(read_batch(line))));
  }
  formats::save_torch_file(arguments[2], Value(std::move(logits)));
  return 0;
}

int run(const std::vector<std::string>& arguments) {
  if (arguments.size() == 3) {
    return write_logits(arguments);
  }
  const auto argument = [&](size_t i, const char* otherwise) {
    return i < arguments.size() ? arguments[i] : std::string(otherwise);
  };
  bert::RobertaOptions options;
  options.config = read_config(arguments.at(0));
  options.implementation = argument(6, "fast") == "reference"
      ? bert::Implementation::reference
      : bert::Implementation::fast;
  bert::RobertaForMaskedLM model(options);
  const Value weights = formats::load_torch_file(arguments.at(1));
  for (const auto& item : model->named_parameters()) {
    const Value* tensor = weights.find(std::string_view(item.key()));
    TORCH_CHECK(tensor != nullptr, "no weight ", item.key());
    flat::copy_from_file(*tensor->tensor(), item.key(), item.value());
  }
  flat::FlatParameters parameters(
      *model, argument(5, "fp32") == "bf16" ? at::kBFloat16 : at::kFloat);
  optim::Adam optimizer(parameters, {});
  const bool train = arguments.at(4) == "train";
  formats::List losses;
  formats::List gradients;
  flat::FileTensors files;
  std::ifstream batches(arguments.at(2));
  for (std::string line; std::getline(batches, line);) {
    parameters.begin_step();
    const at::Tensor loss = model->forward(read_batch(line));
    losses.emplace_back(loss.item<double>());
    loss.backward();
    parameters.collect();
    if (train) {
      optimizer.step(1e-4);
    } else {
      gradients.push_back(tensors_of(parameters, true, files));
    }
  }
  Value out = formats::make_dict();
  out.set("losses", std::move(losses));
  if (train) {
    out.set("model", tensors_of(parameters, false, files));
  } else {
    out.set("gradients", std::move(gradients));
  }
  formats::save_torch_file(arguments.at(3), out);
  return 0;
}

} // namespace

int main(int argc, char** argv) {
  return base::run_program([&] { return run({argv + 1, argv + argc}); });
}
