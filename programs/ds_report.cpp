// ds_report: whether this machine is ready for training.
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "deepspeed/base/error.h"
#include "deepspeed/kernels/isa.h"
#include "deepspeed/machine/machine_check.h"
#include "deepspeed/text/data_lookup.h"
#include "deepspeed/text/source_files.h"
#include "programs/command_line.h"

namespace {

using namespace deepspeed;
using machine::Check;

struct Options {
  std::string data_dir;
  std::string dataset = "encyclopedia";
  std::string tokenizer = "roberta-base";
  bool json = false;
};

// Where libtorch may lie: this program does not load it.
std::vector<std::string> libtorch_places() {
  std::vector<std::string> places;
  if (const char* root = std::getenv("TORCH_ROOT")) {
    places.emplace_back(root);
  }
#if defined(DS_TORCH_ROOT)
  places.emplace_back(DS_TORCH_ROOT);
#endif
  std::error_code ignored;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", ignored);
  const auto checkout = program.parent_path().parent_path().parent_path();
  places.push_back((checkout / ".deps/site/torch").string());
  return places;
}

// `find` returns the path, or throws an Error that says where it looked.
template <typename Find>
Check check_data(const std::string& name, Find find) {
  try {
    return {name, find()};
  } catch (const base::Error& error) {
    return {
        name,
        error.what(),
        Check::Status::fail,
        error.hint().empty() ? "run make data" : error.hint()};
  }
}

// The instruction set that the kernels run on, and what DS_CPU_ISA can ask for.
Check check_kernels() {
  try {
    std::string others;
    for (const std::string& isa : kernels::available_isas()) {
      others += (others.empty() ? "" : ", ") + isa;
    }
    return {
        "CPU kernels",
        kernels::active_isa() + " (DS_CPU_ISA takes " + others + ")"};
  } catch (const base::Error& error) {
    return {"CPU kernels", error.what(), Check::Status::fail, error.hint()};
  }
}

int run(const Options& options) {
  std::vector<Check> checks = machine::check_machine(".");
  checks.push_back(check_kernels());
  checks.push_back(machine::check_libtorch(libtorch_places()));
  checks.push_back(check_data("Data set " + options.dataset, [&] {
    return text::dataset_at(
               text::find_dataset(options.dataset, options.data_dir))
        .train.path;
  }));
  checks.push_back(check_data("Tokenizer " + options.tokenizer, [&] {
    return text::find_tokenizer(options.tokenizer, options.data_dir);
  }));
  const std::string output = options.json ? machine::checks_json(checks) + "\n"
                                          : machine::checks_text(checks);
  std::fputs(output.c_str(), stdout);
  return machine::all_good(checks) ? 0 : 1;
}

} // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app(
      "Shows versions, processor, memory, disk and data.\n"
      "Exit status: 0, or 1 if a check fails.");
  app.add_flag("--json", options.json, "print JSON");
  app.add_option("--data_dir", options.data_dir, "where names are looked up");
  app.add_option("--dataset", options.dataset, "name or path");
  app.add_option("--tokenizer", options.tokenizer, "name or folder");
  return base::run_program([&] {
    return run_with_arguments(app, argc, argv, [&] { return run(options); });
  });
}
