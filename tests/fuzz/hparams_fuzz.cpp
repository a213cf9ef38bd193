// Fuzzes hparams.json: any bytes are settings or an Error, and settings that
// were read are written and read back the same.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "deepspeed/base/error.h"
#include "deepspeed/settings/hparams.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace deepspeed;
  const std::string text(reinterpret_cast<const char*>(data), size);
  try {
    const settings::Settings read = settings::parse_hparams(text, "fuzz");
    const settings::Settings again =
        settings::parse_hparams(settings::to_hparams(read), "again");
    if (!settings::differences(read, again).empty()) {
      std::abort();
    }
    if (!settings::changes_by_hand(settings::to_hparams_file(read), "again")
             .empty()) {
      std::abort();
    }
    settings::changes_by_hand(text, "fuzz");
    settings::validate(read);
  } catch (const base::Error& error) {
    if (error.where() == "again") { // our own text must be readable
      std::abort();
    }
  }
  return 0;
}
