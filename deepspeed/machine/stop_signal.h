// Stopping a run from outside: finish the step, save, exit.
#pragma once

namespace deepspeed::machine {

// Installs handlers for SIGINT, SIGTERM and SIGUSR1 (Slurm's warning). The
// first signal only sets a flag and says so on standard error; the loop
// finishes its step, saves and exits with ExitCode::stopped. A second SIGINT
// ends the process at once with code 130. The handlers are async-signal-safe.
// SIGXFSZ is ignored: a write past the limit on file sizes fails instead.
// Without `speak` nothing is said: rank 0 speaks for all.
void install_stop_signals(bool speak = true);

// The signal that asked to stop, or 0.
int stop_signal();

// "SIGINT", "SIGTERM" or "SIGUSR1".
const char* signal_name(int signal);

} // namespace deepspeed::machine
