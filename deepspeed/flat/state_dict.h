// What a module is called in files.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "deepspeed/flat/torch_headers.h"

namespace deepspeed::flat {

// A module whose files have other names, or another order, than its parameters
// and buffers: tied weights under a second name, for one. Modules that do not
// say are stored module by module, as Python's state_dict() does.
class StateDictSource {
 public:
  virtual ~StateDictSource() = default;
  // Tied entries share memory.
  virtual std::vector<std::pair<std::string, at::Tensor>> state_dict()
      const = 0;
};

} // namespace deepspeed::flat
