"""What the ops share: Triton if there is one, and which path a tensor takes.

A CUDA tensor takes the Triton kernel, any other (and every float64 one) the reference in plain torch. With
`TRITON_INTERPRET=1` the kernels run on the CPU too, slowly, for tests. On the CPU the reference can be compiled once
the caller asks for it: see `compile_cpu`.
"""

import logging
import os
from collections.abc import Callable
from functools import cache, wraps
from types import FunctionType

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl

    jit = triton.jit
except ImportError:  # no wheels for this system: the reference does all the work
    triton = None

    class tl:  # noqa: N801  (kernels are still defined, never launched)
        constexpr = int

    def jit(kernel: Callable) -> Callable:
        return kernel


_FUSED = "cpp.enable_floating_point_contract_flag"
INTERPRET = triton is not None and os.environ.get("TRITON_INTERPRET") == "1"


def takes_kernel(x: Tensor) -> bool:
    """Whether a Triton kernel treats this tensor; float64 is for checking and stays with the reference."""
    interpreted = INTERPRET and type(x) is Tensor  # a traced tensor has no memory to interpret
    return triton is not None and (x.is_cuda or interpreted) and x.dtype != torch.float64


def wrap_triton(kernel):
    """`torch.library.wrap_triton`, which torch 2.11 does not offer for interpreted kernels."""
    return kernel if INTERPRET else torch.library.wrap_triton(kernel)


class compile_cpu:  # noqa: N801  (a switch, used like torch.set_grad_enabled)
    """Compile the CPU path of `rgb_to_lab`, `lab_to_rgb` and `shift_hue`, from here on or within a `with` block.

    The others gain nothing from it and run as ever; `methods.recolor_uint8("reinhard_lab", ...)` does. The first call
    of each op with a new dtype, layout or option takes 5 to 10 s, a second shape as much once more (next to nothing
    where torch's cache on disk has it); later calls run several times faster than eager torch. `notebooks/71_ops`
    measures both. Needs a C++ compiler. One switch for all threads, to be set by one of them. Code inside a
    `torch.compile` of your own does not need it.

    Args:
        on: `False` switches back.

    Raises:
        RuntimeError: no C++ compiler.

    Example:
        >>> with compile_cpu(False):
        ...     compile_cpu.on
        False
    """

    on = False

    def __init__(self, on: bool = True):
        if on and not has_compiler():
            raise RuntimeError(
                "compile_cpu: no C++ compiler found; install one (Debian: apt install g++), or leave the switch off"
            )
        self.before, compile_cpu.on = compile_cpu.on, on

    def __enter__(self) -> "compile_cpu":
        return self

    def __exit__(self, *_) -> None:
        compile_cpu.on = self.before


def has_compiler() -> bool:
    """Whether torch finds a C++ compiler on this machine."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        return bool(get_cpp_compiler())
    except (InvalidCxxCompiler, OSError, RuntimeError):
        return False


def compiles(x: Tensor) -> bool:
    """Whether a `compilable` function would run compiled on this tensor: asked for, and not part of a trace already."""
    return compile_cpu.on and type(x) is Tensor and not x.is_cuda


def compilable(function: Callable) -> Callable:
    """A CPU function of tensors and numbers that runs compiled, for any size, while `compile_cpu` is on.

    Each kind of input (dtypes, layouts, options, and the modes torch is in) has a compiled function of its own: torch
    gives up on one that meets too many kinds. Give it tensors of one axis: only then does one loop come of it.
    """

    @cache  # torch.compile itself imports for a second
    def compiled(*kind) -> Callable:
        code = function.__code__.replace(co_name=f"{function.__name__}_{len(kinds)}")
        kinds.append(kind)
        copy = FunctionType(code, function.__globals__, function.__name__, function.__defaults__, function.__closure__)
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it misses a CUDA nobody asked for
        options = {_FUSED: "fast"} if _FUSED in torch._inductor.list_options() else None  # multiply and add in one
        return torch.compile(copy, dynamic=True, fullgraph=True, options=options)

    kinds: list = []

    @wraps(function)
    def run(*args):
        first = next(arg for arg in args if isinstance(arg, Tensor))
        if not compiles(first):
            return function(*args)
        state = torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_num_threads()
        return compiled(*state, *map(_kind, args))(*args)

    return run


def _kind(arg):
    """What of an argument the compiler bakes into its code."""
    return (
        (arg.dtype, *(min(n, 2) for n in arg.shape), *(min(n, 2) for n in arg.stride()))
        if isinstance(arg, Tensor)
        else arg
    )
