// Where a writer puts a gradient.
#pragma once

#include "deepspeed/flat/torch_headers.h"

namespace deepspeed::flat {

struct GradientTarget {
  at::Tensor grad; // fp32, the parameter's shape
  bool add = false; // false: overwrite
};

} // namespace deepspeed::flat
