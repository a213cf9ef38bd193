// The JSON header of a safetensors file, read in one pass.
#include "deepspeed/formats/safetensors_header.h"

#include <unordered_set>

#include "deepspeed/base/error.h"
#include "deepspeed/base/json.h"
#include "deepspeed/formats/tensor.h"

namespace deepspeed::formats {
namespace {

using Entry = SafetensorsHeader::Entry;

constexpr size_t kMaxDimensions = 25;

// Follows the parser through
//   {"__metadata__": {KEY: STRING, ...},
//    NAME: {"dtype": STRING, "shape": [N, ...], "data_offsets": [N, N]}, ...}
// Every callback says whether the event fits the place.
class Handler : public nlohmann::json_sax<base::Json> {
 public:
  SafetensorsHeader header;
  std::string problem;

  bool null() override {
    return misfit("null");
  }
  bool boolean(bool) override {
    return misfit("true or false");
  }
  bool number_integer(number_integer_t) override {
    return misfit("a negative number");
  }
  bool number_float(number_float_t, const string_t&) override {
    return misfit("a fraction");
  }
  bool binary(binary_t&) override {
    return misfit("binary data");
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (value > static_cast<uint64_t>(INT64_MAX)) {
      return fail("the number " + std::to_string(value) + " is too large");
    }
    if (state_ == State::shape) {
      Entry& entry = header.entries.back();
      if (entry.sizes.size() == kMaxDimensions) {
        return fail("too many dimensions");
      }
      entry.sizes.push_back(static_cast<int64_t>(value));
      return true;
    }
    if (state_ == State::offsets && offsets_ < 2) {
      Entry& entry = header.entries.back();
      (offsets_++ == 0 ? entry.begin : entry.end) = value;
      return true;
    }
    return misfit("a number");
  }

  bool string(string_t& text) override {
    if (state_ == State::metadata) {
      header.metadata.back().second = std::move(text);
      return true;
    }
    if (state_ == State::tensor && field_ == "dtype") {
      const std::optional<DType> dtype = dtype_of_safetensors_name(text);
      if (!dtype) {
        return fail("the dtype \"" + text.substr(0, 20) + "\" is not known");
      }
      header.entries.back().dtype = *dtype;
      return true;
    }
    return misfit("a string");
  }

  bool key(string_t& name) override {
    if (state_ == State::tensor) {
      field_ = name;
      const unsigned bit = name == "dtype" ? 1
          : name == "shape"                ? 2
          : name == "data_offsets"         ? 4
                                           : 0;
      if (bit == 0 || (fields_ & bit) != 0) {
        return fail(
            "the key \"" + name.substr(0, 60) +
            "\" is unknown or stands twice");
      }
      fields_ |= bit;
      return true;
    }
    auto& seen = state_ == State::metadata ? metadata_names_ : names_;
    if (!seen.insert(name).second) {
      return fail("duplicate key \"" + name.substr(0, 60) + "\"");
    }
    if (state_ == State::metadata) {
      header.metadata.emplace_back(std::move(name), "");
    } else {
      is_metadata_ = name == "__metadata__";
      if (!is_metadata_) {
        header.entries.emplace_back().name = std::move(name);
      }
    }
    return true;
  }

  bool start_object(std::size_t) override {
    if (state_ == State::start) {
      state_ = State::top;
    } else if (state_ == State::top) {
      state_ = is_metadata_ ? State::metadata : State::tensor;
      fields_ = 0;
      offsets_ = 0;
    } else {
      return misfit("an object");
    }
    return true;
  }

  bool end_object() override {
    if (state_ == State::top) {
      state_ = State::end;
      return true;
    }
    const bool was_tensor = state_ == State::tensor;
    state_ = State::top;
    return !was_tensor || check_entry();
  }

  bool start_array(std::size_t) override {
    if (state_ != State::tensor || field_ == "dtype") {
      return misfit("an array");
    }
    state_ = field_ == "shape" ? State::shape : State::offsets;
    return true;
  }

  bool end_array() override {
    state_ = State::tensor;
    return true;
  }

  bool parse_error(
      std::size_t position,
      const std::string&,
      const nlohmann::detail::exception&) override {
    return fail("not valid JSON at byte " + std::to_string(position));
  }

 private:
  enum class State { start, top, metadata, tensor, shape, offsets, end };

  bool fail(std::string why) {
    problem = std::move(why);
    return false;
  }

  bool misfit(const std::string& what) {
    return fail("the header has " + what + " where it does not belong");
  }

  bool check_entry() {
    const Entry& entry = header.entries.back();
    if (fields_ != 7 || offsets_ != 2) {
      return fail("a tensor needs a dtype, a shape and two offsets");
    }
    const auto bytes = checked_byte_size(entry.sizes, entry.dtype);
    if (!bytes || entry.begin > entry.end ||
        entry.end - entry.begin != *bytes) {
      Tensor shown;
      shown.dtype = entry.dtype;
      shown.sizes = entry.sizes;
      return fail(
          describe(shown) + " does not take the bytes " +
          std::to_string(entry.begin) + " to " + std::to_string(entry.end));
    }
    return true;
  }

  State state_ = State::start;
  bool is_metadata_ = false;
  std::string field_; // of the tensor, being read
  unsigned fields_ = 0; // a bit for each field of the tensor read so far
  int offsets_ = 0; // read so far
  std::unordered_set<std::string> names_;
  std::unordered_set<std::string> metadata_names_;
};

} // namespace

SafetensorsHeader parse_safetensors_header(
    std::string_view text,
    const std::string& source) {
  Handler handler;
  if (!base::Json::sax_parse(text, &handler)) {
    const auto& entries = handler.header.entries;
    const std::string last = entries.empty()
        ? ""
        : ", at tensor '" + entries.back().name.substr(0, 100) + "'";
    throw base::Error(
        base::ExitCode::data,
        handler.problem,
        source + last,
        "the file is damaged or is no safetensors file");
  }
  return std::move(handler.header);
}

} // namespace deepspeed::formats
