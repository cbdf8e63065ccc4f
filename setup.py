"""Builds the two shared objects; everything else about the package stands in pyproject.toml.

``geokernels/kernels/_C``     schemas, CPU kernels, build_info()
``geokernels/kernels/_cuda``  CUDA kernels, when a CUDA compiler of torch's major version is found

Environment: FORCE_CUDA=1 insists on CUDA, FORCE_CUDA=0 leaves it out; TORCH_CUDA_ARCH_LIST chooses the
architectures; MAX_JOBS the parallel compilations; NVCC_APPEND_FLAGS=-lineinfo, which nvcc reads itself, adds
lines of the sources for profilers and sanitizers, and half as many bytes again; GEOKERNELS_LOCAL_VERSION,
such as cu130, is what the version ends in after a +. No GPU is needed to build.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import setuptools
from setuptools import Extension, setup

ROOT = Path(__file__).parent
CUDA_ARCHS = "8.0;8.6;8.9;9.0+PTX;10.0;12.0+PTX"
# PyTorch 2.10, as torch/headeronly/version.h writes it: nothing newer than its stable ABI is used
TORCH_TARGET_VERSION = "0x020a000000000000ULL"


def stop(sentence: str) -> None:
    """End the build with one sentence."""
    sys.exit(f"geokernels cannot be built: {sentence}")


def toolkit() -> Path | None:
    """The CUDA toolkit that ``nvcc`` belongs to, asked of nvcc itself: the one on PATH may be a wrapper."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    nvcc = str(Path(home, "bin", "nvcc")) if home else shutil.which("nvcc")
    if nvcc is None or not Path(nvcc).exists():
        return None
    told = subprocess.run([nvcc, "--dryrun", "-x", "cu", "-E", os.devnull], capture_output=True, text=True)
    top = re.search(r"TOP=(\S+)", told.stderr)
    return Path(top[1]).resolve() if top else None


if int(setuptools.__version__.partition(".")[0]) < 77:  # which would not read our licence
    stop(f"setuptools {setuptools.__version__} is too old; pip install 'setuptools>=77'")
cuda_home = toolkit()
if cuda_home:
    os.environ["CUDA_HOME"] = str(cuda_home)  # read by cpp_extension when it is imported
try:
    import torch
    from torch.utils import cpp_extension
except ImportError as error:
    stop(f"{error.name} is missing; pip install 'torch>=2.10' ninja")


def sources(pattern: str) -> list[str]:
    """Files under the root that match, in a fixed order."""
    return sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(pattern))


def release() -> tuple[int, int]:
    """Of the CUDA compiler, such as (13, 0); (0, 0) where it does not tell."""
    nvcc = cuda_home / "bin" / "nvcc"
    text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"release (\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def refuse_cuda() -> str | None:
    """Say why the CUDA library is not built, or None to build it."""
    if os.environ.get("FORCE_CUDA") == "0":
        return "FORCE_CUDA=0"
    if cuda_home is None:
        return "no nvcc on PATH or in CUDA_HOME"
    if torch.version.cuda is None:
        return "this torch was built without CUDA"
    major, minor = release()
    wanted = torch.version.cuda.split(".")[0]
    if str(major) != wanted:
        told = f"{major}.{minor}" if major else "unknown"
        return f"nvcc is release {told}, torch was built with CUDA {wanted}"
    return None


# a free-threaded Python has no stable ABI
STABLE_PYTHON = not sysconfig.get_config_var("Py_GIL_DISABLED")


def define(**names: str) -> list[tuple[str, str]]:
    """Macros in the form setuptools takes."""
    return list(names.items())


reason = refuse_cuda()
if reason and os.environ.get("FORCE_CUDA") == "1":
    stop(f"FORCE_CUDA=1, but {reason}")
if reason:
    print(f"geokernels: CPU only ({reason})")
if not any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++")):
    stop("no C++ compiler was found; install g++ or clang++, or name one in CXX")
