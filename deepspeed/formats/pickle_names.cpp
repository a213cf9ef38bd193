// What the global names in a pickle may stand for.
#include "deepspeed/formats/pickle_names.h"

#include <algorithm>
#include <string>
#include <unordered_set>

#include "deepspeed/formats/dtype.h"
#include "deepspeed/formats/pickle_ops.h"

namespace deepspeed::formats::pickle {
namespace {

struct Module {
  std::string_view name;
  std::string_view members; // with a space between them
};

// Names of protocol 2 are those of Python 2 where there was one: pickle's
// fix_imports maps them, when it writes and when it reads.
constexpr Module kPlainModules[] = {
    {"__builtin__",
     "set frozenset complex bytes bytearray xrange range slice list dict tuple "
     "int long float bool str unicode object type Ellipsis NotImplemented"},
    {"builtins",
     "set frozenset complex bytes bytearray range slice list dict tuple int "
     "float bool str object type Ellipsis NotImplemented"},
    {"_codecs", "encode"}, // bytes
    {"argparse", "Namespace"},
    {"array", "array"},
    {"collections",
     "defaultdict Counter deque ChainMap UserDict UserList UserString"},
    {"UserDict", "UserDict IterableUserDict"},
    {"UserList", "UserList"},
    {"UserString", "UserString"},
    {"datetime", "date time datetime timedelta timezone"},
    {"decimal", "Decimal"},
    {"fractions", "Fraction"},
    {"pathlib", "PurePosixPath PureWindowsPath PosixPath WindowsPath"},
    {"pathlib._local", "PurePosixPath PureWindowsPath PosixPath WindowsPath"},
    {"random", "Random"},
    {"types", "SimpleNamespace"},
    {"uuid", "UUID"},
    {"numpy",
     "ndarray dtype bool bool_ int8 int16 int32 int64 uint8 uint16 uint32 "
     "uint64 intc uintc longlong ulonglong float16 float32 float64 longdouble "
     "complex64 complex128 clongdouble str_ bytes_ void object_ datetime64 "
     "timedelta64"},
    {"numpy.core.multiarray", "scalar _reconstruct"},
    {"numpy._core.multiarray", "scalar _reconstruct"},
    {"numpy.random._pickle",
     "__randomstate_ctor __generator_ctor __bit_generator_ctor"},
    {"numpy.random._mt19937", "MT19937"},
    {"numpy.random._pcg64", "PCG64 PCG64DXSM"},
    {"numpy.random._philox", "Philox"},
    {"numpy.random._sfc64", "SFC64"},
    {"numpy.random.bit_generator", "SeedSequence __pyx_unpickle_SeedSequence"},
    {"torch", "Size device"},
    {"torch.serialization", "_get_layout"},
    {"torch.torch_version", "TorchVersion"},
    {"deepspeed.runtime.fp16.loss_scaler", "LossScaler DynamicLossScaler"},
    {"deepspeed.runtime.zero.config", "ZeroStageEnum"},
    {"deepspeed.utils.tensor_fragment", "fragment_address"},
};

// Modules, with all below them, and single names.
constexpr std::string_view kForbidden[] = {
    "__builtin__",
    "_ctypes",
    "_operator",
    "_pickle",
    "_posixsubprocess",
    "_socket",
    "asyncio",
    "bdb",
    "builtins",
    "cPickle",
    "cProfile",
    "cffi",
    "codeop",
    "ctypes",
    "distutils",
    "ensurepip",
    "ftplib",
    "importlib",
    "marshal",
    "multiprocessing",
    "nt",
    "numpy.ctypeslib",
    "numpy.distutils",
    "numpy.f2py",
    "numpy.load",
    "numpy.testing",
    "operator",
    "os",
    "pdb",
    "pickle",
    "pip",
    "pkgutil",
    "posix",
    "pty",
    "pydoc",
    "runpy",
    "setuptools",
    "shutil",
    "smtplib",
    "socket",
    "subprocess",
    "sys",
    "timeit",
    "torch._dynamo",
    "torch._inductor",
    "torch.compile",
    "torch.hub",
    "torch.jit",
    "torch.load",
    "torch.package",
    "torch.serialization",
    "torch.utils.cpp_extension",
    "urllib",
    "webbrowser",
};

using Names = std::unordered_set<std::string>;

const Names& structure_names() {
  static const Names names = [] {
    Names list{
        std::string(kOrderedDict),
        std::string(kRebuildTensor),
        std::string(kRebuildTypedTensor),
        std::string(kRebuildParameter),
        std::string(kUntypedStorage)};
    for (const DType dtype : all_dtypes()) {
      if (!storage_class(dtype).empty()) {
        list.insert("torch." + std::string(storage_class(dtype)));
      }
    }
    return list;
  }();
  return names;
}

const Names& plain_names() {
  static const Names names = [] {
    Names list;
    for (const auto& [module, members] : kPlainModules) {
      for (size_t at = 0; at < members.size();) {
        const size_t end = std::min(members.find(' ', at), members.size());
        list.insert(
            std::string(module) + "." +
            std::string(members.substr(at, end - at)));
        at = end + 1;
      }
    }
    for (const DType dtype : all_dtypes()) {
      list.insert("torch." + std::string(dtype_name(dtype)));
    }
    return list;
  }();
  return names;
}

// Names of protocol 2 are ASCII.
bool is_name(std::string_view name) {
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
        (c >= '0' && c <= '9') || c == '_' || c == '.';
  });
}

bool is_forbidden(std::string_view name) {
  return std::any_of(
      std::begin(kForbidden),
      std::end(kForbidden),
      [&](std::string_view module) {
        return name.starts_with(module) &&
            (name.size() == module.size() || name[module.size()] == '.');
      });
}

} // namespace

NameKind kind_of_name(std::string_view name) {
  const std::string text(name);
  if (structure_names().contains(text)) {
    return NameKind::structure;
  }
  if (plain_names().contains(text)) {
    return NameKind::plain;
  }
  if (name == "__builtin__.getattr" || name == "builtins.getattr") {
    return NameKind::accessor;
  }
  return is_name(name) && !is_forbidden(name) ? NameKind::unknown
                                              : NameKind::forbidden;
}

} // namespace deepspeed::formats::pickle
