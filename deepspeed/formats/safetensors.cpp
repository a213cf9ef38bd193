// The safetensors format of Hugging Face: a JSON header and raw tensors.
#include "deepspeed/formats/safetensors.h"

#include <algorithm>
#include <stdexcept>
#include <unordered_set>

#include "deepspeed/base/error.h"
#include "deepspeed/base/json.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/file/mapped_file.h"
#include "deepspeed/formats/safetensors_header.h"

namespace deepspeed::formats {
namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr size_t kHeaderAlignment = 8;
constexpr const char* kMetadata = "__metadata__";

[[noreturn]] void fail(const std::string& what, const std::string& name) {
  throw base::Error(
      base::ExitCode::data,
      what,
      name,
      "the file is damaged, was cut off, or is no safetensors file");
}

using Entry = SafetensorsHeader::Entry;

// Every byte of the data belongs to exactly one tensor.
void check_cover(
    const std::vector<Entry>& entries,
    uint64_t data_bytes,
    const std::string& name) {
  uint64_t at = 0;
  for (const Entry& entry : entries) {
    if (entry.begin != at) {
      fail(
          "the tensors leave a gap or overlap before '" + entry.name +
              "': it begins at " + std::to_string(entry.begin) + ", not at " +
              std::to_string(at),
          name);
    }
    at = entry.end;
  }
  if (at != data_bytes) {
    fail(
        "the tensors take " + std::to_string(at) + " bytes, but " +
            std::to_string(data_bytes) + " follow the header",
        name);
  }
}

// The text of the header; `bytes` begins with its length.
std::string_view header_text(
    std::span<const std::byte> bytes,
    const std::string& name) {
  if (bytes.size() < kLengthBytes) {
    fail(
        "the file has " + std::to_string(bytes.size()) +
            " bytes, less than the length of its header",
        name);
  }
  uint64_t length = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) {
    length |= std::to_integer<uint64_t>(bytes[i]) << (8 * i);
  }
  if (length > kMaxHeaderBytes || length > bytes.size() - kLengthBytes) {
    fail(
        "the header claims " + std::to_string(length) + " bytes of a file of " +
            std::to_string(bytes.size()),
        name);
  }
  const std::string_view text(
      reinterpret_cast<const char*>(bytes.data()) + kLengthBytes, length);
  if (!text.starts_with('{')) {
    fail("the header does not start with '{'", name);
  }
  return text;
}

// The JSON header, padded with spaces.
std::string make_header(
    const std::vector<const NamedTensor*>& tensors,
    const std::vector<std::pair<std::string, std::string>>& metadata) {
  base::Json strings{{"format", "pt"}};
  for (const auto& [key, value] : metadata) {
    strings[key] = value;
  }
  std::string text = "{" + base::Json(kMetadata).dump() + ":" + strings.dump();
  uint64_t at = 0;
  for (const NamedTensor* named : tensors) {
    const Tensor& tensor = named->tensor;
    const uint64_t end = at + tensor.byte_size();
    const base::Json entry{
        {"dtype", safetensors_name(tensor.dtype)},
        {"shape", tensor.sizes},
        {"data_offsets", {at, end}}};
    text += "," + base::Json(named->name).dump() + ":" + entry.dump();
    at = end;
  }
  text += "}";
  const size_t over = text.size() % kHeaderAlignment;
  text.append(over == 0 ? 0 : kHeaderAlignment - over, ' ');
  return text;
}

void write_tensor(file::AtomicFile& file, const Tensor& tensor) {
  if (tensor.storage->source != nullptr) {
    tensor.storage->source->write_to(
        [&](std::span<const std::byte> block) { file.write(block); });
    return;
  }
  if (tensor.is_contiguous()) {
    file.write(tensor.contiguous_bytes());
    return;
  }
  std::vector<std::byte> gathered(tensor.byte_size());
  tensor.copy_to(gathered.data());
  file.write(gathered);
}

} // namespace

const Tensor* Safetensors::find(const std::string& name) const {
  for (const NamedTensor& named : tensors) {
    if (named.name == name) {
      return &named.tensor;
    }
  }
  return nullptr;
}

Safetensors parse_safetensors(
    std::span<const std::byte> bytes,
    std::shared_ptr<const void> owner,
    const std::string& name) {
  const std::string_view text = header_text(bytes, name);
  SafetensorsHeader header = parse_safetensors_header(text, name);
  std::vector<Entry>& entries = header.entries;
  std::stable_sort(
      entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
        return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
      });
  const auto data = bytes.subspan(kLengthBytes + text.size());
  check_cover(entries, data.size(), name);

  Safetensors out;
  out.metadata = std::move(header.metadata);
  for (Entry& entry : entries) {
    Tensor tensor;
    tensor.dtype = entry.dtype;
    tensor.strides = contiguous_strides(entry.sizes);
    tensor.sizes = std::move(entry.sizes);
    tensor.storage = std::make_shared<const Storage>(
        Storage{data.subspan(entry.begin, entry.end - entry.begin), owner});
    out.tensors.push_back({std::move(entry.name), std::move(tensor)});
  }
  return out;
}

Safetensors load_safetensors(const std::string& path) {
  const auto file = std::make_shared<const file::MappedFile>(path);
  return file->checked(
      [&] { return parse_safetensors(file->bytes(), file, path); });
}

void save_safetensors(
    const std::string& path,
    const std::vector<NamedTensor>& tensors,
    const std::vector<std::pair<std::string, std::string>>& metadata) {
  std::vector<const NamedTensor*> order;
  std::unordered_set<std::string_view> names;
  for (const NamedTensor& named : tensors) {
    if (named.name == kMetadata || !names.insert(named.name).second) {
      throw std::invalid_argument("tensor name " + named.name + " is taken");
    }
    if (const std::string why = tensor_fault(named.tensor); !why.empty()) {
      throw std::invalid_argument(named.name + ": " + why);
    }
    if (safetensors_name(named.tensor.dtype).empty()) {
      throw base::Error(
          base::ExitCode::config,
          "'" + named.name + "' is " + describe(named.tensor) +
              ", which safetensors cannot hold",
          path,
          "write a file of torch in its place, pytorch_model.bin");
    }
    order.push_back(&named);
  }
  std::stable_sort(
      order.begin(),
      order.end(),
      [](const NamedTensor* a, const NamedTensor* b) {
        return dtype_size(a->tensor.dtype) > dtype_size(b->tensor.dtype);
      });
  const std::string header = make_header(order, metadata);
  file::AtomicFile file(path);
  std::string length;
  for (size_t i = 0; i < kLengthBytes; ++i) {
    length += static_cast<char>(header.size() >> (8 * i));
  }
  file.write(length);
  file.write(header);
  for (const NamedTensor* named : order) {
    write_tensor(file, named->tensor);
  }
  file.commit();
}

} // namespace deepspeed::formats
