// Fuzzes hparams.json: any bytes are settings or an Error, and settings that
// were read are written and read back the same.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "deepspeed/base/error.h"
#include "deepspeed/report/hparams.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace deepspeed;
  const std::string text(reinterpret_cast<const char*>(data), size);
  try {
    const report::Settings read = report::parse_hparams(text, "fuzz");
    const report::Settings again =
        report::parse_hparams(report::to_hparams(read), "again");
    if (!report::differences(read, again).empty()) {
      std::abort();
    }
    if (!report::changes_by_hand(report::to_hparams_file(read), "again")
             .empty()) {
      std::abort();
    }
    report::changes_by_hand(text, "fuzz");
    report::validate(read);
  } catch (const base::Error& error) {
    if (error.where() == "again") { // our own text must be readable
      std::abort();
    }
  }
  return 0;
}
