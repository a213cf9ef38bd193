// Parameters under dotted names, as a nest of plain modules.
#pragma once

#include <string>
#include <vector>

#include "deepspeed/flat/torch_headers.h"

namespace deepspeed::bert {

// A module that is only a name with parameters and children.
class ParameterTree : public torch::nn::Module {
 public:
  // Registers `value` as the parameter "a.b.c" of this module, making the
  // modules a and a.b where they are missing. The order of parameters() is the
  // order of registration within each module, as in Python.
  at::Tensor add(const std::string& dotted_name, at::Tensor value);
};

} // namespace deepspeed::bert
