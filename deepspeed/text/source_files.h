// The files of a data set: what a folder holds, and which split each belongs
// to.
#pragma once

#include <string>
#include <vector>

#include "deepspeed/text/source.h"

namespace deepspeed::text {

// Held-out text never trains. A split that is not there has no files.
struct Dataset {
  Source train;
  Source valid;
  Source test;
  std::vector<LeftOut> left_out; // sorted by name
};

// The data set at a path. A file is training text, whatever its name is. A
// folder is searched for .txt, JSON lines (.jsonl, .ndjson, .jsonlines), and
// where there is none of these for .json, or else .csv and .tsv, each also
// compressed. Links are followed, no folder is taken twice, hidden ones are
// left out. Splits are named as the Python package `datasets` has them: by a
// word in the folders below `path`, or else in the file's name, with no letter
// beside it: train, training; valid, validation, val, dev; test, testing, eval,
// evaluation. A file with the name of its split alone ("train.txt") at the top
// is all of that split. Files of no split train where no file's name says
// "train", and are left out otherwise.
//
// Throws Error(no_input) for a path that is missing, unreadable, a pipe or a
// device, or a folder without text to train on; Error(data) for a name with two
// splits, two files with the same text, and whatever detect_format() refuses.
Dataset dataset_at(const std::string& path);

// The text to evaluate with at a path: a file, the split valid of a folder, or
// all files of a folder without splits. Throws as dataset_at(), and Error(data)
// for a folder with other splits only.
Source held_out_at(const std::string& path);

// All text at a path, whatever the splits are. Throws as dataset_at().
Source list_source(const std::string& path);

// Makes `held_out` the text to evaluate with, in place of the data set's own,
// and takes its files out of the training text. Error(config) if none is left.
void evaluate_with(Source held_out, Dataset& dataset);

} // namespace deepspeed::text
