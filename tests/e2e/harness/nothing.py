"""A proxy-wasm module that lets every request go on, byte for byte: what may stand where Tollgate should."""

# Types: () -> (), (i32) -> i32, (i32, i32) -> (), (i32, i32) -> i32, (i32, i32, i32) -> i32.
_I32 = b"\x7f"
_TYPES = [(0, 0), (1, 1), (2, 0), (2, 1), (3, 1)]
# Name, type, and what is returned.
_FUNCTIONS = [
    ("proxy_abi_version_0_2_1", 0, None),
    ("proxy_on_memory_allocate", 1, 1024),
    ("proxy_on_context_create", 2, None),
    ("proxy_on_vm_start", 3, 1),
    ("proxy_on_configure", 3, 1),
    # 0: continue.
    ("proxy_on_request_headers", 4, 0),
]


def _number(value: int) -> bytes:
    """LEB128, which is signed in code: small numbers only need one more byte."""
    encoded = b""
    while value >= 0x40:
        encoded += bytes([value & 0x7F | 0x80])
        value >>= 7
    return encoded + bytes([value])


def _vector(items: list[bytes]) -> bytes:
    return _number(len(items)) + b"".join(items)


def _section(number: int, content: bytes) -> bytes:
    return bytes([number]) + _number(len(content)) + content


def _sized(content: bytes) -> bytes:
    return _number(len(content)) + content


def nothing() -> bytes:
    """The module."""
    types = [b"\x60" + _vector([_I32] * given) + _vector([_I32] * returned) for given, returned in _TYPES]
    exports = [_sized(b"memory") + b"\x02\x00"]
    bodies = []
    for index, (name, _, returned) in enumerate(_FUNCTIONS):
        exports.append(_sized(name.encode()) + b"\x00" + _number(index))
        result = b"" if returned is None else b"\x41" + _number(returned)
        bodies.append(_sized(b"\x00" + result + b"\x0b"))
    sections = [
        (1, _vector(types)),
        (3, _vector([_number(kind) for _, kind, _ in _FUNCTIONS])),
        # One memory of a page at least.
        (5, _vector([b"\x00\x01"])),
        (7, _vector(exports)),
        (10, _vector(bodies)),
    ]
    return b"\x00asm\x01\x00\x00\x00" + b"".join(_section(number, content) for number, content in sections)
