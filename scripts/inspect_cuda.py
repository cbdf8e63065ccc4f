"""What nvcc made of the CUDA kernels: registers, memory, spills, blocks at once, what hot loops are made of.

    python scripts/inspect_cuda.py [FILE ...] [--json FILE]

Reads the machine code of shared objects and object files (if none is named, of the built
``geokernels/kernels/_cuda*.so``) with ``cuobjdump``, and needs no GPU. Fails when a kernel

- keeps registers in local memory, or lacks an instruction that :data:`PROMISED` says it has,
- leaves room for less than two blocks on a multiprocessor, and :data:`ONE_BLOCK` has no reason,
- of float32 iterates with arithmetic in float64 (:data:`ITERATING`), or with loads from device memory where
  all that it iterates on is on the chip (:data:`ON_CHIP`),
- of float32 brings points to the tensor cores with less than :data:`IN_FLIGHT` loads under way before it
  stores one, and :data:`WAITING` has no reason.

The blocks are those that registers, threads and static shared memory allow; what a launch asks for in
addition is tested by sizes in ``tests/kernels``. Counts of an iteration are those of the shortest way round:
at least as many are executed.
"""

import argparse
import importlib.util
import json
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
from sass import Code, iteration, loads_in_flight  # noqa: E402

# part of a kernel's name, and of an instruction of the tensor cores that it must have
PROMISED = {"sinkhorn_kernel<float": "HMMA"}
# why kernels whose name has such a part may run one block at a time
ONE_BLOCK = {
    "<double": "float64 is there to be exact, its numbers take two registers each, and more would be spilled",
    ", Far<": "the last resort for large problems, which would spill registers",
    "sinkhorn_kernel<float, Layout<32": "the iteration's matrix fills the shared memory",
    "sinkhorn_kernel<float, Layout<16": "a block of 16 warps: two of 8 would spill registers",
}
ITERATING = "sinkhorn_kernel<float"
# how many instructions of float64 an iteration may have, and why
FLOAT64: dict[str, tuple[int, str]] = {}
ON_CHIP = re.compile(r"sinkhorn_kernel<float, *Layout<.*true>")
IN_FLIGHT = 8
# why kernels that bring points to the tensor cores may wait for each load
WAITING: dict[str, str] = {}
# registers of a multiprocessor, how many a warp is given at once, and bytes that CUDA keeps of a block
REGISTERS, REGISTERS_AT_ONCE, KEPT = 65536, 256, 1024
# threads and KiB of shared memory of a multiprocessor, by architecture
MULTIPROCESSORS = {
    "sm_80": (2048, 164),
    "sm_86": (1536, 100),
    "sm_89": (1536, 100),
    "sm_90": (2048, 228),
    "sm_100": (2048, 228),
    "sm_103": (2048, 228),
    "sm_120": (1536, 100),
}
TENSOR = re.compile(r"^(HMMA|IMMA|DMMA|HGMMA|QGMMA|UTC\w*MMA)")


