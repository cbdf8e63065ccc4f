"""What nvcc made of the CUDA kernels: registers, memory, spills, tensor-core instructions.

    python scripts/inspect_cuda.py [FILE ...] [--json FILE]

Reads the machine code of shared objects and object files (if none is named, of the built
``geokernels/kernels/_cuda*.so``) with ``cuobjdump``, and needs no GPU. Fails when a kernel keeps registers in
local memory, or lacks an instruction that :data:`PROMISED` says it has.
"""

import argparse
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# part of a kernel's name, and of an instruction of the tensor cores that it must have
PROMISED = {"sinkhorn_kernel<float": "HMMA"}
TENSOR = re.compile(r"^(HMMA|IMMA|DMMA|HGMMA|QGMMA|UTC\w*MMA)")


@dataclass
class Kernel:
    """One kernel for one architecture.

    Attributes:
        arch: Such as ``sm_90a``.
        name: As the linker knows it, demangled where ``c++filt`` is there.
        registers: Of a thread.
        shared: Bytes of static shared memory of a block.
        local: Bytes of local memory of a thread: its stack, and what was spilled.
        local_accesses: Instructions that load from it or store to it.
        tensor: How many instructions of each kind use the tensor cores.
    """

    arch: str
    name: str
    registers: int = 0
    shared: int = 0
    local: int = 0
    local_accesses: int = 0
    tensor: dict[str, int] | None = None

    def faults(self, promised: dict[str, str]) -> list[str]:
        """What is wrong with it, in sentences."""
        faults = []
        if self.local or self.local_accesses:
            faults.append(
                f"{self.name} for {self.arch} keeps {self.local} bytes in local memory "
                f"and reads or writes them in {self.local_accesses} places"
            )
        for part, instruction in promised.items():
            if part in self.name and not any(instruction in kind for kind in self.tensor or {}):
                faults.append(f"{self.name} for {self.arch} has no {instruction}")
        return faults


def cuobjdump() -> str | None:
    """The disassembler: on PATH, beside nvcc, or the one that Triton carries."""
    places = [shutil.which("cuobjdump"), shutil.which("nvcc")]
    candidates = [Path(place).resolve().with_name("cuobjdump") for place in places if place]
    if triton := importlib.util.find_spec("triton"):
        candidates += [Path(triton.origin).parent / "backends/nvidia/bin/cuobjdump"]
    return next((str(path) for path in candidates if path.exists()), None)


def sections(listing: str) -> Iterator[tuple[str, str, str]]:
    """Architecture, function and text of every function in what ``cuobjdump`` prints."""
    arch, name, lines = "", "", []
    for line in listing.splitlines():
        header = re.match(r"\s*Function\s*:?\s+(\S+?):?$", line)
        if arch_line := re.match(r"arch = (\S+)", line):
            arch_next = arch_line[1]
        elif header:
            arch_next = arch
        else:
            lines.append(line)
            continue
        if name:
            yield arch, name, "\n".join(lines)
        arch, name, lines = arch_next, header[1] if header else "", []
    if name:
        yield arch, name, "\n".join(lines)


def kernels(resources: str, sass: str) -> list[Kernel]:
    """Every kernel of two listings, ``--dump-resource-usage`` and ``--dump-sass``."""
    by_name = {}
    for arch, name, text in sections(resources):
        used = {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", text)}
        local = used.get("STACK", 0) + used.get("LOCAL", 0)
        by_name[arch, name] = Kernel(arch, name, used.get("REG", 0), used.get("SHARED", 0), local)
    for arch, name, text in sections(sass):
        kernel = by_name.setdefault((arch, name), Kernel(arch, name))
        # one instruction a line behind its address, perhaps behind a predicate
        codes = re.findall(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", text, re.MULTILINE)
        kernel.local_accesses = sum(code.startswith(("LDL", "STL")) for code in codes)
        kernel.tensor = {}
        for code in filter(TENSOR.match, codes):
            kernel.tensor[code] = kernel.tensor.get(code, 0) + 1
    return list(by_name.values())


def demangle(kernels: list[Kernel]) -> None:
    """Give kernels their names in C++, where the machine can."""
    if tool := shutil.which("c++filt"):
        names = "\n".join(kernel.name for kernel in kernels)
        done = subprocess.run([tool], input=names, capture_output=True, text=True, check=True)
        for kernel, name in zip(kernels, done.stdout.splitlines(), strict=True):
            kernel.name = re.sub(r"geokernels::|\(anonymous namespace\)::|^void |\(.*", "", name)


def read(path: Path) -> list[Kernel]:
    """Every kernel of a file.

    Raises:
        ValueError: If there is nothing to read it with, or nothing in it.
    """
    tool = cuobjdump()
    if tool is None:
        raise ValueError("cuobjdump was found neither beside nvcc nor in Triton's package")
    listings = [
        subprocess.run([tool, option, str(path)], capture_output=True, text=True).stdout
        for option in ("--dump-resource-usage", "--dump-sass")
    ]
    of_library = kernels(*listings)
    if not of_library:
        raise ValueError(f"{path} must hold the machine code of kernels, none was found in it")
    demangle(of_library)
    return of_library


def table(kernels: list[Kernel]) -> str:
    """A line for every kernel."""
    lines = [f"{'arch':8} {'registers':>9} {'shared':>7} {'local':>6}  tensor cores  kernel"]
    for kernel in sorted(kernels, key=lambda kernel: (kernel.name, kernel.arch)):
        tensor = sum((kernel.tensor or {}).values())
        numbers = f"{kernel.registers:9} {kernel.shared:7} {kernel.local:6}  {tensor:12}"
        lines.append(f"{kernel.arch:8} {numbers}  {kernel.name}")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 when something is wrong, 2 when nothing could be looked at."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    files = options.files or sorted((ROOT / "geokernels" / "kernels").glob("_cuda*.so"))
    try:
        if not files:
            raise ValueError("there is no CUDA library to look into: build with nvcc first")
        every = [kernel for path in files for kernel in read(path)]
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(table(every))
    if options.json:
        options.json.write_text(json.dumps([asdict(kernel) for kernel in every], indent=1) + "\n")
    faults = [fault for kernel in every for fault in kernel.faults(PROMISED)]
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
