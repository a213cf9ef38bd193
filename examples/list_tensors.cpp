// Lists the tensors of a torch file, without libtorch or Python.
#include <cstdio>
#include <string>

#include "deepspeed/base/error.h"
#include "deepspeed/formats/torch_file.h"

using namespace deepspeed;

namespace {

// Walks the tree: a state dict is a dict of tensors, a checkpoint a dict of
// state dicts.
void list(const formats::Value& value, const std::string& name) {
  if (const formats::Tensor* tensor = value.tensor()) {
    std::printf("%s: %s\n", name.c_str(), describe(*tensor).c_str());
  } else if (const auto* dict = value.get_if<formats::Dict>()) {
    for (const formats::DictEntry& entry : dict->entries) {
      if (const auto* key = entry.key.get_if<std::string>()) {
        list(entry.value, name.empty() ? *key : name + "." + *key);
      }
    }
  }
}

} // namespace

int main(int argc, char** argv) {
  return base::run_program([&] {
    if (argc != 2) {
      throw base::Error(
          base::ExitCode::usage,
          "one file is needed",
          argv[0],
          "list_tensors FILE.pt");
    }
    list(formats::load_torch_file(argv[1]), "");
    return 0;
  });
}
