// Files of torch.save and torch.load, without Python.
#include "deepspeed/formats/torch_file.h"

#include <algorithm>
#include <cstring>

#include "deepspeed/base/content_hash.h"
#include "deepspeed/base/error.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/file/mapped_file.h"
#include "deepspeed/formats/pickle.h"
#include "deepspeed/formats/zip.h"

namespace deepspeed::formats {
namespace {

// The records of an archive, behind "<stem>/".
constexpr std::string_view kPickle = "data.pkl";
constexpr std::string_view kFormatVersion = ".format_version";
constexpr std::string_view kAlignment = ".storage_alignment";
constexpr std::string_view kByteOrder = "byteorder";
constexpr std::string_view kStorages = "data/";
constexpr std::string_view kVersion = "version";
constexpr std::string_view kSerializationId = ".data/serialization_id";
// Only a TorchScript archive has it.
constexpr std::string_view kScriptConstants = "constants.pkl";

constexpr size_t kMaxPickleBytes = size_t{64} << 20;

// How the formats before torch 1.6 begin: a pickled magic number.
constexpr unsigned char kOldMagic[] =
    {0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20};

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

[[noreturn]] void refuse(
    const std::string& what,
    const std::string& name,
    const std::string& hint) {
  throw base::Error(base::ExitCode::data, what, name, hint);
}

// Says it plainly when the file is another format altogether.
void check_magic(std::span<const std::byte> bytes, const std::string& name) {
  if (bytes.empty()) {
    refuse("the file is empty", name, "take another checkpoint");
  }
  if (bytes.size() >= sizeof kOldMagic &&
      std::memcmp(bytes.data(), kOldMagic, sizeof kOldMagic) == 0) {
    refuse(
        "torch's old file format (_use_new_zipfile_serialization=False)",
        name,
        "in Python: torch.save(torch.load(OLD), NEW)");
  }
  constexpr std::string_view kZipMagic = "PK";
  const size_t shown = std::min(bytes.size(), kZipMagic.size());
  if (!kZipMagic.starts_with(as_text(bytes.first(shown)))) {
    refuse("this is no file of torch.save", name, "");
  }
}

// "model/data.pkl" -> "model/": all records lie in one folder.
std::string prefix_of(const ZipReader& zip, const std::string& name) {
  if (!zip.entries().empty()) {
    const std::string_view first = zip.entries()[0].name;
    const size_t slash = first.find('/');
    if (slash != std::string_view::npos) {
      return std::string(first.substr(0, slash + 1));
    }
  }
  refuse("an archive, but not one of torch.save", name, "");
}

// The entry at `path` under the archive's prefix, null if it is absent.
const ZipEntry* find_record(
    const ZipReader& zip,
    const std::string& prefix,
    std::string_view path) {
  return zip.find(prefix + std::string(path));
}

// torch names the folder in the archive like the file.
std::string stem_of(const std::string& path) {
  std::string stem = path.substr(path.find_last_of('/') + 1);
  stem = stem.substr(0, stem.rfind('.'));
  const bool plain = std::all_of(stem.begin(), stem.end(), [](unsigned char c) {
    return c >= 0x20 && c < 0x7f;
  });
  return stem.empty() || !plain ? "archive" : stem;
}

// Twenty digits twice, as torch writes them: there hashes of names and of
// checksums, here one hash of both.
std::string serialization_id(uint64_t digest) {
  std::string digits = std::to_string(digest);
  digits.insert(0, 20 - digits.size(), '0');
  return digits + digits;
}

} // namespace

Value parse_torch_file(
    std::span<const std::byte> bytes,
    std::shared_ptr<const void> owner,
    const std::string& name,
    const TorchFileOptions& options) {
  check_magic(bytes, name);
  const ZipReader zip(bytes, name);
  if (options.verify_checksums) {
    zip.verify(options.after_block);
  }
  const std::string prefix = prefix_of(zip, name);
  if (find_record(zip, prefix, kScriptConstants) != nullptr) {
    refuse("a TorchScript archive: it holds code", name, "");
  }
  const ZipEntry* order = find_record(zip, prefix, kByteOrder);
  if (order != nullptr && as_text(order->data) != "little") {
    refuse("written on a big-endian machine", name, "");
  }
  const ZipEntry* pickle = find_record(zip, prefix, kPickle);
  if (pickle == nullptr || pickle->data.size() > kMaxPickleBytes) {
    refuse("no " + std::string(kPickle) + " of a sane size", name, "");
  }
  const auto storages = [&](const std::string& key) {
    const std::string path = std::string(kStorages) + key;
    const ZipEntry* entry = find_record(zip, prefix, path);
    if (entry == nullptr) {
      refuse("entry " + path + " is missing", name, "");
    }
    return std::make_shared<const Storage>(Storage{entry->data, owner});
  };
  return read_pickle(
      pickle->data, storages, name + ": " + std::string(kPickle));
}

Value load_torch_file(
    const std::string& path,
    const TorchFileOptions& options) {
  const auto file = std::make_shared<const file::MappedFile>(path);
  return file->checked(
      [&] { return parse_torch_file(file->bytes(), file, path, options); });
}

WrittenFile save_torch_file(const std::string& path, const Value& value) {
  const Pickle pickle = write_pickle(value);
  base::ContentHash hash;
  file::AtomicFile file(path, &hash);
  ZipWriter zip(file);
  const std::string prefix = stem_of(path) + "/";
  const auto add = [&](std::string_view name, std::string_view text) {
    zip.add(prefix + std::string(name), text);
  };
  add(kPickle, pickle.bytes);
  add(kFormatVersion, "1");
  add(kAlignment, std::to_string(ZipWriter::kAlignment));
  add(kByteOrder, "little");
  for (size_t i = 0; i < pickle.storages.size(); ++i) {
    const Storage& storage = *pickle.storages[i];
    const std::string name =
        prefix + std::string(kStorages) + std::to_string(i);
    if (storage.source == nullptr) {
      zip.add(name, storage.bytes);
    } else {
      zip.add(name, storage.size(), [&](const ByteSink& sink) {
        storage.source->write_to(sink);
      });
    }
  }
  add(kVersion, "3\n");
  add(kSerializationId, serialization_id(zip.digest()));
  zip.finish();
  file.commit();
  return {file.size(), hash.hex()};
}

} // namespace deepspeed::formats
