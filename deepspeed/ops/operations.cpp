// The choice of operations by device.
#include "deepspeed/ops/operations.h"

#include "deepspeed/base/error.h"
#include "deepspeed/ops/cpu/operations.h"

namespace deepspeed::ops {

const Operations& operations_on(at::Device device) {
  if (!device.is_cpu()) {
    throw base::Error(
        base::ExitCode::config,
        "no operations for the device " + device.str(),
        "the fast implementation of a model",
        "move the model to the CPU, or use --implementation reference");
  }
  static const cpu::Operations operations;
  return operations;
}

} // namespace deepspeed::ops
