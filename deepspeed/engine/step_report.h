// What an engine says about its steps: lines on standard error, and curves.
#pragma once

#include "deepspeed/engine/state.h"

namespace deepspeed {

// After each step() call: steps_per_print, memory_breakdown, the curves of
// tensorboard and csv_monitor (all at a boundary), wall_clock_breakdown. Rank 0
// speaks; the others only forget their times.
void report_step(EngineState& state, bool boundary);

} // namespace deepspeed
