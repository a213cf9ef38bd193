// What the system and the C library are told about memory that training uses
// again and again.
#pragma once

#include <cstddef>

namespace deepspeed::base {

// Larger pages take fewer translations of addresses, 3 to 5 % of a step of the
// default model. Asks Linux for huge pages (madvise(2), MADV_HUGEPAGE) wherever
// they fit into the `bytes` at `data`; best before the memory is first written.
// A wish: where it cannot be granted nothing happens. Contents stay as they
// are.
void advise_huge_pages(void* data, size_t bytes);

// What is freed stays with the process for the next step, up to blocks of 32
// MiB: else each step gets fresh pages, which the kernel fills with zeros
// first. The next 256 MiB that the heap grows by are advised to be huge pages,
// about 1 % of a step. For programs that train; the peak of their memory hardly
// changes.
void keep_freed_memory();

} // namespace deepspeed::base
