// Reading loss scalers.
#pragma once

#include "deepspeed/checkpoint/zero_states.h"
#include "deepspeed/formats/field.h"

namespace deepspeed::checkpoint::zero_load {

// A pickled LossScaler or DynamicLossScaler.
LossScalerState read_loss_scaler(const formats::Field& field);

// The keys of FP16_Optimizer and FP16_UnfusedOptimizer (stage 0), as far as
// `optimizer` has them, and what our own files add in `own`.
LossScalerState read_stage0_scaler(
    const formats::Field& optimizer,
    const std::optional<formats::Field>& own);

} // namespace deepspeed::checkpoint::zero_load
