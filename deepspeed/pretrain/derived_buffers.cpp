// Tensors of state dicts that follow from the settings of the model.
#include "deepspeed/pretrain/derived_buffers.h"

#include <algorithm>

#include "deepspeed/base/error.h"
#include "deepspeed/flat/file_tensor.h"

namespace deepspeed::pretrain {

std::vector<bert::NamedTensor> derived_buffers(
    const bert::RobertaConfig& config) {
  const int64_t positions = config.max_position_embeddings;
  return {
      {"encoder.embeddings.position_ids",
       at::arange(positions, at::kLong).unsqueeze(0)},
      {"encoder.embeddings.token_type_ids",
       at::zeros({1, positions}, at::kLong)}};
}

void require_known_names(
    const std::vector<formats::NamedTensor>& tensors,
    const bert::RobertaForMaskedLMImpl& model,
    const std::string& path) {
  const auto entries = model.state_dict_entries();
  const auto derived = derived_buffers(model.config());
  const auto find = [](const auto& list, const std::string& name) {
    return std::find_if(list.begin(), list.end(), [&](const auto& named) {
      return named.name == name;
    });
  };
  for (const auto& [name, tensor] : tensors) {
    if (find(entries, name) != entries.end()) {
      continue;
    }
    const auto buffer = find(derived, name);
    if (buffer == derived.end()) {
      throw base::Error(
          base::ExitCode::data,
          "the checkpoint has a tensor '" + name +
              "' that the model does not have",
          path,
          "this checkpoint belongs to another model or another program");
    }
    flat::check_equal(tensor, path + ": " + name, buffer->tensor);
  }
}

} // namespace deepspeed::pretrain
