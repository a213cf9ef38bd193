// Signals, in child processes.
#include "deepspeed/machine/stop_signal.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>

namespace deepspeed::machine {
namespace {

using testing::ExitedWithCode;

TEST(StopSignal, TheFirstSignalOnlySetsAFlag) {
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1}) {
    EXPECT_EXIT(
        {
          install_stop_signals();
          const bool none = stop_signal() == 0;
          ::raise(signal);
          ::_exit(none && stop_signal() == signal ? 75 : 1);
        },
        ExitedWithCode(75),
        "stopping: this step is to be finished and saved");
  }
}

TEST(StopSignal, TheSecondCtrlCEndsAtOnce) {
  EXPECT_EXIT(
      {
        install_stop_signals();
        ::raise(SIGINT);
        ::raise(SIGINT);
        ::_exit(75);
      },
      ExitedWithCode(130),
      "ended at once");
}

TEST(StopSignal, ASecondSigtermDoesNot) {
  // Schedulers send SIGUSR1 first and SIGTERM later, while the run still saves.
  EXPECT_EXIT(
      {
        install_stop_signals();
        ::raise(SIGUSR1);
        ::raise(SIGTERM);
        ::_exit(stop_signal() == SIGUSR1 ? 75 : 1);
      },
      ExitedWithCode(75),
      "stopping");
}

TEST(StopSignal, NamesOfSignals) {
  EXPECT_STREQ(signal_name(SIGTERM), "SIGTERM");
}

} // namespace
} // namespace deepspeed::machine
