// The arithmetic that all transports share, and the transport of one rank.
#include "deepspeed/comm/transport.h"

#include <ATen/Functions.h>

#include <algorithm>

#include "deepspeed/base/bfloat16.h"
#include "deepspeed/base/error.h"
#include "deepspeed/base/float16.h"
#include "deepspeed/base/memory_advice.h"
#include "deepspeed/kernels/reduce.h"

namespace deepspeed::comm {
namespace {

template <typename T>
void reduce_as(
    std::span<const std::byte* const> inputs,
    int64_t numel,
    ReduceOp op,
    std::byte* out) {
  std::vector<const T*> typed;
  typed.reserve(inputs.size());
  for (const std::byte* input : inputs) {
    typed.push_back(reinterpret_cast<const T*>(input));
  }
  T* const typed_out = reinterpret_cast<T*>(out);
  if (op == ReduceOp::sum) {
    kernels::reduce_sum<T>(typed, numel, typed_out);
  } else {
    kernels::reduce_max<T>(typed, numel, typed_out);
  }
}

class SingleTransport : public Transport {
 public:
  std::string name() const override {
    return "single";
  }
  void reduce_scatter(const Buffer&, std::span<const int64_t>, ReduceOp)
      override {}
  void all_gather(const Buffer&, std::span<const int64_t>) override {}
  void broadcast(const Buffer&, int) override {}
  void barrier() override {}

 protected:
  int size() const override {
    return 1;
  }
};

} // namespace

Piece piece_of(
    std::span<const int64_t> bounds,
    int rank,
    int64_t chunk,
    int64_t length) {
  const int64_t end = bounds[rank + 1];
  const int64_t begin = std::min(bounds[rank] + chunk * length, end);
  return {begin, std::min(length, end - begin)};
}

int64_t chunk_count(std::span<const int64_t> bounds, int64_t length) {
  int64_t longest = 0;
  for (size_t i = 0; i + 1 < bounds.size(); ++i) {
    longest = std::max(longest, bounds[i + 1] - bounds[i]);
  }
  return (longest + length - 1) / length;
}

std::vector<int64_t> even_bounds(int64_t numel, int size) {
  std::vector<int64_t> bounds;
  for (int64_t rank = 0; rank <= size; ++rank) {
    bounds.push_back(numel / size * rank + std::min(numel % size, rank));
  }
  return bounds;
}

void reduce(
    std::span<const std::byte* const> inputs,
    int64_t numel,
    at::ScalarType dtype,
    ReduceOp op,
    std::byte* out) {
  switch (dtype) {
    case at::kFloat:
      return reduce_as<float>(inputs, numel, op, out);
    case at::kDouble:
      return reduce_as<double>(inputs, numel, op, out);
    case at::kLong:
      return reduce_as<int64_t>(inputs, numel, op, out);
    case at::kInt:
      return reduce_as<int32_t>(inputs, numel, op, out);
    case at::kBFloat16:
      return reduce_as<base::BFloat16>(inputs, numel, op, out);
    case at::kHalf:
      return reduce_as<base::Float16>(inputs, numel, op, out);
    default:
      throw base::Error(
          base::ExitCode::internal,
          std::string("no reduction of ") + c10::toString(dtype),
          "",
          "");
  }
}

void Transport::wait_for(const c10::Event& ready) {
  ready.synchronize();
}

void Transport::all_reduce(const Buffer& data, ReduceOp op) {
  const std::vector<int64_t> bounds = even_bounds(data.numel, size());
  reduce_scatter(data, bounds, op);
  all_gather(data, bounds);
}

at::Tensor Transport::allocate(int64_t numel, at::ScalarType dtype) {
  at::Tensor memory = at::empty({numel}, dtype);
  base::advise_huge_pages(memory.data_ptr(), memory.nbytes());
  return memory.zero_();
}

std::unique_ptr<Transport> make_single_transport() {
  return std::make_unique<SingleTransport>();
}

} // namespace deepspeed::comm
