"""The part of `pycuda.driver` that the runtime uses, over the C driver of the tests, with the habits of the real one (2025.1).

Those are: nothing works without a context that was pushed through pycuda; memory is freed with its last reference, but not on another
thread than the context's, where it is lost; `detach` gives a primary context back but leaves it on the driver's stack of the thread.
"""

import ctypes
import threading

import numpy as np

_library = ctypes.CDLL("libcuda.so.1")
_local = threading.local()


class Error(Exception):
    pass


class LogicError(Error):
    pass


class MemoryError(Error):
    pass


class RuntimeError(Error):
    pass


def _call(name, *arguments):
    code = getattr(_library, name)(*arguments)
    if code:
        text = ctypes.c_char_p()
        _library.cuGetErrorString(code, ctypes.byref(text))
        raise {1: LogicError, 2: MemoryError, 201: LogicError}.get(code, RuntimeError)(f"{name} failed: {text.value.decode()}")


def _out(name, kind, *arguments):
    value = kind()
    _call(name, ctypes.byref(value), *arguments)
    return value.value


def init(flags=0):
    _call("cuInit", flags)


def get_driver_version():
    return _out("cuDriverGetVersion", ctypes.c_int)


class Device:
    def __init__(self, ordinal):
        self._device = _out("cuDeviceGet", ctypes.c_int, ordinal)

    @staticmethod
    def count():
        return _out("cuDeviceGetCount", ctypes.c_int)

    def name(self):
        buffer = ctypes.create_string_buffer(100)
        _call("cuDeviceGetName", buffer, 100, self._device)
        return buffer.value.decode()

    def compute_capability(self):
        major, minor = ctypes.c_int(), ctypes.c_int()
        _call("cuDeviceComputeCapability", ctypes.byref(major), ctypes.byref(minor), self._device)
        return major.value, minor.value

    def retain_primary_context(self):
        return Context(_out("cuDevicePrimaryCtxRetain", ctypes.c_void_p, self._device), self._device)


def _stack():
    if not hasattr(_local, "stack"):
        _local.stack = []
    return _local.stack


class Context:
    def __init__(self, handle, device):
        self.handle, self._device, self._valid, self._thread = handle, device, True, threading.get_ident()

    def push(self):
        if _stack():
            _out("cuCtxPopCurrent_v2", ctypes.c_void_p)
        _call("cuCtxPushCurrent_v2", ctypes.c_void_p(self.handle))
        _stack().append(self)

    @staticmethod
    def pop():
        if not _stack():
            raise LogicError("context::pop failed: invalid device context - cannot pop non-current context")
        _out("cuCtxPopCurrent_v2", ctypes.c_void_p)
        _stack().pop()
        if _stack():
            _call("cuCtxPushCurrent_v2", ctypes.c_void_p(_stack()[-1].handle))

    def detach(self):
        if not self._valid:
            raise LogicError("context::detach failed: cannot detach from invalid context")
        if self not in _stack()[-1:]:
            _call("cuCtxPushCurrent_v2", ctypes.c_void_p(self.handle))
        _call("cuDevicePrimaryCtxRelease_v2", self._device)
        self._valid = False
        while self in _stack():
            _stack().remove(self)


class _Owned:
    def __init__(self):
        if not _stack():
            raise LogicError("explicit_context_dependent failed: invalid device context - no currently active context?")
        self._context = _stack()[-1]

    def _free(self, function, handle):
        if not self._context._valid or (self._context not in _stack()[-1:] and self._context._thread != threading.get_ident()):
            return
        self._context.push()
        _call(function, handle)
        Context.pop()


class Stream(_Owned):
    def __init__(self, flags=0):
        super().__init__()
        self.handle = _out("cuStreamCreate", ctypes.c_void_p, flags)

    def synchronize(self):
        _call("cuStreamSynchronize", ctypes.c_void_p(self.handle))

    def __del__(self):
        self._free("cuStreamDestroy_v2", ctypes.c_void_p(self.handle))


class DeviceAllocation(_Owned):
    def __init__(self, nbytes):
        super().__init__()
        self._address = None
        self._address = _out("cuMemAlloc_v2", ctypes.c_uint64, ctypes.c_size_t(nbytes))

    def __int__(self):
        return self._address

    def __del__(self):
        self.free()

    def free(self):
        if self._address is not None:
            self._free("cuMemFree_v2", ctypes.c_uint64(self._address))
            self._address = None


mem_alloc = DeviceAllocation


class _Pinned(_Owned):
    def __init__(self, nbytes):
        super().__init__()
        self.address = _out("cuMemHostAlloc", ctypes.c_void_p, ctypes.c_size_t(nbytes), 0)

    def __del__(self):
        self._free("cuMemFreeHost", ctypes.c_void_p(self.address))


def pagelocked_empty(shape, dtype, order="C", mem_flags=0):
    memory = _Pinned(int(np.prod(shape)) * np.dtype(dtype).itemsize)
    buffer = (ctypes.c_char * (int(np.prod(shape)) * np.dtype(dtype).itemsize)).from_address(memory.address)
    buffer.keeps = memory
    return np.frombuffer(buffer, dtype).reshape(shape)


def memcpy_htod(dest, src):
    _call("cuMemcpyHtoD_v2", ctypes.c_uint64(int(dest)), ctypes.c_void_p(src.ctypes.data), ctypes.c_size_t(src.nbytes))


def memcpy_dtoh(dest, src):
    _call("cuMemcpyDtoH_v2", ctypes.c_void_p(dest.ctypes.data), ctypes.c_uint64(int(src)), ctypes.c_size_t(dest.nbytes))


def memcpy_htod_async(dest, src, stream=None):
    _call("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(int(dest)), ctypes.c_void_p(src.ctypes.data), ctypes.c_size_t(src.nbytes), _handle(stream))


def memcpy_dtoh_async(dest, src, stream=None):
    _call("cuMemcpyDtoHAsync_v2", ctypes.c_void_p(dest.ctypes.data), ctypes.c_uint64(int(src)), ctypes.c_size_t(dest.nbytes), _handle(stream))


def _handle(stream):
    return ctypes.c_void_p(stream.handle)


class Module(_Owned):
    def __init__(self, image):
        super().__init__()
        self._handle = None
        self._handle = _out("cuModuleLoadDataEx", ctypes.c_void_p, ctypes.c_char_p(image), 0, None, None)

    def get_function(self, name):
        return Function(self, _out("cuModuleGetFunction", ctypes.c_void_p, ctypes.c_void_p(self._handle), ctypes.c_char_p(name.encode())))

    def __del__(self):
        if self._handle is not None:
            self._free("cuModuleUnload", ctypes.c_void_p(self._handle))


module_from_buffer = Module


class Function:
    def __init__(self, module, handle):
        self._module, self._handle = module, handle

    def __call__(self, *args, block, grid, stream):
        _call("cuFuncSetBlockShape", ctypes.c_void_p(self._handle), *block)
        data = b"".join(bytes(memoryview(arg)) for arg in args if isinstance(arg, np.void))
        size = ctypes.c_size_t(len(data))
        extra = (ctypes.c_void_p * 5)(1, ctypes.cast(data, ctypes.c_void_p), 2, ctypes.cast(ctypes.byref(size), ctypes.c_void_p), None)
        _call("cuLaunchKernel", ctypes.c_void_p(self._handle), *grid, *block, 0, _handle(stream), None, extra)
