// How loops over tensors are shared out among threads.
#include "deepspeed/flat/parallel.h"

namespace deepspeed::flat {
namespace {

// Never destroyed: a process may end while another thread runs a loop.
base::ThreadPool* pool = nullptr;

} // namespace

int64_t threads() {
  return pool != nullptr ? pool->threads() : at::get_num_threads();
}

void use_own_threads(int threads) {
  TORCH_CHECK(pool == nullptr, "use_own_threads() was called before");
  at::set_num_threads(1);
  pool = new base::ThreadPool(threads);
}

base::ThreadPool* own_threads() {
  return pool;
}

} // namespace deepspeed::flat
