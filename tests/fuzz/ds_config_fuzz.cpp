// Fuzzes ds_config.json: any bytes are a configuration or an Error(config), and
// what was read is printed and read back the same.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "deepspeed/base/error.h"
#include "deepspeed/config/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace deepspeed;
  const std::string text(reinterpret_cast<const char*>(data), size);
  config::Context context;
  context.world_size = 2;
  context.dtype = config::Dtype::fp16;
  context.micro_batch_size = 4;
  context.gradient_accumulation_steps = 3;
  context.lr = 1e-4;
  context.hidden_size = 64;
  config::Config read;
  try {
    read = config::parse_config(text, "fuzz", context);
  } catch (const base::Error& error) {
    if (error.code() != base::ExitCode::config ||
        error.report().size() > 4096) {
      std::abort();
    }
    return 0;
  }
  // An error from here on is ours: our own text must be readable.
  const std::string printed = config::print_config(read);
  if (config::print_config(config::parse_config(printed, "again", context)) !=
      printed) {
    std::abort();
  }
  return 0;
}
