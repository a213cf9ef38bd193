// The program `deepspeed`.
#pragma once

namespace deepspeed::launcher {

// Runs it; returns its exit code. Errors are thrown.
int launch(int argc, char** argv);

} // namespace deepspeed::launcher
