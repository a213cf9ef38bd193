// Memory that the processes of one host share.
#pragma once

#include <cstddef>
#include <memory>

#include "deepspeed/comm/peer_process.h"

namespace deepspeed::comm {

// A mapped segment. It has no name in any file system: it lives as long as a
// process maps it, so nothing is left behind by a process that dies, and the
// size of /dev/shm does not matter.
class SharedSegment {
 public:
  // A new one, zeroed, all its memory taken at once: a shortage is an Error
  // here, not a crash later. Throws base::Error(unavailable).
  static std::shared_ptr<SharedSegment> create(size_t bytes);
  // Maps the segment that `owner` holds as `descriptor`. Throws
  // base::Error(unavailable) when the system does not allow it.
  static std::shared_ptr<SharedSegment> open(
      const PeerProcess& owner,
      int descriptor,
      size_t bytes);
  ~SharedSegment();
  SharedSegment(const SharedSegment&) = delete;
  SharedSegment& operator=(const SharedSegment&) = delete;

  std::byte* data() const {
    return data_;
  }
  size_t size() const {
    return size_;
  }
  // For peers to open; -1 after close_descriptor().
  int descriptor() const {
    return descriptor_;
  }
  // To be called when all peers have opened it.
  void close_descriptor();

 private:
  SharedSegment(int descriptor, size_t bytes);

  int descriptor_;
  size_t size_;
  std::byte* data_ = nullptr;
};

} // namespace deepspeed::comm
