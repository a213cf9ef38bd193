// Batches on disk, so that other programs train on exactly the same ones.
#pragma once

#include <string>

#include "deepspeed/file/atomic_file.h"
#include "deepspeed/text/batch.h"

namespace deepspeed::text {

// One line of JSON: {"ids": [...], "positions": [...], "cu_seqlens": [...],
// "masked": [...], "labels": [...], "visits": [...]}, as in PackedBatch.
std::string batch_to_json(const PackedBatch& batch);

// A file of such lines that appears when it is complete. Not thread-safe.
class BatchFileWriter {
 public:
  explicit BatchFileWriter(const std::string& path) : file_(path) {}
  void write(const PackedBatch& batch) {
    file_.write(batch_to_json(batch) + "\n");
  }
  void commit() {
    file_.commit();
  }

 private:
  file::AtomicFile file_;
};

} // namespace deepspeed::text
