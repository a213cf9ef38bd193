// What carries the collectives of a process group, one implementation each.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "deepspeed/comm/process_group.h"

namespace deepspeed::comm {

// A contiguous array in the memory that a transport serves.
struct Buffer {
  std::byte* data = nullptr;
  int64_t numel = 0;
  at::ScalarType dtype = at::kByte;

  int64_t element_size() const {
    return static_cast<int64_t>(c10::elementSize(dtype));
  }
  std::byte* at(int64_t element) const {
    return data + element * element_size();
  }
};

// A range of elements.
struct Piece {
  int64_t begin = 0;
  int64_t size = 0;
};

// Piece `chunk` of each range of `bounds`, when all are cut every `length`
// elements: chunks keep all ranks busy even when their ranges lie apart.
Piece piece_of(
    std::span<const int64_t> bounds,
    int rank,
    int64_t chunk,
    int64_t length);
// How many chunks that makes.
int64_t chunk_count(std::span<const int64_t> bounds, int64_t length);

// size + 1 bounds that cut `numel` elements evenly.
std::vector<int64_t> even_bounds(int64_t numel, int size);

// out[i] = the reduction of inputs[rank][i] in the order of the ranks.
void reduce(
    std::span<const std::byte* const> inputs,
    int64_t numel,
    at::ScalarType dtype,
    ReduceOp op,
    std::byte* out);

// The collectives of process_group.h with checked arguments, as calls that
// return when they are done on this rank. Used by one thread at a time.
class Transport {
 public:
  virtual ~Transport() = default;

  virtual std::string name() const = 0;
  // On a GPU: the collectives that follow begin after `ready` there.
  virtual void wait_for(const c10::Event& ready);
  virtual void all_reduce(const Buffer& data, ReduceOp op);
  virtual void reduce_scatter(
      const Buffer& data,
      std::span<const int64_t> bounds,
      ReduceOp op) = 0;
  virtual void all_gather(
      const Buffer& data,
      std::span<const int64_t> bounds) = 0;
  virtual void broadcast(const Buffer& data, int root) = 0;
  virtual void barrier() = 0;
  virtual at::Tensor allocate(int64_t numel, at::ScalarType dtype);

 protected:
  virtual int size() const = 0;
};

// For one rank.
std::unique_ptr<Transport> make_single_transport();

} // namespace deepspeed::comm
