// Direct exchanges between all pairs of ranks, summed here.
//
// Gloo's own reductions add in an order that depends on sizes and positions.
// Each rank instead receives the parts of its range from all others and adds
// them in rank order; as much travels as in a ring. And since every message has
// one peer, an error names it.
#include "deepspeed/comm/gloo_transport.h"

#include <ATen/Functions.h>
#include <ATen/ops/from_blob.h>
// Without this, c10d's header is empty.
#define USE_C10D_GLOO
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>

#include <array>
#include <csignal>
#include <utility>

#include "deepspeed/base/error.h"
#include "deepspeed/comm/bounded_call.h"
#include "deepspeed/comm/c10d_error.h"
#include "deepspeed/comm/gloo_address.h"
#include "deepspeed/comm/rendezvous.h"

namespace deepspeed::comm {
namespace {

constexpr int64_t kChunkBytes = int64_t{1} << 20; // of each rank
constexpr int kLastTag = 0x7fffffff;

// A message under way; its memory is owned by somebody else.
struct Message {
  int peer = 0;
  c10::intrusive_ptr<c10d::Work> work;
};

class GlooTransport : public Transport {
 public:
  GlooTransport(
      const RankInfo& rank_info,
      c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo)
      : rank_(rank_info.rank),
        size_(rank_info.world_size),
        gloo_(std::move(gloo)) {}

  std::string name() const override {
    return "gloo";
  }
  void reduce_scatter(
      const Buffer& data,
      std::span<const int64_t> bounds,
      ReduceOp op) override;
  void all_gather(const Buffer& data, std::span<const int64_t> bounds) override;
  void broadcast(const Buffer& data, int root) override;
  void barrier() override;

 private:
  int size() const override {
    return size_;
  }
  using Messages = std::vector<Message>;
  void send(std::byte* data, int64_t bytes, int peer, Messages& messages);
  void receive(std::byte* data, int64_t bytes, int peer, Messages& messages);
  // Waits for the messages and forgets them.
  void finish(Messages& messages, const char* doing);
  [[noreturn]] void fail(
      int peer,
      const char* doing,
      const std::exception& error) const;