@dataclass
class Kernel:
    """One kernel for one architecture.

    Attributes:
        arch: Such as ``sm_90a``.
        name: As the linker knows it, demangled where ``c++filt`` is there.
        registers: Of a thread.
        threads: Of a block, at most; 0 where the code does not say.
        blocks: That fit a multiprocessor by all of these; 0 where that is not known.
        shared: Bytes of static shared memory of a block.
        local: Bytes of local memory of a thread: its stack, and what was spilled.
        local_accesses: Instructions that load from it or store to it.
        tensor: How many instructions of each kind use the tensor cores.
        iteration: How many instructions of each kind an iteration has at least; none where nothing iterates.
        in_flight: Loads before the first store, of each loop that brings numbers to the tensor cores.
        counts: What else was counted, by what it is.
    """

    arch: str
    name: str
    registers: int = 0
    shared: int = 0
    local: int = 0
    local_accesses: int = 0
    tensor: dict[str, int] | None = None
    threads: int = 0
    blocks: int = 0
    iteration: dict[str, int] | None = None
    in_flight: list[int] | None = None
    counts: dict[str, float] | None = None

    def count_blocks(self) -> None:
        """Work out how many blocks run at once."""
        of_multiprocessor = MULTIPROCESSORS.get(self.arch.rstrip("af"))
        if of_multiprocessor is None or not self.threads or not self.registers:
            return
        threads, shared = of_multiprocessor
        warps = -(-self.threads // 32)
        of_warp = -(-self.registers * 32 // REGISTERS_AT_ONCE) * REGISTERS_AT_ONCE
        # from sm_90 on, the static size includes what CUDA keeps
        memory = max(self.shared, KEPT)
        self.blocks = min(REGISTERS // of_warp // warps, threads // (warps * 32), shared * 1024 // memory)

    def gate_faults(self) -> list[str]:
        """What is wrong with its occupancy and its hot loops."""
        faults, where = [], f"{self.name} for {self.arch}"
        if self.threads and self.blocks < 2 and not any(part in self.name for part in ONE_BLOCK):
            faults.append(
                f"{where} leaves room for {self.blocks} block(s) of {self.threads} threads with "
                f"{self.registers} registers each, where two must fit"
            )
        if ITERATING in self.name and self.iteration is None:
            faults.append(f"{where} has no iteration between two barriers that agree")
        elif ITERATING in self.name:
            allowed = max([most for part, (most, _) in FLOAT64.items() if part in self.name], default=0)
            if self.iteration["double"] > allowed:
                faults.append(f"{where} iterates with {self.iteration['double']} instructions of float64")
        if self.iteration and ON_CHIP.search(self.name) and self.iteration["loads"]:
            faults.append(f"{where} iterates with {self.iteration['loads']} loads from device memory")
        waits = not any(part in self.name for part in WAITING)
        if ITERATING in self.name and waits and max(self.in_flight or [0]) < IN_FLIGHT:
            most = max(self.in_flight or [0])
            faults.append(f"{where} stores a point after at most {most} loads, {IN_FLIGHT} are expected")
        return faults

    def faults(self, promised: dict[str, str]) -> list[str]:
        """What is wrong with it, in sentences."""
        faults = self.gate_faults()
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
        if arch_line := re.match(r"arch = (\S+)|\s*code for (\S+)", line):
            arch_next = arch_line[1] or arch_line[2]
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


def threads(cubin: bytes) -> dict[str, int]:
    """How many threads a block of each kernel may have, by its launch bounds, which stand in an ELF."""
    svalue, max_threads = 4, 5
    table, size, count, names = (*struct.unpack_from("<Q", cubin, 40), *struct.unpack_from("<3H", cubin, 58))
    parts = [struct.unpack_from("<IIQQQQ", cubin, table + size * i) for i in range(count)]
    found = {}
    for name_at, _, _, _, begin, length in parts:
        at = parts[names][4] + name_at
        name = cubin[at : cubin.index(b"\0", at)].decode()
        here, end = begin, begin + length
        while name.startswith(".nv.info.") and here < end:
            form, attribute, value = struct.unpack_from("<BBH", cubin, here)
            here += 4
            if (form, attribute) == (svalue, max_threads):
                found[name.removeprefix(".nv.info.")] = struct.unpack_from("<I", cubin, here)[0]
            here += value if form == svalue else 0
    return found


def kernels(resources: str, sass: str, most_threads: dict[str, int] | None = None) -> list[Kernel]:
    """Every kernel of two listings, ``--dump-resource-usage`` and ``--dump-sass``, and its threads."""
    by_name = {}
    for arch, name, text in sections(resources):
        used = {key: int(value) for key, value in re.findall(r"(\w+):(\d+)", text)}
        local = used.get("STACK", 0) + used.get("LOCAL", 0)
        by_name[arch, name] = Kernel(arch, name, used.get("REG", 0), used.get("SHARED", 0), local)
    for arch, name, text in sections(sass):
        kernel = by_name.setdefault((arch, name), Kernel(arch, name))
        code = Code(text)
        codes = [each.code for each in code.instructions]
        kernel.local_accesses = sum(each.startswith(("LDL", "STL")) for each in codes)
        kernel.tensor = {}
        for each in filter(TENSOR.match, codes):
            kernel.tensor[each] = kernel.tensor.get(each, 0) + 1
        counts = iteration(code)
        kernel.iteration = counts and dict(counts)
        kernel.in_flight = loads_in_flight(code)
    for (_, name), kernel in by_name.items():
        kernel.threads = (most_threads or {}).get(name, 0)
        kernel.count_blocks()
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
    with tempfile.TemporaryDirectory() as folder:
        extract = [tool, "-xelf", "all", str(path.resolve())]
        subprocess.run(extract, cwd=folder, capture_output=True, text=True)
        cubins = [file.read_bytes() for file in sorted(Path(folder).iterdir())] or [path.read_bytes()]
    most_threads = {}
    for cubin in cubins:
        if cubin.startswith(b"\x7fELF"):
            most_threads |= threads(cubin)
    if "arch = " not in listings[0] and (arch := re.search(r"code for (\S+)", listings[1])):
        listings[0] = f"arch = {arch[1]}\n{listings[0]}"  # of a single ELF
    of_library = kernels(*listings, most_threads)
    if not of_library:
        raise ValueError(f"{path} must hold the machine code of kernels, none was found in it")
    demangle(of_library)
    return of_library


def table(kernels: list[Kernel]) -> str:
    """A line for every kernel."""
    head = f"{'registers':>9} {'threads':>7} {'blocks':>6} {'shared':>7} {'local':>6}  tensor cores"
    lines = [f"{'arch':8} {head}  iteration  in flight  kernel"]
    for kernel in sorted(kernels, key=lambda kernel: (kernel.name, kernel.arch)):
        tensor = sum((kernel.tensor or {}).values())
        numbers = (
            f"{kernel.registers:9} {kernel.threads:7} {kernel.blocks:6} {kernel.shared:7} {kernel.local:6}"
        )
        loop = kernel.iteration["instructions"] if kernel.iteration else "-"
        flight = max(kernel.in_flight) if kernel.in_flight else "-"
        lines.append(f"{kernel.arch:8} {numbers}  {tensor:12}  {loop:>9}  {flight:>9}  {kernel.name}")
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
