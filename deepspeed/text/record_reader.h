// The texts of a file one after the other, whatever its format.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "deepspeed/text/byte_stream.h"
#include "deepspeed/text/text_format.h"

namespace deepspeed::text {

// Not thread-safe.
class RecordReader {
 public:
  virtual ~RecordReader() = default;
  // False at the end. `text` is valid until the next call; of a line that is
  // longer than a sample, it is a front part that is too long as well.
  virtual bool next(std::string_view& text) = 0;
};

// `stream` gives what is in the file after decompression, `name` is the file's
// for messages.
std::unique_ptr<RecordReader> open_records(
    std::unique_ptr<ByteStream> stream,
    TextFormat format,
    const std::string& name,
    const std::string& text_column);

} // namespace deepspeed::text
