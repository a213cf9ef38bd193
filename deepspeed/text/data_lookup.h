// Where a data set or a tokenizer lies, from a path or from a name.
#pragma once

#include <string>

namespace deepspeed::text {

// The files of a data set; each is a file or a folder for list_sources().
struct Dataset {
  std::string train;
  std::string valid; // "" if there is none
  std::string test; // "" if there is none
};

// The data set at a path: a folder with a file train.txt or train.jsonl (also
// .gz and .zst) has splits train, valid, test; another folder, or a file, is
// training text as a whole. Throws Error(data) for two files of one split.
Dataset dataset_at(const std::string& path);

// A path that exists wins. Else `name_or_path` is looked up in the folders
// `data_dir` (if not empty), $DEEPSPEED_DATA_DIR, ./data, and `data` beside the
// executable, in its parent and in its parent's parent, in this order.
// Throws Error(no_input) that lists every place it looked at.
Dataset find_dataset(
    const std::string& name_or_path,
    const std::string& data_dir);
// The same for the folder of a tokenizer.
std::string find_tokenizer(
    const std::string& name_or_path,
    const std::string& data_dir);

} // namespace deepspeed::text
