// Checks of arguments, the queue, and control data on top of a transport.
#include "deepspeed/comm/process_group.h"

#include <ATen/Functions.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "deepspeed/base/error.h"
#include "deepspeed/comm/transport.h"

namespace deepspeed::comm {
namespace {

// The array of a tensor that was passed to `collective`; a wrong one is a bug
// of the caller.
Buffer buffer_of(const at::Tensor& data, const char* collective) {
  const auto refuse = [&](const std::string& what) {
    throw std::invalid_argument(std::string(collective) + ": " + what);
  };
  if (!data.defined() || !data.is_contiguous()) {
    refuse("not a contiguous tensor");
  }
  switch (data.scalar_type()) {
    case at::kFloat:
    case at::kDouble:
    case at::kBFloat16:
    case at::kHalf:
    case at::kLong:
    case at::kInt:
    case at::kByte:
      break;
    default:
      refuse(std::string("dtype ") + c10::toString(data.scalar_type()));
  }
  return {
      static_cast<std::byte*>(data.data_ptr()),
      data.numel(),
      data.scalar_type()};
}

Buffer summable(const at::Tensor& data, const char* collective) {
  const Buffer buffer = buffer_of(data, collective);
  if (buffer.dtype == at::kByte) {
    throw std::invalid_argument(
        std::string(collective) + ": no reduction of uint8");
  }
  return buffer;
}

Buffer in_ranges(const at::Tensor& data, const Buffer& buffer) {
  if (data.dim() != 1) {
    throw std::invalid_argument(
        "ranges of a tensor of " + std::to_string(data.dim()) +
        " dimensions: only one can be divided");
  }
  return buffer;
}

std::vector<int64_t> checked(
    std::span<const int64_t> bounds,
    const Buffer& data,
    int size) {
  if (bounds.size() != static_cast<size_t>(size) + 1 || bounds.front() < 0 ||
      bounds.back() > data.numel ||
      !std::is_sorted(bounds.begin(), bounds.end())) {
    throw std::invalid_argument(
        "bounds are not size() + 1 ascending offsets into the tensor");
  }
  return {bounds.begin(), bounds.end()};
}

Buffer bytes_of(std::string& text) {
  return {
      reinterpret_cast<std::byte*>(text.data()),
      static_cast<int64_t>(text.size()),
      at::kByte};
}

Buffer longs_of(std::vector<int64_t>& values) {
  return {
      reinterpret_cast<std::byte*>(values.data()),
      static_cast<int64_t>(values.size()),
      at::kLong};
}

// The first line of each text that is not the same in both.
std::pair<std::string, std::string> differing_lines(
    const std::string& one,
    const std::string& other) {
  std::istringstream lines(one);
  std::istringstream other_lines(other);
  std::string line;
  std::string other_line;
  do {
    line.clear();
    other_line.clear();
    std::getline(lines, line);
    std::getline(other_lines, other_line);
  } while (line == other_line && lines && other_lines);
  const auto trimmed = [](const std::string& text) {
    return text.substr(std::min(text.find_first_not_of(' '), text.size()));
  };
  return {trimmed(line), trimmed(other_line)};
}

// "'text'", shortened.
std::string quoted(const std::string& text) {
  constexpr size_t kShown = 200;
  return text.size() <= kShown ? "'" + text + "'"
                               : "'" + text.substr(0, kShown) + "...'";
}

} // namespace

ProcessGroup::ProcessGroup(
    int rank,
    int size,
    std::unique_ptr<Transport> transport,
    MakeGpuTransport make_gpu)
    : rank_(rank),
      size_(size),
      name_(transport->name()),
      transport_(std::move(transport)),
      make_gpu_(std::move(make_gpu)) {}

ProcessGroup::~ProcessGroup() = default;

Transport& ProcessGroup::transport_for(const at::Device& device) {
  if (device.is_cpu()) {
    return *transport_;
  }
  if (!gpu_transport_) {
    gpu_transport_ = make_gpu_(device, *transport_);
    gpu_ = device;
  }
  if (device != gpu_) {
    throw base::Error(
        base::ExitCode::config,
        "collectives on " + device.str() + " after some on " + gpu_.str(),
        "",
        "a rank has one GPU: move the whole module there");
  }
  return *gpu_transport_;
}

std::shared_ptr<Work> ProcessGroup::push(
    at::Tensor data,
    Action action,
    base::SpanName name) {
  std::shared_ptr<c10::Event> ready; // null for the CPU
  if (!data.is_cpu()) {
    if (!has_gpu() || !data.is_cuda()) {
      throw std::invalid_argument(
          "a tensor on " + data.device().str() +
          ", and no NCCL in this process group: DS_COMM=nccl");
    }
    const c10::DeviceType type = data.device().type();
    ready = std::make_shared<c10::Event>(type);
    ready->record(c10::impl::VirtualGuardImpl(type).getStream(data.device()));
  }
  // The task keeps the tensor.
  auto task = [this,
               data = std::move(data),
               ready = std::move(ready),
               action = std::move(action)] {
    Transport& transport = transport_for(data.device());
    if (ready) {
      transport.wait_for(*ready);
    }
    action(transport);
  };
  return queue_.push(std::move(task), name);
}

std::shared_ptr<Work> ProcessGroup::all_reduce(
    at::Tensor data,
    ReduceOp op,
    base::SpanName name) {
  const Buffer buffer = summable(data, "all_reduce");
  const auto action = [buffer, op](Transport& transport) {
    transport.all_reduce(buffer, op);
  };
  return push(std::move(data), action, name);
}

std::shared_ptr<Work> ProcessGroup::reduce_scatter(
    at::Tensor data,
    std::span<const int64_t> bounds,
    base::SpanName name) {
  const Buffer buffer = in_ranges(data, summable(data, "reduce_scatter"));
  auto action =
      [buffer, ranges = checked(bounds, buffer, size_)](Transport& transport) {
        transport.reduce_scatter(buffer, ranges, ReduceOp::sum);
      };
  return push(std::move(data), std::move(action), name);
}

std::shared_ptr<Work> ProcessGroup::all_gather(
    at::Tensor data,
    std::span<const int64_t> bounds,
    base::SpanName name) {
  const Buffer buffer = in_ranges(data, buffer_of(data, "all_gather"));
  auto action =
      [buffer, ranges = checked(bounds, buffer, size_)](Transport& transport) {
        transport.all_gather(buffer, ranges);
      };
  return push(std::move(data), std::move(action), name);
}

std::shared_ptr<Work> ProcessGroup::broadcast(at::Tensor data, int root) {
  const Buffer buffer = buffer_of(data, "broadcast");
  if (root < 0 || root >= size_) {
    throw std::invalid_argument("broadcast: root is not a rank");
  }
  const auto action = [buffer, root](Transport& transport) {
    transport.broadcast(buffer, root);
  };
  return push(std::move(data), action, {"broadcast"});
}

void ProcessGroup::barrier() {
  queue_.push([this] { transport_->barrier(); }, {"barrier"})->wait();
}

std::vector<std::string> ProcessGroup::all_gather_text(std::string_view text) {
  std::vector<std::string> result(size_);
  const auto gather = [&] {
    std::vector<int64_t> lengths(size_);
    lengths[rank_] = static_cast<int64_t>(text.size());
    transport_->all_gather(longs_of(lengths), even_bounds(size_, size_));
    std::vector<int64_t> bounds{0};
    for (const int64_t length : lengths) {
      bounds.push_back(bounds.back() + length);
    }
    std::string all(bounds.back(), '\0');
    std::copy(text.begin(), text.end(), all.begin() + bounds[rank_]);
    transport_->all_gather(bytes_of(all), bounds);
    for (int rank = 0; rank < size_; ++rank) {
      result[rank] = all.substr(bounds[rank], lengths[rank]);
    }
  };
  queue_.push(gather)->wait();
  return result;
}

std::string ProcessGroup::broadcast_text(std::string_view text, int root) {
  if (root < 0 || root >= size_) {
    throw std::invalid_argument("broadcast_text: root is not a rank");
  }
  std::string result;
  const auto send = [&] {
    std::vector<int64_t> length{static_cast<int64_t>(text.size())};
    transport_->broadcast(longs_of(length), root);
    result = rank_ == root ? std::string(text) : std::string(length[0], '\0');
    transport_->broadcast(bytes_of(result), root);
  };
  queue_.push(send)->wait();
  return result;
}

void ProcessGroup::require_equal(std::string_view name, std::string_view text) {
  const std::vector<std::string> all = all_gather_text(text);
  std::string others;
  for (int rank = 1; rank < size_; ++rank) {
    if (all[rank] != all[0]) {
      others += (others.empty() ? "" : ", ") + std::to_string(rank);
    }
  }
  if (others.empty()) {
    return;
  }
  const auto first = std::find_if(
      all.begin(), all.end(), [&](const auto& one) { return one != all[0]; });
  const auto [line, other_line] = differing_lines(all[0], *first);
  throw base::Error(
      base::ExitCode::config,
      "ranks differ in " + std::string(name) + ": rank 0 has " + quoted(line) +
          ", rank " + std::to_string(first - all.begin()) + " has " +
          quoted(other_line),
      "rank(s) that differ from rank 0: " + others,
      "start all ranks with the same program, flags and files");
}

at::Tensor ProcessGroup::allocate(int64_t numel, at::ScalarType dtype) {
  at::Tensor result;
  queue_.push([&] { result = transport_->allocate(numel, dtype); })->wait();
  return result;
}

} // namespace deepspeed::comm
