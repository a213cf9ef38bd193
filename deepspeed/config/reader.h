// The parts of parse_config(): one function for each block.
#pragma once

#include "deepspeed/config/config.h"
#include "deepspeed/config/section.h"

namespace deepspeed::config {

// Reads the whole object and resolves it. `document` collects warnings.
Config read_document(
    const base::Json& json,
    Document& document,
    const Context& context);

void read_optimizer(Section& root, const Context& context, Optimizer& result);

// After read_optimizer(): warm-up ends at the lr of `optimizer`.
void read_scheduler(
    Section& root,
    const Context& context,
    const Optimizer& optimizer,
    Scheduler& result);

void read_zero(Section& root, const Context& context, ZeroOptimization& result);

// Keys of features that are not here, and keys that DeepSpeed has removed.
void refuse_features(Section& root);

// Fills the batch sizes that were not given (0) and checks the equation.
void resolve_batch(Section& root, const Context& context, Config& config);

} // namespace deepspeed::config
