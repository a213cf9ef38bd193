// Files of torch.save and torch.load, without Python: a stored zip archive of
// one pickle and the bytes of each tensor storage.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "deepspeed/formats/value.h"

namespace deepspeed::formats {

struct TorchFileOptions {
  // Compare every entry with its CRC-32: reads the whole file once. An entry
  // whose CRC is recorded as 0 ("not computed") is let through.
  bool verify_checksums = true;
  // Called after every few MiB of that: whoever mapped the file may give back
  // its pages (file::MappedFile::release_pages). May be empty.
  std::function<void()> after_block = {};
};

// Maps the file; the tensors point into the mapping and keep it alive, so the
// file must not be changed in place while they live. No code of the file is
// run: what is not a plain value, a tensor or a known inert record is refused.
// Error(no_input) if the file cannot be opened, Error(data) if it is truncated,
// damaged, hostile, of torch's old format, or big-endian.
Value load_torch_file(
    const std::string& path,
    const TorchFileOptions& options = {});

// The same from bytes in memory that `owner` keeps alive; `name` is for
// messages.
Value parse_torch_file(
    std::span<const std::byte> bytes,
    std::shared_ptr<const void> owner,
    const std::string& name,
    const TorchFileOptions& options = {});

struct WrittenFile {
  uint64_t size = 0;
  std::string hash; // base::ContentHash of all bytes
};

// Writes what torch.load(path, weights_only=True) reads, unless the tree holds
// records other than torch's own. A storage is written once, however many
// tensors share it; its bytes go from where they lie to the file. The file
// appears whole, synced, or not at all: Error(cannot_create), Error(io). Its
// hash is computed on the way.
// std::invalid_argument if a tensor is not a view of its storage, a key is not
// hashable or the tree is deeper than kMaxValueDepth.
WrittenFile save_torch_file(const std::string& path, const Value& value);

} // namespace deepspeed::formats
