// Tensors that share memory with parameters, which are about to get a new
// place: what shares it does not move along.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "deepspeed/flat/torch_headers.h"

namespace deepspeed::flat {

// A parameter, or what stands beside parameters, under its name in the module.
struct NamedParameter {
  std::string name;
  at::Tensor tensor; // the module's own
};
using NamedParameters = std::vector<NamedParameter>;

// Error(config) when one of `moving` has elements in common with another of
// them or with one of `staying`, as after set_data(): they would part. One
// tensor under two names is no such case.
void refuse_shared_elements(
    const NamedParameters& moving,
    const NamedParameters& staying);

// Remembers where tensors lie before they move.
class OldPlaces {
 public:
  explicit OldPlaces(const NamedParameters& moving);
  // When they have moved: the names of those whose old memory is still used, by
  // a view that somebody keeps. Only memory that was made for one tensor alone
  // is looked at. Each is named once.
  std::vector<std::string> still_used();

 private:
  std::vector<std::pair<std::string, c10::Storage>> places_;
};

// "a, b, ... (7 in all)": at most five of them.
std::string shortened(const std::vector<std::string>& names);

} // namespace deepspeed::flat
