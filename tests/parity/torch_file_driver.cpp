// A small program around the checkpoint library for the Python parity tests.
#include <cstdio>
#include <string>
#include <vector>

#include "deepspeed/base/error.h"
#include "deepspeed/formats/dump.h"
#include "deepspeed/formats/safetensors.h"
#include "deepspeed/formats/torch_file.h"

namespace {

using namespace deepspeed;
using namespace deepspeed;

int run(const std::vector<std::string>& args) {
  const std::string verb = args.size() > 1 ? args[1] : "";
  if (verb == "dump" && args.size() == 3) {
    std::puts(formats::dump(formats::load_torch_file(args[2])).dump().c_str());
  } else if (verb == "roundtrip" && args.size() == 4) {
    formats::save_torch_file(args[3], formats::load_torch_file(args[2]));
  } else if (verb == "safetensors" && args.size() == 4) {
    formats::save_safetensors(
        args[3], formats::load_safetensors(args[2]).tensors);
  } else {
    std::fprintf(
        stderr,
        "usage: torch_file_driver dump IN.pt | roundtrip IN.pt OUT.pt |\n"
        "       safetensors IN OUT\n");
    return static_cast<int>(base::ExitCode::usage);
  }
  return 0;
}

} // namespace

int main(int argc, char** argv) {
  return base::run_program(
      [&] { return run(std::vector<std::string>(argv, argv + argc)); });
}