archs = os.environ.setdefault("TORCH_CUDA_ARCH_LIST", CUDA_ARCHS)
# torch would take names of generations too, by which a library cannot tell where it runs
if not reason and not all(re.fullmatch(r"\d+\.\da?(\+PTX)?", arch) for arch in re.split("[; ]+", archs)):
    stop(f"TORCH_CUDA_ARCH_LIST must list numbers like {CUDA_ARCHS}, got {archs}")


local = os.environ.get("GEOKERNELS_LOCAL_VERSION", "")
if not re.fullmatch(r"[a-z0-9]*(\.[a-z0-9]+)*", local):
    stop(f"GEOKERNELS_LOCAL_VERSION must be letters and digits like cu130, got {local}")


def system(*folders: str) -> list[str]:
    """Compiler flags for headers whose warnings are not ours."""
    return [flag for folder in folders for flag in ("-isystem", folder)]


warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-Wno-psabi", "-g0"]
extensions = [
    Extension(
        "geokernels.kernels._C",
        sources("csrc/*.cpp") + sources("csrc/cpu/*.cpp"),
        define_macros=define(
            TORCH_TARGET_VERSION=TORCH_TARGET_VERSION,
            GEOKERNELS_CUDA_ARCHS=f'"{"" if reason else archs}"',
            GEOKERNELS_TORCH_BUILT=f'"{torch.__version__}"',
        ),
        depends=sources("csrc/**/*.h"),
        include_dirs=[str(ROOT / "csrc")],
        library_dirs=cpp_extension.library_paths(),
        libraries=["c10", "torch", "torch_cpu"],
        extra_compile_args={
            "cxx": [
                "-O3",
                "-fvisibility=hidden",
                "-fno-math-errno",
                *warnings,
                *system(*cpp_extension.include_paths()),
            ]
        },
        extra_link_args=["-s"],
        language="c++",
        py_limited_api=STABLE_PYTHON,
    )
]
if reason is None:
    extensions.append(
        Extension(
            "geokernels.kernels._cuda",
            sources("csrc/cuda/*.cu"),
            define_macros=define(TORCH_TARGET_VERSION=TORCH_TARGET_VERSION, USE_CUDA="1"),
            depends=sources("csrc/**/*.h"),
            include_dirs=[str(ROOT / "csrc")],
            library_dirs=cpp_extension.library_paths("cuda"),
            libraries=["c10", "torch", "torch_cpu", "torch_cuda", "cudart"],
            extra_compile_args={
                "cxx": ["-O3", *warnings],
                "nvcc": [
                    "-O3",
                    "--threads=2",
                    "-Werror=all-warnings",
                    # a wheel holds the machine code for every architecture: a quarter less of it. Drivers for
                    # CUDA 13 can read it, those that some torch of CUDA 12 still runs on cannot
                    *(["--compress-mode=size"] if release() >= (13, 0) else []),
                    *system(*cpp_extension.include_paths("cuda")),
                ],
            },
            extra_link_args=["-s"],
            language="c++",
            py_limited_api=STABLE_PYTHON,
        )
    )


class Build(cpp_extension.BuildExtension):
    """Keeps its objects where an editable install, which forgets its own, and a wheel both find them."""

    def finalize_options(self) -> None:
        """Names one folder for objects, whoever calls."""
        super().finalize_options()
        self.build_temp = str(ROOT / "build" / "objects")

    def run(self) -> None:
        """Leaves no library of an earlier build where a wheel would take it along."""
        for old in Path(self.build_lib).glob("geokernels/kernels/*.so"):
            old.unlink()
        super().run()

    def copy_extensions_to_source(self) -> None:
        """Leaves none, under another name, where Python would import it in place of this one."""
        for extension in self.extensions:
            for old in ROOT.glob(f"{extension.name.replace('.', '/')}.*.so"):
                old.unlink()
        super().copy_extensions_to_source()


options = {"egg_info": {"tag_build": f"+{local}" if local else ""}}
if STABLE_PYTHON:
    options["bdist_wheel"] = {"py_limited_api": "cp311"}  # one wheel for this Python and all later ones
setup(ext_modules=extensions, cmdclass={"build_ext": Build}, options=options)
