"""Run by tests/store_c_api.rs: a store used from Python by ctypes. Arguments: the library, the socket."""

import ctypes
import sys

lib = ctypes.CDLL(sys.argv[1])
lib.mobula_store_last_error.restype = ctypes.c_char_p
Handle = ctypes.c_void_p
Bytes = ctypes.POINTER(ctypes.c_uint8)
lib.mobula_store_get.argtypes = [Handle, ctypes.c_char_p, ctypes.c_int64] + [ctypes.c_void_p] * 3
lib.mobula_store_create.argtypes = [Handle, ctypes.c_char_p, ctypes.c_size_t] + [ctypes.c_void_p] * 2
for one in ("disconnect", "seal", "abort", "release"):
    getattr(lib, "mobula_store_" + one).argtypes = [Handle]


def good(code):
    if code != 0:
        raise RuntimeError(f"code {code}: {lib.mobula_store_last_error().decode()}")


def name(text):
    id = ctypes.create_string_buffer(16)
    good(lib.mobula_store_id_from_name(text.encode(), id))
    return id.raw


def get(store, id):
    """A held object, and where its bytes are."""
    held, data, length = Handle(), Bytes(), ctypes.c_size_t()
    good(lib.mobula_store_get(store, id, 60000, ctypes.byref(held), ctypes.byref(data), ctypes.byref(length)))
    return held, ctypes.addressof(data.contents), length.value


def create(store, id, length):
    writing, data = Handle(), Bytes()
    good(lib.mobula_store_create(store, id, length, ctypes.byref(writing), ctypes.byref(data)))
    return writing, ctypes.addressof(data.contents)


store = Handle()
good(lib.mobula_store_connect(sys.argv[2].encode(), ctypes.byref(store)))

# What C wrote, as an array over the store's own memory.
held, address, length = get(store, name("from c"))
n = length // 8
assert n == 1000000
floats = (ctypes.c_double * n).from_address(address)
assert floats[0] == 0.0 and floats[n - 1] == (n - 1) / 2

try:
    import numpy
except ImportError:
    numpy = None

if numpy is not None:
    array = numpy.ctypeslib.as_array(floats)
    assert array.__array_interface__["data"][0] == address, "numpy reads in place"
    assert (array == numpy.arange(n) / 2).all()
    del array
maps = [line for line in open("/proc/self/maps") if "memfd:" in line]
ends = [[int(end, 16) for end in line.split()[0].split("-")] for line in maps]
assert any(begin <= address < end for begin, end in ends), "inside the store's memory"
del floats
good(lib.mobula_store_release(held))

# What is written here Rust reads.
writing, address = create(store, name("from python"), 8 * n)
if numpy is not None:
    array = numpy.ctypeslib.as_array((ctypes.c_double * n).from_address(address))
    array[:] = numpy.arange(n) * 3.0
    del array
else:
    numbers = (ctypes.c_double * n)(*(i * 3.0 for i in range(n)))
    ctypes.memmove(address, numbers, 8 * n)
good(lib.mobula_store_seal(writing))
good(lib.mobula_store_disconnect(store))
print("python: good" + (", with numpy" if numpy is not None else ", without numpy"))