  int rank_;
  int size_;
  c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo_;
  // Of the collective or chunk under way: messages of two never mix.
  int tag_ = 0;
};

void GlooTransport::fail(
    int peer,
    const char* doing,
    const std::exception& error) const {
  throw base::Error(
      base::ExitCode::unavailable,
      "rank " + std::to_string(rank_) + " lost rank " + std::to_string(peer) +
          " in " + doing + ": " + first_line(error),
      "",
      "its own last lines say why; DEEPSPEED_TIMEOUT (minutes) sets how long "
      "to wait for a rank that is late");
}

void GlooTransport::send(
    std::byte* data,
    int64_t bytes,
    int peer,
    Messages& messages) {
  if (bytes > 0) {
    std::vector<at::Tensor> tensors{at::from_blob(data, {bytes}, at::kByte)};
    try { // a connection that is broken already fails here
      messages.push_back({peer, gloo_->send(tensors, peer, tag_)});
    } catch (const std::exception& error) {
      fail(peer, "a message to it", error);
    }
  }
}

void GlooTransport::receive(
    std::byte* data,
    int64_t bytes,
    int peer,
    Messages& messages) {
  if (bytes > 0) {
    std::vector<at::Tensor> tensors{at::from_blob(data, {bytes}, at::kByte)};
    try {
      messages.push_back({peer, gloo_->recv(tensors, peer, tag_)});
    } catch (const std::exception& error) {
      fail(peer, "a message from it", error);
    }
  }
}

void GlooTransport::finish(Messages& messages, const char* doing) {
  for (const Message& message : messages) {
    try {
      message.work->wait();
    } catch (const std::exception& error) {
      fail(message.peer, doing, error);
    }
  }
  messages.clear();
  tag_ = tag_ == kLastTag ? 0 : tag_ + 1;
}

void GlooTransport::reduce_scatter(
    const Buffer& data,
    std::span<const int64_t> bounds,
    ReduceOp op) {
  const int64_t element = data.element_size();
  const int64_t length = kChunkBytes / element;
  const int64_t count = chunk_count(bounds, length);
  at::Tensor received = at::empty({size_, kChunkBytes}, at::kByte);
  auto* const base = static_cast<std::byte*>(received.data_ptr());
  std::vector<const std::byte*> inputs(size_);
  Messages messages;
  for (int64_t chunk = 0; chunk < count; ++chunk) {
    const Piece own = piece_of(bounds, rank_, chunk, length);
    for (int peer = 0; peer < size_; ++peer) {
      const Piece piece = piece_of(bounds, peer, chunk, length);
      inputs[peer] = base + peer * kChunkBytes;
      if (peer != rank_) {
        receive(base + peer * kChunkBytes, own.size * element, peer, messages);
        send(data.at(piece.begin), piece.size * element, peer, messages);
      }
    }
    finish(messages, "reduce_scatter");
    inputs[rank_] = data.at(own.begin);
    reduce(inputs, own.size, data.dtype, op, data.at(own.begin));
  }
}

void GlooTransport::all_gather(
    const Buffer& data,
    std::span<const int64_t> bounds) {
  const int64_t element = data.element_size();
  Messages messages;
  for (int peer = 0; peer < size_; ++peer) {
    if (peer != rank_) {
      const int64_t own = (bounds[rank_ + 1] - bounds[rank_]) * element;
      const int64_t other = (bounds[peer + 1] - bounds[peer]) * element;
      receive(data.at(bounds[peer]), other, peer, messages);
      send(data.at(bounds[rank_]), own, peer, messages);
    }
  }
  finish(messages, "all_gather");
}

void GlooTransport::broadcast(const Buffer& data, int root) {
  const int64_t bytes = data.numel * data.element_size();
  Messages messages;
  if (rank_ != root) {
    receive(data.data, bytes, root, messages);
  }
  for (int peer = 0; peer < size_ && rank_ == root; ++peer) {
    if (peer != root) {
      send(data.data, bytes, peer, messages);
    }
  }
  finish(messages, "broadcast");
}

void GlooTransport::barrier() {
  std::vector<std::byte> tokens(size_);
  Messages messages;
  for (int peer = 0; peer < size_; ++peer) {
    if (peer != rank_) {
      receive(&tokens[peer], 1, peer, messages);
      send(&tokens[rank_], 1, peer, messages);
    }
  }
  finish(messages, "barrier");
}

} // namespace

std::unique_ptr<Transport> make_gloo_transport(
    const RankInfo& rank_info,
    std::chrono::milliseconds timeout,
    Rendezvous& rendezvous) {
  using c10d::ProcessGroupGloo;
  // Gloo writes to connections that may be closed: that is an error of the
  // collective, not the end of the process.
  struct sigaction pipe = {};
  if (::sigaction(SIGPIPE, nullptr, &pipe) == 0 && pipe.sa_handler == SIG_DFL) {
    pipe.sa_handler = SIG_IGN;
    ::sigaction(SIGPIPE, &pipe, nullptr);
  }
  const std::string address = agree_on_address(rank_info, rendezvous);
  std::string failure = "no answer in time";
  try {
    auto options = ProcessGroupGloo::Options::create(timeout);
    // Not lazily: a rank that cannot be reached is found now.
    options->devices = {
        ProcessGroupGloo::createDeviceForHostname(address, false)};
    options->threads = 1;
    // Gloo alone waits for each connection five times as long.
    auto gloo = finish_by(
        rendezvous.deadline(),
        [store = rendezvous.store(),
         rank = rank_info.rank,
         size = rank_info.world_size,
         options] {
          return c10::make_intrusive<ProcessGroupGloo>(
              store, rank, size, options);
        });
    if (gloo) {
      return std::make_unique<GlooTransport>(rank_info, *std::move(gloo));
    }
  } catch (const std::exception& error) {
    failure = first_line(error);
  }
  throw base::Error(
      base::ExitCode::unavailable,
      "rank " + std::to_string(rank_info.rank) + " at " + address +
          " cannot connect to the others over Gloo: " + failure,
      "",
      "is a rank stopped, or closes a firewall the ports between the hosts? "
      "GLOO_SOCKET_IFNAME chooses another network interface");
}

} // namespace deepspeed::comm
