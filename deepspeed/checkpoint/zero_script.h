// The script that a checkpoint folder carries.
#pragma once

#include <string_view>

namespace deepspeed::checkpoint {

// zero_to_fp32.py: the same conversion as export_fp32() for people who have
// Python and torch only. It makes no object of a file but tensors.
std::string_view zero_to_fp32_script();

} // namespace deepspeed::checkpoint
