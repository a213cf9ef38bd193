// Where a data set or a tokenizer lies, from a path or from a name.
#pragma once

#include <string>

namespace deepspeed::text {

// A path that exists wins. Else `name_or_path` is looked up in the folders
// `data_dir` (if not empty), $DEEPSPEED_DATA_DIR, ./data, and `data` beside the
// executable, in its parent and in its parent's parent, in this order.
// Throws Error(no_input) that lists every place it looked at. The path is one
// for dataset_at().
std::string find_dataset(
    const std::string& name_or_path,
    const std::string& data_dir);
// The same for the folder of a tokenizer.
std::string find_tokenizer(
    const std::string& name_or_path,
    const std::string& data_dir);

} // namespace deepspeed::text
