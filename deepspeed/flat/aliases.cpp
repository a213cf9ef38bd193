// Tensors that share memory with parameters, which are about to get a new
// place: what shares it does not move along.
#include "deepspeed/flat/aliases.h"

#include <ATen/MemoryOverlap.h>

#include <algorithm>

#include "deepspeed/base/error.h"

namespace deepspeed::flat {
namespace {

bool have_common_elements(const at::Tensor& a, const at::Tensor& b) {
  if (a.is_same(b) || !a.has_storage() || !b.has_storage()) {
    return false;
  }
  const at::MemOverlapStatus status = at::get_overlap_status(a, b);
  return status == at::MemOverlapStatus::Full ||
      status == at::MemOverlapStatus::Partial;
}

} // namespace

void refuse_shared_elements(
    const NamedParameters& moving,
    const NamedParameters& staying) {
  for (size_t i = 0; i < moving.size(); ++i) {
    const auto check = [&](const NamedParameter& other) {
      if (have_common_elements(moving[i].tensor, other.tensor)) {
        throw base::Error(
            base::ExitCode::config,
            "parameter " + moving[i].name + " shares its memory with " +
                other.name + ", but is another tensor",
            "set_data(), or a view that was registered",
            "register one tensor under both names, or assign it: "
            "decoder->weight = embedding->weight");
      }
    };
    std::for_each(moving.begin() + i + 1, moving.end(), check);
    std::for_each(staying.begin(), staying.end(), check);
  }
}

OldPlaces::OldPlaces(const NamedParameters& moving) {
  for (const auto& [name, tensor] : moving) {
    if (tensor.has_storage() && tensor.numel() > 0 &&
        tensor.storage().nbytes() == tensor.nbytes()) {
      places_.emplace_back(name, tensor.storage());
    }
  }
}

std::vector<std::string> OldPlaces::still_used() {
  std::vector<std::string> names;
  for (const auto& [name, storage] : places_) {
    if (storage.use_count() > 1) {
      names.push_back(name);
    }
  }
  places_.clear();
  return names;
}

std::string shortened(const std::vector<std::string>& names) {
  std::string text;
  for (size_t i = 0; i < names.size() && i < 5; ++i) {
    text += (i == 0 ? "" : ", ") + names[i];
  }
  if (names.size() > 5) {
    text += ", ... (" + std::to_string(names.size()) + " in all)";
  }
  return text;
}

} // namespace deepspeed::flat
