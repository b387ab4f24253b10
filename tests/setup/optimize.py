"""Optimises a WebAssembly module with Binaryen: optimize.py IN OUT.

What `wasm-opt -O3 --shrink-level=2` does, twice, and `--reorder-functions`, by way of the library that the package
icpp-binaryen ships: the same bytes in give the same bytes out. rustc's own output is a seventh larger.

The SDK exports every callback of the ABI. Those that this module leaves to the SDK go first, with the code behind
them: a host calls what is exported, and each call of a request costs it about a microsecond.
"""

import ctypes
import importlib.resources
import sys
from pathlib import Path

# What rustc emits for wasm32-wasip1; every host of proxy-wasm 0.2.1 that is tested has them.
MUTABLE_GLOBALS, NONTRAPPING_FLOAT_TO_INT, BULK_MEMORY, SIGN_EXTENSION = 1 << 1, 1 << 2, 1 << 4, 1 << 5
REFERENCE_TYPES, MULTIVALUE = 1 << 8, 1 << 9
FEATURES = (
    MUTABLE_GLOBALS | NONTRAPPING_FLOAT_TO_INT | BULK_MEMORY | SIGN_EXTENSION | REFERENCE_TYPES | MULTIVALUE
)
OPTIMIZE_LEVEL, SHRINK_LEVEL = 3, 2
# The second finds a thousand bytes more, the third next to none.
ROUNDS = 2
# Functions that are called most get the shortest numbers: three thousand bytes. The others ready the code to be written
# in short, which only `BinaryenModuleOptimize` does by itself.
LAST_PASSES = ["reorder-functions", "generate-stack-ir", "optimize-stack-ir"]

UNUSED_CALLBACKS = [
    "proxy_on_downstream_connection_close",
    "proxy_on_downstream_data",
    "proxy_on_foreign_function",
    "proxy_on_grpc_close",
    "proxy_on_grpc_receive",
    "proxy_on_grpc_receive_initial_metadata",
    "proxy_on_grpc_receive_trailing_metadata",
    "proxy_on_log",
    "proxy_on_new_connection",
    "proxy_on_queue_ready",
    "proxy_on_response_trailers",
    "proxy_on_upstream_connection_close",
    "proxy_on_upstream_data",
]


class Written(ctypes.Structure):
    _fields_ = [("binary", ctypes.c_void_p), ("size", ctypes.c_size_t), ("source_map", ctypes.c_void_p)]


def binaryen() -> ctypes.CDLL:
    library = importlib.resources.files("icpp_binaryen") / "lib"
    name = {"linux": "libbinaryen.so", "darwin": "libbinaryen.dylib"}[sys.platform]
    loaded = ctypes.CDLL(str(library / name))
    loaded.BinaryenModuleRead.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    loaded.BinaryenModuleRead.restype = ctypes.c_void_p
    loaded.BinaryenModuleSetFeatures.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    loaded.BinaryenRemoveExport.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    loaded.BinaryenModuleOptimize.argtypes = [ctypes.c_void_p]
    loaded.BinaryenModuleRunPasses.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_char_p), ctypes.c_uint32]
    loaded.BinaryenModuleValidate.argtypes = [ctypes.c_void_p]
    loaded.BinaryenModuleValidate.restype = ctypes.c_bool
    loaded.BinaryenModuleAllocateAndWrite.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    loaded.BinaryenModuleAllocateAndWrite.restype = Written
    return loaded


def optimize(wasm: bytes) -> bytes:
    library = binaryen()
    module = library.BinaryenModuleRead(wasm, len(wasm))
    library.BinaryenModuleSetFeatures(module, FEATURES)
    for callback in UNUSED_CALLBACKS:
        library.BinaryenRemoveExport(module, callback.encode())
    library.BinaryenSetOptimizeLevel(OPTIMIZE_LEVEL)
    library.BinaryenSetShrinkLevel(SHRINK_LEVEL)
    for _ in range(ROUNDS):
        library.BinaryenModuleOptimize(module)
    passes = [name.encode() for name in LAST_PASSES]
    library.BinaryenModuleRunPasses(module, (ctypes.c_char_p * len(passes))(*passes), len(passes))
    if not library.BinaryenModuleValidate(module):
        sys.exit("optimize: Binaryen made a module that is not valid")
    written = library.BinaryenModuleAllocateAndWrite(module, None)
    return ctypes.string_at(written.binary, written.size)


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    target.write_bytes(optimize(source.read_bytes()))
