// Reading loss scalers.
#pragma once

#include "deepspeed/checkpoint/field.h"
#include "deepspeed/checkpoint/zero_states.h"

namespace deepspeed::checkpoint::zero_load {

// A pickled LossScaler or DynamicLossScaler.
LossScalerState read_loss_scaler(const Field& field);

// The keys of FP16_Optimizer and FP16_UnfusedOptimizer (stage 0), as far as
// `optimizer` has them, and what our own files add in `own`.
LossScalerState read_stage0_scaler(
    const Field& optimizer,
    const std::optional<Field>& own);

} // namespace deepspeed::checkpoint::zero_load
