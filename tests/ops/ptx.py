"""Compiles a Triton kernel for an H100 or H200 (sm_90) without having one, and reads what came out."""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Compiled:
    """What the compiler says of a kernel."""

    registers: int  # a thread
    spills: int  # bytes of registers written to local memory
    stack: int  # bytes of local memory a thread
    wide_loads: int  # 16-byte loads from global memory
    wide_stores: int


def compile_sm90(kernel, signature: dict[str, str], constants: dict, warps: int = 4) -> Compiled:
    """Compile a `@jit` kernel.

    Args:
        kernel: the function under `@triton.jit`.
        signature: argument to type: `*fp32`, `*u8`, `i32`, `i64`, `fp32`; the constants' arguments are left out.
        constants: values of the `tl.constexpr` arguments.
        warps: in a program.

    Pointers and whole numbers are taken as multiples of 16, as they are for a plain, large picture.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.backends.nvidia.compiler import get_ptxas
    from triton.compiler import ASTSource

    names = list(kernel.arg_names)
    types = {name: signature.get(name, "constexpr") for name in names}
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(names)
        if types[name].startswith("*") or types[name] in ("i32", "i64")
    }
    source = ASTSource(kernel, types, constexprs={(names.index(k),): v for k, v in constants.items()}, attrs=aligned)
    ptx = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps}).asm["ptx"]
    found = get_ptxas(90) if get_ptxas.__code__.co_argcount else get_ptxas()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.ptx"
        path.write_text(ptx)
        command = [found.path, "-v", "--gpu-name=sm_90a", str(path), "-o", str(path.with_suffix(".cubin"))]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    number = {
        what: sum(map(int, re.findall(pattern, said)))
        for what, pattern in {
            "registers": r"Used (\d+) registers",
            "spills": r"(\d+) bytes spill stores",
            "stack": r"(\d+) bytes stack frame",
        }.items()
    }
    return Compiled(
        **number,
        wide_loads=len(re.findall(r"ld\.global[\w.:]*\.(?:v4\.[bfu]32|v2\.[bfu]64)", ptx)),
        wide_stores=len(re.findall(r"st\.global[\w.:]*\.(?:v4\.[bfu]32|v2\.[bfu]64)", ptx)),
    )
