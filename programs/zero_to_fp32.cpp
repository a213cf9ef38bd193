// zero_to_fp32: a checkpoint of DeepSpeed becomes plain fp32 weights, without
// Python and without running anything that the files hold.
#include <cstdio>
#include <string>

#include "command_line.h"
#include "deepspeed/base/log.h"
#include "deepspeed/checkpoint/zero_export.h"

namespace {

using namespace deepspeed;

struct Options {
  std::string checkpoint_dir;
  std::string output_dir;
  std::string max_shard_size = "5GB";
  std::string tag;
  bool newest_whole = false;
  bool safetensors = false;
  bool exclude_frozen = false;
  bool debug = false;
};

void add_flags(CLI::App& app, Options& options) {
  app.add_option(
         "checkpoint_dir",
         options.checkpoint_dir,
         "the folder that holds `latest` and the tags, or a tag's folder")
      ->required();
  app.add_option(
         "output_dir", options.output_dir, "where the weights are written")
      ->required();
  app.add_option(
         "--max_shard_size",
         options.max_shard_size,
         "bytes of one file of weights: 5GB, 200MB ...")
      ->capture_default_str();
  app.add_flag(
      "--safe_serialization",
      options.safetensors,
      "write model.safetensors instead of pytorch_model.bin");
  app.add_option(
      "-t,--tag",
      options.tag,
      "which checkpoint; default: the one in `latest`");
  app.add_flag(
      "--newest_whole",
      options.newest_whole,
      "the newest checkpoint that is whole, if the one in `latest` is not");
  app.add_flag(
      "--exclude_frozen_parameters",
      options.exclude_frozen,
      "leave out parameters that were not trained");
  app.add_flag("-d,--debug", options.debug, "print every parameter");
}

void print(const checkpoint::ZeroCheckpoint& checkpoint, bool debug) {
  const checkpoint::ZeroTopology& topology = checkpoint.topology();
  size_t count = 0;
  int64_t numel = 0;
  for (const auto& group : topology.groups) {
    count += group.parameters.size();
    numel += group.numel();
    for (const auto& parameter : group.parameters) {
      if (debug) {
        std::printf(
            "%s: %lld elements\n",
            parameter.name.c_str(),
            static_cast<long long>(parameter.numel()));
      }
    }
  }
  std::printf(
      "%s: ZeRO stage %d of %d %s, step %lld, %zu parameters, "
      "%lld elements\n",
      checkpoint.path().c_str(),
      topology.stage,
      topology.ranks,
      topology.ranks == 1 ? "rank" : "ranks",
      static_cast<long long>(checkpoint.global_steps()),
      count,
      static_cast<long long>(numel));
}

int run(const Options& options) {
  checkpoint::ExportOptions how;
  how.max_shard_size = checkpoint::parse_size(options.max_shard_size);
  how.safetensors = options.safetensors;
  how.exclude_frozen = options.exclude_frozen;
  checkpoint::ZeroOpenOptions open;
  open.weights_only = true;
  open.newest_whole = options.newest_whole;
  const auto checkpoint = checkpoint::ZeroCheckpoint::open(
      options.checkpoint_dir, options.tag, open);
  for (const std::string& line : checkpoint.skipped()) {
    base::log_warning("passed over a checkpoint: " + line);
  }
  for (const std::string& line : checkpoint.notes()) {
    base::log_warning(line);
  }
  print(checkpoint, options.debug);
  for (const std::string& path :
       checkpoint::export_fp32(checkpoint, options.output_dir, how)) {
    std::puts(path.c_str());
  }
  return 0;
}

} // namespace

int main(int argc, char** argv) {
  return base::run_program([&] {
    Options options;
    CLI::App app(
        "Turns a checkpoint of DeepSpeed (ZeRO stage 0, 1 or 2) into fp32\n"
        "weights. Needs memory for about one tensor, and no Python.");
    add_flags(app, options);
    return run_with_arguments(app, argc, argv, [&] { return run(options); });
  });
}
