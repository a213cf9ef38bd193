// Calls into libraries that may block for good, with a limit.
#pragma once

#include <chrono>
#include <future>
#include <memory>
#include <optional>
#include <thread>
#include <type_traits>
#include <utility>

namespace deepspeed::comm {

// Runs `call` on a thread of its own. Returns its result, throws what it
// throws, or returns nothing at `deadline`: its thread then goes on alone, so
// it must own all that it uses. That is how a process ends that waits for one
// which is stopped, since c10d reads without a limit.
template <typename Call>
std::optional<std::invoke_result_t<Call>> finish_by(
    std::chrono::steady_clock::time_point deadline,
    Call call) {
  using Result = std::invoke_result_t<Call>;
  auto task = std::make_shared<std::packaged_task<Result()>>(std::move(call));
  std::future<Result> result = task->get_future();
  std::thread([task = std::move(task)] { (*task)(); }).detach();
  if (result.wait_until(deadline) != std::future_status::ready) {
    return std::nullopt;
  }
  return result.get();
}

} // namespace deepspeed::comm
