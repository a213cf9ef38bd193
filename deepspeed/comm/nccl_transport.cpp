// Exchanges between all pairs of GPUs, summed here.
//
// NCCL's own sums depend on the algorithm that it chooses for a size and for
// the wiring of a machine. Each rank instead receives the parts of its range
// from all others and adds them in rank order, as over Gloo: the bits are those
// of every other transport. As many bytes reach a GPU as in a ring.
#include "deepspeed/comm/nccl_transport.h"

#include <ATen/Functions.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "deepspeed/base/error.h"

namespace deepspeed::comm {
namespace {

[[noreturn]] void fail_nccl(
    const NcclOptions& options,
    const std::string& doing,
    const std::string& error) {
  throw base::Error(
      base::ExitCode::unavailable,
      "rank " + std::to_string(options.rank) + " failed in " + doing +
          " over NCCL: " + error,
      options.device.str(),
      "each rank needs a GPU of its own; NCCL_DEBUG=INFO says more, and "
      "DEEPSPEED_TIMEOUT (minutes) sets how long to wait for a rank that is "
      "late");
}

class NcclTransport : public Transport {
 public:
  NcclTransport(const cuda::Module& module, const NcclOptions& options)
      : module_(module), options_(options) {
    if (!options.device.is_cpu()) {
      const c10::impl::VirtualGuardImpl gpu(options.device.type());
      stream_ =
          gpu.getStreamFromGlobalPool(options.device, /*isHighPriority=*/true);
    }
  }
  ~NcclTransport() override {
    module_.leave(communicator_);
  }

  std::string name() const override {
    return "nccl";
  }
  void join(const void* id);
  void wait_for(const c10::Event& ready) override;
  void reduce_scatter(
      const Buffer& data,
      std::span<const int64_t> bounds,
      ReduceOp op) override;
  void all_gather(const Buffer& data, std::span<const int64_t> bounds) override;
  void broadcast(const Buffer& data, int root) override;
  void barrier() override;

 private:
  int size() const override {
    return options_.size;
  }
  void* stream() const {
    return stream_ ? stream_->native_handle() : nullptr;
  }
  at::TensorOptions like(const Buffer& data) const {
    return at::TensorOptions(data.dtype).device(options_.device);
  }
  // Throws if it is an error.
  void check(const char* error, const char* doing) const {
    if (error != nullptr) {
      fail_nccl(options_, doing, error);
    }
  }
  at::Tensor view(const Buffer& data, const Piece& piece) const;
  void combine(const at::Tensor& own, const at::Tensor& received, ReduceOp op)
      const;

