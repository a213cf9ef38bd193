#!/usr/bin/env python3
"""Each lint must fail on a small tree that breaks its rule, and only there."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools"))
sys.dont_write_bytecode = True

import lint_budgets  # noqa: E402
import lint_docs  # noqa: E402
import lint_includes  # noqa: E402
import lint_words  # noqa: E402

PAGE = """# Architecture
```arrows
base     ->
text     -> base
bert     -> base, text/batch.h
programs -> *

torch headers: bert
c10d headers: comm
file names: base/layout
system files: base/proc
```
"""


class TreeTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        subprocess.run(["git", "init", "-q", folder.name], check=True)
        self.write("docs/architecture.md", PAGE)

    def write(self, path, text):
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(text, bytes):
            target.write_bytes(text)
        else:
            target.write_text(text)

    def assert_one(self, lint, *words):
        problems = lint.problems_of(self.root)
        self.assertEqual(len(problems), 1, problems)
        for word in words:
            self.assertIn(word, problems[0])

    def assert_clean(self, lint):
        self.assertEqual(lint.problems_of(self.root), [])


class IncludesTest(TreeTest):
    def test_arrow_against_the_table(self):
        self.write("deepspeed/base/a.cpp", '// A.\n#include "deepspeed/text/b.h"\n')
        self.assert_one(lint_includes, "base/a.cpp:2", "no arrow base -> text")

    def test_arrows_of_the_table(self):
        self.write("deepspeed/text/a.cpp", '#include "deepspeed/base/b.h"\n')
        self.write("programs/a.cpp", '#include "deepspeed/bert/b.h"\n')
        self.assert_clean(lint_includes)

    def test_arrow_to_one_header_only(self):
        self.write("deepspeed/bert/a.cpp", '#include "deepspeed/text/batch.h"\n')
        self.assert_clean(lint_includes)
        self.write("deepspeed/bert/b.cpp", '#include "deepspeed/text/bpe.h"\n')
        self.assert_one(lint_includes, "bert/b.cpp:1", "bert -> text")

    def test_unknown_folder(self):
        self.write("deepspeed/moe/a.cpp", "\n")
        self.assert_one(lint_includes, "moe is not in the arrows")

    def test_torch_outside_its_folders(self):
        self.write("deepspeed/bert/a.cpp", "#include <torch/nn/module.h>\n")
        self.assert_clean(lint_includes)
        self.write("deepspeed/text/a.cpp", "#include <ATen/ATen.h>\n")
        self.assert_one(lint_includes, "text/a.cpp:1", "torch headers")

    def test_c10d_outside_comm(self):
        self.write(
            "deepspeed/bert/a.cpp",
            "#include <torch/csrc/distributed/c10d/ProcessGroup.hpp>\n")
        self.assert_one(lint_includes, "c10d headers")

    def test_cuda_outside_its_folders(self):
        self.write("deepspeed/text/a.cpp", "#include <cuda_runtime_api.h>\n")
        self.assert_one(lint_includes, "text/a.cpp:1", "c10d headers")

    def test_file_name_spelled_outside_layout(self):
        spelled = 'auto a = "hparams.json"; // "model.safetensors"\n'
        self.write("deepspeed/base/layout.cpp", spelled)
        self.write("deepspeed/text/a_test.cpp", spelled)
        self.write("deepspeed/text/b.cpp", 'auto a = "no hparams.json";\n')
        self.assert_clean(lint_includes)
        self.write("deepspeed/text/a.cpp", spelled)
        self.assert_one(lint_includes, "text/a.cpp:1", "layout.h")

    def test_commented_include_is_ignored(self):
        self.write("deepspeed/base/a.cpp", '/*\n#include "deepspeed/text/b.h"\n*/\n')
        self.assert_clean(lint_includes)


    def test_files_go_through_the_file_system(self):
        self.write("deepspeed/base/proc.cpp", "int f = ::open(a, b);\n")
        self.write("deepspeed/text/b.cpp",
                   "// ::open(a)\nauto a = Cache::open(p);\n"
                   "int b = file_system().rename(p, q);\n")
        self.write("deepspeed/text/test_c.h", "std::ofstream(path) << 1;\n")
        self.assert_clean(lint_includes)
        for call in ("::open(p, 0)", "std::ifstream file(p)", "::rename(p, q)",
                     "::unlink(p)", "::flock(f, 1)", "::fsync(f)",
                     "std::ofstream file(p)", "fs::remove_all(p)",
                     "std::filesystem::create_directories(p)"):
            self.write("deepspeed/text/a.cpp", f"int x;\nauto y = {call};\n")
            self.assert_one(lint_includes, "text/a.cpp:2", "file_system.h")
        self.write("deepspeed/text/a.cpp", "\n")
        # /proc may be opened there, and nothing be changed.
        self.write("deepspeed/base/proc.cpp", "int f = ::unlink(a);\n")
        self.assert_one(lint_includes, "base/proc.cpp:1", "file_system.h")


class BudgetsTest(TreeTest):
    def test_source_length(self):
        self.write("deepspeed/text/a.cpp", "// A.\n" * 500)
        self.assert_clean(lint_budgets)
        self.write("deepspeed/text/a.cpp", "// A.\n" * 501)
        self.assert_one(lint_budgets, "text/a.cpp: 501 lines")

    def test_header_length(self):
        self.write("deepspeed/text/a.h", "// A.\n" * 201)
        self.assert_one(lint_budgets, "text/a.h: 201 lines")

    def test_test_length(self):
        self.write("deepspeed/text/a_test.cpp", "// A.\n" * 800)
        self.write("tests/b.cpp", "// A.\n" * 801)
        self.assert_one(lint_budgets, "tests/b.cpp: 801 lines")

    def function(self, lines, head="int f(int a)"):
        return f"// A.\nnamespace a {{\n{head} {{\n" + "  g();\n" * (
            lines - 2) + "}\n} // namespace a\n"

    def test_function_length(self):
        self.write("deepspeed/text/a.cpp", self.function(60))
        self.assert_clean(lint_budgets)
        self.write("deepspeed/text/a.cpp", self.function(61))
        self.assert_one(lint_budgets, "text/a.cpp:3", "function f has 61 lines")

    def test_constructor_with_initializers(self):
        head = "A::A(int b) : b_(b), c_{1}"
        self.write("deepspeed/text/a.cpp", self.function(61, head))
        self.assert_one(lint_budgets, "function A::A has 61 lines")

    def test_method_inside_a_class(self):
        text = self.function(61, "int m() const")
        self.write("deepspeed/text/a.h", text.replace("namespace a {", "struct A {"))
        self.assert_one(lint_budgets, "function m has 61 lines")

    def test_braces_in_strings_and_macros_do_not_count(self):
        self.write(
            "deepspeed/text/a.cpp",
            self.function(60).replace("g();", 'g("{", \'{\');', 3)
            .replace("// A.\n", "// A.\n#define B \\\n  {\n"))
        self.assert_clean(lint_budgets)

    def test_long_table_is_no_function(self):
        self.write(
            "deepspeed/text/a.cpp",
            "// A.\nconst int kTable[] = {\n" + "  1,\n" * 100 + "};\n")
        self.assert_clean(lint_budgets)

    def test_constructor_arguments(self):
        five = "// A.\nclass A {\n  A(int a, M<int, int> b, int c, F d, int e);\n};\n"
        self.write("deepspeed/text/a.h", five)
        self.assert_clean(lint_budgets)
        self.write("deepspeed/text/a.h", five.replace("int e", "int e, int f = g(1)"))
        self.assert_one(lint_budgets, "constructor of A takes 6 arguments")

    def test_members(self):
        members = "".join(f"  std::map<int, int> m{i}_ = {{}};\n" for i in range(29))
        text = "// A.\nclass A {\n  int get() const { return m1_; }\n" + members + "};\n"
        self.write("deepspeed/text/a.h", text)
        self.assert_one(lint_budgets, "A has 29 members")

    def test_fields_of_a_struct(self):
        text = (
            "// A.\nstruct A {\n  using B = int;\n  enum class C { c, d };\n"
            "  static constexpr int kE = 1;\n  A() = default;\n"
            "  int get(int a = 1) const;\n  int* f = nullptr;\n  int g[2], j;\n"
            "  std::function<void(int)> h;\n  B i{3};\n")
        for fields, problem in ((23, 28), (24, 29)):
            more = "".join(f"  int m{i} = g({i});\n" for i in range(fields))
            self.write("deepspeed/text/a.h", text + more + "};\n")
            if problem <= 28:
                self.assert_clean(lint_budgets)
            else:
                self.assert_one(lint_budgets, f"A has {problem} members")

    def test_file_called_utils(self):
        self.write("tools/utils.py", "# A.\n")
        self.assert_one(lint_budgets, "tools/utils.py")

    def test_folder_depth(self):
        self.write("deepspeed/a/b/c.h", "// C.\n")
        self.assert_clean(lint_budgets)
        self.write("deepspeed/a/b/c/d.h", "// D.\n")
        self.assert_one(lint_budgets, "a/b/c/d.h")

    def test_opening_comment(self):
        self.write("deepspeed/text/a.h", "#pragma once\n")
        self.assert_one(lint_budgets, "text/a.h:1", "comment")


class WordsTest(TreeTest):
    def test_path_of_one_machine(self):
        self.write("a.md", "see ./work/x, docs.org/home/y and a/root/b\n")
        self.assert_clean(lint_words)
        self.write("a.md", "see /" "home/you/data\n")
        self.assert_one(lint_words, "a.md:1")

    def test_mark_of_unfinished_work(self):
        self.write("a.cpp", "mkdtemp(XX" "XXXX);\n")
        self.assert_clean(lint_words)
        self.write("a.cpp", "\n// TO" "DO: more\n")
        self.assert_one(lint_words, "a.cpp:2")

    def test_large_file(self):
        self.write("a.bin", b"\0" * 1_000_000)
        self.assert_clean(lint_words)
        self.write("a.bin", b"\0" * 1_000_001)
        self.assert_one(lint_words, "1000001 bytes")

    def test_ignored_files_are_not_read(self):
        self.write(".gitignore", "data/\n")
        self.write("data/a.txt", "/" "root/x\n")
        self.assert_clean(lint_words)


class DocsTest(TreeTest):
    def test_link_to_nothing(self):
        self.write("docs/a.md", "[b](b.md#part) [web](https://a.org/b)\n")
        self.write("docs/b.md", "[up](../docs/a.md)\n")
        self.assert_clean(lint_docs)
        self.write("docs/a.md", "\n[c](c.md)\n")
        self.assert_one(lint_docs, "docs/a.md:2", "c.md")

    def test_flag_that_is_not_explained(self):
        self.write("docs/training.md", "| `seed` | |\n")
        self.write("deepspeed/settings/settings.cpp", '{"seed", kRun, &s,\n')
        self.assert_clean(lint_docs)
        self.write("deepspeed/settings/settings.cpp", '{"dtype",\n kRun, &s,\n')
        self.assert_one(lint_docs, "training.md", "dtype")

    def test_exit_code_that_is_not_explained(self):
        self.write("docs/errors.md", "| 64 | usage |\n")
        self.write("deepspeed/base/error.h", "  usage = 64, // flags\n  io = 74,\n")
        self.assert_one(lint_docs, "errors.md", "74")


class ThisTreeTest(unittest.TestCase):
    """The table that everyone reads can be read by the lint."""

    def test_architecture_page(self):
        arrows, rules = lint_includes.read_table(
            (ROOT / "docs/architecture.md").read_text())
        self.assertIn("base", arrows)
        self.assertEqual(rules["c10d headers"], {"comm", "cuda"})


if __name__ == "__main__":
    unittest.main()
