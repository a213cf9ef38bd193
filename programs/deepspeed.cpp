// deepspeed: starts a program once for each slot and watches it.
#include "deepspeed/base/error.h"
#include "deepspeed/launcher/launch.h"

int main(int argc, char** argv) {
  return deepspeed::base::run_program(
      [&] { return deepspeed::launcher::launch(argc, argv); });
}
