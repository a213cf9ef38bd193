// The environment of a rank.
#include "deepspeed/launcher/rank_environment.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <optional>

#include "deepspeed/base/error.h"
#include "deepspeed/file/atomic_file.h"
#include "deepspeed/launcher/child_process.h"

namespace deepspeed::launcher {

namespace {

namespace fs = std::filesystem;

// Prefixes: DeepSpeed's list (runner.py, and export_envs of its CUDA
// accelerator), and what steers libtorch and this program on the CPU.
constexpr std::array<std::string_view, 15> kPassed{
    "MLFLOW",
    "PYTHON",
    "MV2",
    "UCX",
    "NCCL",
    "LD_LIBRARY",
    "PATH",
    "DS_",
    "OMP_",
    "KMP_",
    "MKL_",
    "GLOO",
    "TORCH_",
    "CUDA_MODULE",
    "DEEPSPEED_"};

std::string trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) {
    return "";
  }
  const size_t last = text.find_last_not_of(" \t\r");
  return std::string(text.substr(first, last - first + 1));
}

bool is_variable_name(std::string_view name) {
  const auto good = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
        (c >= '0' && c <= '9') || c == '_';
  };
  return !name.empty() && !(name[0] >= '0' && name[0] <= '9') &&
      std::all_of(name.begin(), name.end(), good);
}

// A value as a shell reads it, without expanding anything: '...' or "...", or
// plain text; then blanks and a comment may follow. Nothing for an open quote
// or text behind one.
std::optional<std::string> parse_value(const std::string& text) {
  const auto is_comment = [&](size_t at) {
    at = text.find_first_not_of(" \t", at);
    return at == std::string::npos || text[at] == '#';
  };
  if (text.empty() || (text[0] != '"' && text[0] != '\'')) {
    size_t end = 0;
    while (end < text.size() &&
           !(text[end] == '#' &&
             (end == 0 || text[end - 1] == ' ' || text[end - 1] == '\t'))) {
      ++end;
    }
    return trimmed(std::string_view(text).substr(0, end));
  }
  // The first quote that ends the line or stands before a comment: a value may
  // hold quotes, as JSON does.
  for (size_t end = 1; (end = text.find(text[0], end)) != std::string::npos;
       ++end) {
    const bool apart =
        end + 1 == text.size() || text[end + 1] == ' ' || text[end + 1] == '\t';
    if (apart && is_comment(end + 1)) {
      return text.substr(1, end - 1);
    }
  }
  return std::nullopt;
}

[[noreturn]] void bad_line(
    const std::string& what,
    const std::string& where,
    const std::string& hint) {
  throw base::Error(base::ExitCode::data, what, where, hint);
}

} // namespace

std::vector<RankPlace> rank_places(
    const std::vector<Node>& nodes,
    int node_rank) {
  RankPlace place{
      .world_size = 0,
      .node_rank = node_rank,
      .node_count = static_cast<int>(nodes.size())};
  for (size_t i = 0; i < nodes.size(); ++i) {
    const int slots = static_cast<int>(nodes[i].slots.size());
    place.rank += static_cast<int>(i) < node_rank ? slots : 0;
    place.world_size += slots;
  }
  place.local_size =
      static_cast<int>(nodes.at(static_cast<size_t>(node_rank)).slots.size());
  std::vector<RankPlace> places;
  for (; place.local_rank < place.local_size; ++place.local_rank) {
    places.push_back(place);
    ++place.rank;
  }
  return places;
}

void set_place(
    std::vector<std::string>& environment,
    const RankPlace& place,
    const std::string& master_addr,
    int master_port) {
  set_variable(environment, "MASTER_ADDR", master_addr);
  const std::pair<const char*, int> numbers[] = {
      {"MASTER_PORT", master_port},
      {"RANK", place.rank},
      {"WORLD_SIZE", place.world_size},
      {"LOCAL_RANK", place.local_rank},
      {"LOCAL_SIZE", place.local_size},
      {"LOCAL_WORLD_SIZE", place.local_size},
      {"CROSS_RANK", place.node_rank},
      {"CROSS_SIZE", place.node_count}};
  for (const auto& [name, value] : numbers) {
    set_variable(environment, name, std::to_string(value));
  }
}

Variables parse_environment_file(
    std::string_view text,
    const std::string& path) {
  Variables variables;
  int number = 0;
  if (text.starts_with("\xEF\xBB\xBF")) {
    text.remove_prefix(3); // a byte-order mark, as some editors write it
  }
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string line = trimmed(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    ++number;
    if (line.empty() || line[0] == '#') {
      continue;
    }
    if (line.starts_with("export ")) {
      line = trimmed(line.substr(7));
    }
    const size_t equals = line.find('=');
    const std::string name = line.substr(0, equals);
    if (equals == std::string::npos || !is_variable_name(name) ||
        line.find('\0') != std::string::npos) {
      bad_line(
          "not NAME=VALUE: " + line.substr(0, 80),
          path + ":" + std::to_string(number),
          "write one variable a line; lines with '#' in front are skipped");
    }
    const std::optional<std::string> value =
        parse_value(trimmed(std::string_view(line).substr(equals + 1)));
    if (!value) {
      bad_line(
          "a quote that does not end the value: " + line.substr(0, 80),
          path + ":" + std::to_string(number),
          "write " + name + "='...' or \"...\"; only a comment may follow");
    }
    variables.emplace_back(name, *value);
  }
  return variables;
}

Variables read_environment_files(std::vector<std::string>& warnings) {
  const char* given = std::getenv("DS_ENV_FILE");
  const fs::path name =
      given != nullptr && *given != '\0' ? given : ".deepspeed_env";
  const char* home = std::getenv("HOME");
  std::vector<fs::path> paths;
  if (home != nullptr && *home != '\0') {
    paths.push_back(fs::path(home) / name);
  }
  std::error_code ignored;
  const fs::path here = fs::path(".") / name;
  if (paths.empty() || !fs::equivalent(paths[0], here, ignored)) {
    paths.push_back(here);
  }
  Variables variables;
  bool found = false;
  for (const fs::path& path : paths) {
    if (!fs::is_regular_file(path, ignored)) {
      continue;
    }
    found = true;
    constexpr uint64_t kMost = 1 << 20;
    const auto more = parse_environment_file(
        file::read_file(path.string(), kMost), path.string());
    variables.insert(variables.end(), more.begin(), more.end());
    if (path == here && name.is_relative()) {
      warnings.push_back(
          std::to_string(more.size()) + " variables for all ranks from " +
          path.string() + " in the current folder");
    }
  }
  if (!found && given != nullptr && *given != '\0') {
    warnings.push_back(
        "DS_ENV_FILE=" + name.string() +
        " names no file in the home folder or the current one");
  }
  return variables;
}

bool passed_to_hosts(std::string_view name) {
  return std::any_of(
      kPassed.begin(), kPassed.end(), [=](std::string_view prefix) {
        return prefix == "PATH" ? name == prefix : name.starts_with(prefix);
      });
}

} // namespace deepspeed::launcher