  const cuda::Module& module_;
  NcclOptions options_;
  // Not that of the backward pass, so that both run at once. None with a
  // stand-in on the CPU.
  std::optional<c10::Stream> stream_;
  cuda::Communicator* communicator_ = nullptr;
};

void NcclTransport::join(const void* id) {
  const c10::OptionalStreamGuard guard(stream_);
  const cuda::Module::Place place{
      options_.rank,
      options_.size,
      std::max<int>(options_.device.index(), 0),
      std::chrono::duration<double>(options_.timeout).count()};
  check(module_.join(id, &place, &communicator_), "joining");
}

void NcclTransport::wait_for(const c10::Event& ready) {
  ready.block(*stream_);
}

at::Tensor NcclTransport::view(const Buffer& data, const Piece& piece) const {
  return at::for_blob(data.at(piece.begin), {piece.size})
      .options(like(data))
      .target_device(options_.device)
      .make_tensor();
}

// own = the reduction of what all ranks have for that range, in their order.
void NcclTransport::combine(
    const at::Tensor& own,
    const at::Tensor& received,
    ReduceOp op) const {
  const auto part = [&](int rank) {
    return rank == options_.rank ? own
                                 : received[rank].narrow(0, 0, own.numel());
  };
  const at::ScalarType dtype = own.scalar_type();
  const bool narrow = dtype == at::kHalf || dtype == at::kBFloat16;
  at::Tensor total = part(0).to(
      narrow ? at::kFloat : dtype, /*non_blocking=*/false, /*copy=*/true);
  for (int rank = 1; rank < options_.size; ++rank) {
    if (op == ReduceOp::sum) {
      total.add_(part(rank));
    } else {
      total = at::maximum(total, part(rank));
    }
  }
  own.copy_(total);
}

void NcclTransport::reduce_scatter(
    const Buffer& data,
    std::span<const int64_t> bounds,
    ReduceOp op) {
  const c10::OptionalStreamGuard guard(stream_);
  const int64_t element = data.element_size();
  const int64_t length =
      std::max(options_.staging_bytes / options_.size / element, int64_t{1});
  const int64_t count = chunk_count(bounds, length);
  const Piece first = piece_of(bounds, options_.rank, 0, length);
  const at::Tensor received =
      at::empty({options_.size, first.size}, like(data));
  auto* const staging = static_cast<std::byte*>(received.data_ptr());
  std::vector<cuda::Message> messages;
  // The next chunk is received after this one is added: there is one stream.
  for (int64_t chunk = 0; chunk < count; ++chunk) {
    const Piece own = piece_of(bounds, options_.rank, chunk, length);
    messages.clear();
    for (int peer = 0; peer < options_.size; ++peer) {
      if (peer != options_.rank) {
        const Piece other = piece_of(bounds, peer, chunk, length);
        messages.push_back(
            {peer,
             data.at(other.begin),
             other.size * element,
             staging + peer * first.size * element,
             own.size * element});
      }
    }
    check(
        module_.exchange(
            communicator_,
            messages.data(),
            static_cast<int64_t>(messages.size()),
            stream()),
        "reduce_scatter");
    if (own.size > 0) {
      combine(view(data, own), received, op);
    }
  }
  check(module_.finish(communicator_, stream()), "reduce_scatter");
}

void NcclTransport::all_gather(
    const Buffer& data,
    std::span<const int64_t> bounds) {
  const c10::OptionalStreamGuard guard(stream_);
  std::vector<int64_t> bytes;
  for (const int64_t bound : bounds) {
    bytes.push_back(bound * data.element_size());
  }
  check(
      module_.gather(communicator_, data.data, bytes.data(), stream()),
      "all_gather");
  check(module_.finish(communicator_, stream()), "all_gather");
}

void NcclTransport::broadcast(const Buffer& data, int root) {
  const c10::OptionalStreamGuard guard(stream_);
  const int64_t bytes = data.numel * data.element_size();
  check(
      module_.broadcast(communicator_, data.data, bytes, root, stream()),
      "broadcast");
  check(module_.finish(communicator_, stream()), "broadcast");
}

void NcclTransport::barrier() {
  const c10::OptionalStreamGuard guard(stream_);
  const at::Tensor tokens = at::zeros(
      {options_.size}, at::TensorOptions(at::kByte).device(options_.device));
  all_gather(
      {static_cast<std::byte*>(tokens.data_ptr()), options_.size, at::kByte},
      even_bounds(options_.size, options_.size));
}

} // namespace

std::unique_ptr<Transport> make_nccl_transport(
    const cuda::Module& module,
    const NcclOptions& options,
    Transport& host) {
  // Rank 0's identification, after one byte that says whether there is one.
  std::vector<std::byte> id(1 + cuda::kIdBytes);
  std::string error;
  if (options.rank == 0) {
    const char* const failed = module.make_id(&id[1]);
    error = failed == nullptr ? "" : failed;
    id[0] = static_cast<std::byte>(failed == nullptr ? 1 : 0);
  }
  host.broadcast({id.data(), static_cast<int64_t>(id.size()), at::kByte}, 0);
  if (id[0] == std::byte{0}) {
    fail_nccl(
        options, "joining", error.empty() ? "rank 0 cannot start it" : error);
  }
  auto transport = std::make_unique<NcclTransport>(module, options);
  transport->join(&id[1]);
  return transport;
}

} // namespace deepspeed::comm
