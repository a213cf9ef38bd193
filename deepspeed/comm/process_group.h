// The ranks of a run, and the collectives between them.
//
// All ranks of a process group call the same collectives with the same sizes
// in the same order. One rank is a real group of one: nothing is special.
#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "deepspeed/comm/rank_info.h"
#include "deepspeed/comm/work.h"

namespace deepspeed::comm {

class Transport;

enum class ReduceOp { sum, max };

struct ProcessGroupOptions {
  // How long a rank waits for the others: inside a collective, and for all to
  // join. 0: DEEPSPEED_TIMEOUT of the environment (in minutes, fractions are
  // fine), or else 10 minutes.
  std::chrono::milliseconds timeout{0};
  // "": DS_COMM of the environment, or else shared memory when all ranks run
  // on one host and Gloo otherwise. "shm", "gloo": this one or an error.
  // "nccl": as "", and NCCL for tensors on GPUs.
  std::string transport;
};

// What carries collectives on a GPU; made when the first one is called.
using MakeGpuTransport =
    std::function<std::unique_ptr<Transport>(at::Device, Transport& host)>;

// Tensors are contiguous, 1-D where they are divided into ranges, of float32,
// float64, bfloat16, float16, int64, int32 or uint8 (no sums of uint8), on the
// CPU or, if has_gpu(), on one GPU for each rank, the same in all calls. They
// must not be touched between the call and the end of Work::wait(). On a GPU a
// collective begins after what the current stream of the calling thread was
// given before.
//
// A sum is the values in rank order, ((rank 0 + rank 1) + rank 2) + ...,
// rounded to fp32 after each addition and to the dtype once at the end. So the
// bits of a result depend neither on the transport, nor on where ranges are
// cut. A maximum is NaN when any value is.
//
// `name` is what a profile calls a collective.
//
// Collectives run one after the other, in the order of the calls, on one thread
// of the group; the calls may come from any one thread at a time. After one has
// failed the group is broken: that collective and every later one throws the
// same base::Error, with code
//   unavailable  a rank has died or did not arrive in time, by its name
//   config       ranks do not agree (require_equal)
//   internal     ranks called different collectives
class ProcessGroup {
 public:
  ProcessGroup(
      int rank,
      int size,
      std::unique_ptr<Transport> transport,
      MakeGpuTransport make_gpu = nullptr);
  // Waits for the collective that is under way, drops those after it.
  ~ProcessGroup();
  ProcessGroup(const ProcessGroup&) = delete;
  ProcessGroup& operator=(const ProcessGroup&) = delete;

  int rank() const {
    return rank_;
  }
  int size() const {
    return size_;
  }
  // "single", "shared memory" or "gloo": what carries host memory.
  const std::string& name() const {
    return name_;
  }
  // Whether tensors on a GPU may be passed.
  bool has_gpu() const {
    return make_gpu_ != nullptr;
  }

  // In place: every rank gets the reduction of all.
  std::shared_ptr<Work> all_reduce(
      at::Tensor data,
      ReduceOp op,
      base::SpanName name = {"all-reduce"});

  // In place. `bounds` are size() + 1 ascending offsets into `data`: rank r
  // gets the sum over [bounds[r], bounds[r + 1]) there. What lies outside that
  // range keeps the values of this rank.
  std::shared_ptr<Work> reduce_scatter(
      at::Tensor data,
      std::span<const int64_t> bounds,
      base::SpanName name = {"reduce-scatter"});

  // In place: the range [bounds[r], bounds[r + 1]) of rank r is copied to every
  // rank. What lies outside of all ranges stays.
  std::shared_ptr<Work> all_gather(
      at::Tensor data,
      std::span<const int64_t> bounds,
      base::SpanName name = {"all-gather"});

  std::shared_ptr<Work> broadcast(at::Tensor data, int root);

  // Returns when all ranks have called it. Like the calls below, it comes after
  // all collectives that were called before it.
  void barrier();

  // Small control data, of any length on each rank.
  std::vector<std::string> all_gather_text(std::string_view text);
  std::string broadcast_text(std::string_view text, int root);
  // Throws base::Error(config) on all ranks, naming `name` and the ranks, when
  // they differ in `text`.
  void require_equal(std::string_view name, std::string_view text);

  // Zeroed memory on which the collectives of this group make no copies
  // (between ranks of one host: memory that they all see). A collective by
  // itself: all ranks ask for the same. The tensor may outlive the group;
  // other ranks keep the memory until their group goes.
  at::Tensor allocate(int64_t numel, at::ScalarType dtype);

 private:
  using Action = std::function<void(Transport& transport)>;
  std::shared_ptr<Work> push(
      at::Tensor data,
      Action action,
      base::SpanName name);
  Transport& transport_for(const at::Device& device);

  int rank_;
  int size_;
  std::string name_;
  std::unique_ptr<Transport> transport_;
  MakeGpuTransport make_gpu_;
  // Made and used on the thread of queue_.
  std::unique_ptr<Transport> gpu_transport_;
  at::Device gpu_ = at::kCPU; // of gpu_transport_
  WorkQueue queue_; // after the transports: its thread ends first
};

// Joins the ranks of a run. Throws base::Error: unavailable when rank 0 cannot
// be reached or a rank does not join in time (naming those that did and did
// not), config when the ranks do not belong together.
std::shared_ptr<ProcessGroup> make_process_group(
    const RankInfo& rank_info,
    const ProcessGroupOptions& options = {});

} // namespace deepspeed::comm
