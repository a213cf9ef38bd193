// Spans of time on all threads of a process, recorded while a profile is taken.
#include "deepspeed/base/trace.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <mutex>
#include <stdexcept>

namespace deepspeed::base {
namespace {

// A SpanRecord before it is read: without initializers, so that a buffer's
// pages are touched only where spans are written.
struct Slot {
  const char* what;
  const char* of;
  int64_t index;
  int64_t begin; // steady clock
  int64_t end;
};

// Written by one thread, read by the one that ends the trace.
struct Buffer {
  explicit Buffer(size_t room, const char* thread_name)
      : slots(new Slot[room]), capacity(room), name(thread_name) {}

  const std::unique_ptr<Slot[]> slots;
  const size_t capacity;
  const char* const name;
  std::atomic<size_t> used = 0; // released after the slot is written
  std::atomic<uint64_t> lost = 0;
};

struct Registry {
  std::mutex mutex;
  // Protected by the mutex.
  uint64_t traces = 0; // begun so far
  size_t capacity = 0;
  int64_t start = 0;
  int64_t started = 0;
  std::vector<std::shared_ptr<Buffer>> buffers;
};

// Never destroyed: threads may make spans while the process ends.
Registry& registry() {
  static auto* const instance = new Registry;
  return *instance;
}

thread_local const char* thread_name = "thread";
thread_local std::shared_ptr<Buffer> own_buffer;
thread_local uint64_t own_trace = 0; // that own_buffer belongs to

int64_t now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// This thread's buffer of a trace; null if that trace has ended.
Buffer* buffer_of(uint64_t trace) {
  if (own_trace != trace) {
    Registry& all = registry();
    const std::lock_guard lock(all.mutex);
    if (current_trace.load(std::memory_order_relaxed) != trace) {
      return nullptr;
    }
    own_buffer = std::make_shared<Buffer>(all.capacity, thread_name);
    own_trace = trace;
    all.buffers.push_back(own_buffer);
  }
  return own_buffer.get();
}

ThreadTrace read(const Buffer& buffer, int64_t start) {
  ThreadTrace thread;
  thread.name = buffer.name;
  thread.lost = buffer.lost.load(std::memory_order_relaxed);
  const size_t used = buffer.used.load(std::memory_order_acquire);
  for (size_t i = 0; i < used; ++i) {
    const Slot& slot = buffer.slots[i];
    thread.spans.push_back(
        {{slot.what, slot.of, slot.index},
         slot.begin - start,
         slot.end - start});
  }
  // They were recorded when they ended: of two that began at once, the inner
  // one first.
  std::reverse(thread.spans.begin(), thread.spans.end());
  std::stable_sort(
      thread.spans.begin(),
      thread.spans.end(),
      [](const SpanRecord& a, const SpanRecord& b) {
        return a.begin < b.begin;
      });
  return thread;
}

} // namespace

std::atomic<uint64_t> current_trace = 0;

std::string SpanName::kind() const {
  return *of == '\0' ? what : std::string(what) + " " + of;
}

std::string SpanName::text() const {
  return index < 0 ? kind() : kind() + " " + std::to_string(index);
}

void start_trace(size_t spans_per_thread) {
  Registry& all = registry();
  uint64_t trace = 0;
  {
    const std::lock_guard lock(all.mutex);
    if (current_trace.load(std::memory_order_relaxed) != 0) {
      throw std::logic_error("start_trace() while a trace is being taken");
    }
    trace = ++all.traces;
    all.capacity = spans_per_thread;
    all.buffers.clear();
    all.start = now();
    all.started = std::chrono::duration_cast<std::chrono::microseconds>(
                      std::chrono::system_clock::now().time_since_epoch())
                      .count();
    current_trace.store(trace, std::memory_order_relaxed);
  }
  buffer_of(trace); // the first thread of the trace
}

Trace stop_trace() {
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  current_trace.store(0, std::memory_order_relaxed);
  Trace trace;
  trace.started = all.started;
  for (const auto& buffer : all.buffers) {
    ThreadTrace thread = read(*buffer, all.start);
    if (!thread.spans.empty() || thread.lost > 0) {
      trace.threads.push_back(std::move(thread));
    }
  }
  all.buffers.clear();
  return trace;
}

void name_this_thread(const char* name) {
  thread_name = name;
}

void Span::begin(SpanName name) {
  name_ = name;
  begin_ = now();
}

void Span::end() {
  if (current_trace.load(std::memory_order_relaxed) != trace_) {
    return;
  }
  const int64_t end = now();
  Buffer* buffer = buffer_of(trace_);
  if (buffer == nullptr) {
    return;
  }
  const size_t used = buffer->used.load(std::memory_order_relaxed);
  if (used == buffer->capacity) {
    buffer->lost.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  buffer->slots[used] = {name_.what, name_.of, name_.index, begin_, end};
  buffer->used.store(used + 1, std::memory_order_release);
}

} // namespace deepspeed::base
