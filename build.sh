#!/usr/bin/env bash
# Sets up, builds, trains, tests. Running it again does no work twice.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() {
  cat <<'TEXT'
usage: bash build.sh [COMMAND]

  (none)  first light: set up, train a short schedule, export, build the C++ side, reconstruct
          64 test digits with both, compare layer by layer, and say where the pictures are
  test    set up what is missing (a Chromium for the report's page, too), then run pytest, ctest,
          'sanitize' and 'fuzz', and print what was skipped, why, and the slowest tests; with words
          for pytest, such as '-k words', pytest and ctest alone
  sanitize
          run ctest under AddressSanitizer and UndefinedBehaviorSanitizer, then under
          ThreadSanitizer, and damaged files through the program
  fuzz [SECONDS]
          run the fuzz targets, each for a fixed count, or for SECONDS from where it was stopped
  train   the full schedule of the mnist preset, 100 epochs; goes on where it was stopped.
          Flags of 'vqvae-gluon train' may follow
  cpp     build the C++ side alone
  lint    ruff, mypy, clang-format and clang-tidy
  setup   the environment alone
  pins    write requirements-*.txt anew, by setup.py and constraints.txt

Environment: PYTHON, the interpreter to use (3.9 to 3.12; default: the first that is found);
VQVAE_KERNELS_ISA=none, to run MXNet's own operators in place of this project's
TEXT
}

readonly VENV=.venv
readonly CPP=cpp_bindings
readonly OUT=build/first-light
readonly DIGITS=pretrained/mnist/digits
readonly TESTED=build/tests

say() { printf '\n== %s\n' "$*" >&2; }
die() { printf 'build.sh: error: %s\n' "$*" >&2; exit 1; }

# Install Debian packages if that is possible, else say what is wanted.
install_packages() {
  if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    say "Installing $*"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@" >/dev/null
  else
    die "missing packages: run 'sudo apt-get install $*' (or what your system calls them), then this again"
  fi
}

find_python() {
  local name
  local names=(python3 python3.12 python3.11 python3.10 python3.9)
  [ -z "${PYTHON:-}" ] || names=("$PYTHON")
  for name in "${names[@]}"; do
    if "$name" -c 'import sys; sys.exit(not (3, 9) <= sys.version_info < (3, 13))' 2>/dev/null; then
      echo "$name"
      return
    fi
  done
  die "no Python 3.9 to 3.12 was found; install one, or set PYTHON to it"
}

# The virtual environment with the package and the extra named, from files whose SHA-256 is in requirements-EXTRA.txt.
setup_python() {
  local extra=$1 pins="requirements-$1.txt" python stamp install
  if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    "$python" -c 'import ensurepip, venv' 2>/dev/null || install_packages python3-venv
    say "Making $VENV with $("$python" --version)"
    rm -rf "$VENV"
    "$python" -m venv "$VENV"
  fi
  stamp="$VENV/.installed-$extra-$(cat setup.py "$pins" | sha256sum | cut -c1-16)"
  if [ ! -e "$stamp" ]; then
    say "Installing the Python side ($extra)"
    install=("$VENV/bin/python" -m pip install --quiet --disable-pip-version-check)
    # Wheels alone: what builds another package would come without a digest. This project has none, nor needs one.
    "${install[@]}" --require-hashes --only-binary :all: --requirement "$pins" &&
      "${install[@]}" --no-deps --no-build-isolation --editable . ||
      die "the packages could not be installed; see above, then run this again"
    touch "$stamp"
  fi
}

# The compiler and the libraries of the C++ side.
setup_cpp() {
  local missing=() pair
  command -v c++ >/dev/null || missing+=(g++)
  command -v cmake >/dev/null || missing+=(cmake)
  command -v ninja >/dev/null || command -v make >/dev/null || missing+=(ninja-build)
  for pair in png.h:libpng-dev turbojpeg.h:libturbojpeg0-dev openssl/evp.h:libssl-dev zlib.h:zlib1g-dev \
    nlohmann/json.hpp:nlohmann-json3-dev CLI/CLI.hpp:libcli11-dev doctest/doctest.h:doctest-dev; do
    if ! command -v c++ >/dev/null || ! echo "#include <${pair%%:*}>" | c++ -E -x c++ - >/dev/null 2>&1; then
      missing+=("${pair##*:}")
    fi
  done
  [ ${#missing[@]} -eq 0 ] || install_packages "${missing[@]}"
}

# clang with libFuzzer.
setup_fuzz() {
  local target='extern "C" int LLVMFuzzerTestOneInput(const char*, long) { return 0; }'
  if ! command -v clang++ >/dev/null ||
    ! echo "$target" | clang++ -x c++ - -fsanitize=fuzzer,address -o /dev/null 2>/dev/null; then
    install_packages clang libclang-rt-dev
  fi
}

# The browser in which the tests look at the report.
setup_browser() {
  local name
  for name in chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null; then
      return
    fi
  done
  install_packages chromium
}

# The data set that comes as a package, for its tests.
setup_data() {
  [ -e /usr/share/datasets/fashion-mnist ] || install_packages dataset-fashion-mnist
}

# Configure a tree of the C++ side: its directory, what else CMake is told.
configure_cpp() {
  local tree=$1 generator=()
  setup_cpp
  if [ ! -e "$CPP/$tree/CMakeCache.txt" ]; then
    say "Building the C++ side ($CPP/$tree)"
    command -v ninja >/dev/null && generator=(-G Ninja)
  fi
  cmake -S "$CPP" -B "$CPP/$tree" "${generator[@]}" -DPython3_EXECUTABLE="$PWD/$VENV/bin/python" "${@:2}" >/dev/null
}

build_cpp() {
  configure_cpp build
  cmake --build "$CPP/build" --parallel "$(nproc)" >&2
}

first_light() {
  local run="$OUT/run" bundle="$OUT/bundle" digits=("$DIGITS"/*.png) last
  setup_python test
  build_cpp
  say "Training for one epoch, one to two minutes ($run)"
  "$VENV/bin/vqvae-gluon" train --preset mnist --output "$run" --epochs 1 --batch-size 128
  if [ ! "$bundle/manifest.json" -nt "$run/best.npz" ]; then
    "$VENV/bin/vqvae-gluon" export "$run" --output "$bundle"
  fi
  last="$OUT/cpp/$(basename "${digits[-1]}")"
  if [ ! "$last" -nt "$bundle/manifest.json" ] || [ ! "$last" -nt "$CPP/build/reconstruct" ]; then
    say "Reconstructing ${#digits[@]} test digits in Python and in C++"
    rm -rf "$OUT/python" "$OUT/cpp"
    "$VENV/bin/vqvae-gluon" reconstruct "$bundle" "${digits[@]}" --output "$OUT/python" >/dev/null
    "$CPP/build/reconstruct" --bundle "$bundle" --output "$OUT/cpp" "${digits[@]}" >/dev/null
  fi
  say "Comparing the two, layer by layer"
  "$VENV/bin/vqvae-gluon" parity "$bundle" --candidate cpp --data "$DIGITS" --html "$OUT/report"
  cat >&2 <<TEXT

pictures  $OUT/report/overview.png (both sides and their codes), $OUT/report/index.html (the report)
          $OUT/python/ and $OUT/cpp/ (each digit), $run/reconstructions/ and $run/losses.png (the training)
TEXT
}

run_tests() {
  setup_python test
  setup_browser
  setup_data
  build_cpp
  if [ $# -gt 0 ]; then
    say "pytest parity_tests $*"
    "$VENV/bin/python" -m pytest parity_tests "$@"
  else
    test_in_parallel
  fi
  say "ctest"
  (cd "$CPP/build" && ctest --output-on-failure --no-tests=error)
  [ $# -eq 0 ] || return 0
  sanitize
  fuzz
  say "All tests"
  "$VENV/bin/python" parity_tests/summary.py "$TESTED"/*.xml
}

# The whole of pytest, a process for each processor. Where this project's own operators run, the tests of engines and
# training are run once more without them.
test_in_parallel() {
  # Threads that share the processors must not wait in loops. There is one process more, since some tests wait.
  local run=(env OMP_WAIT_POLICY=passive "$VENV/bin/python" -m pytest --numprocesses "$(($(nproc) + 1))" --dist worksteal)
  rm -rf "$TESTED"
  say "pytest parity_tests"
  "${run[@]}" --junit-xml "$TESTED/pytest.xml" parity_tests
  if "$VENV/bin/python" -c 'import sys; from vqvae_gluon.kernels import has_kernels; sys.exit(not has_kernels())'; then
    say "pytest without the fused operators (VQVAE_KERNELS_ISA=none)"
    VQVAE_KERNELS_ISA=none "${run[@]}" --junit-xml "$TESTED/without-fused-operators.xml" \
      parity_tests/test_{engines,fused,fused_training,training}.py
  fi
}

sanitize() {
  local preset
  setup_python test
  for preset in asan tsan; do
    configure_cpp "build-$preset" --preset "$preset"
    cmake --build "$CPP/build-$preset" --parallel "$(nproc)" --target unit_tests threads_test >&2
    say "ctest ($preset)"
    (cd "$CPP/build-$preset" && ctest --output-on-failure --no-tests=error)
  done
  say "Damaged files through the program under AddressSanitizer"
  cmake --build "$CPP/build-asan" --parallel "$(nproc)" --target reconstruct >&2
  VQVAE_SANITIZED=1 ASAN_OPTIONS=detect_leaks=0 VQVAE_RECONSTRUCT="$PWD/$CPP/build-asan/reconstruct" \
    "$VENV/bin/python" parity_tests/mutations.py --program cpp --count 180
}

# What is found stays in cpp_bindings/build-fuzz/found, and is run by giving the file to the target.
fuzz() {
  local seconds=${1:-} tree=$CPP/build-fuzz target name words
  setup_python test
  setup_fuzz
  configure_cpp build-fuzz --preset fuzz
  cmake --build "$tree" --parallel "$(nproc)" --target fuzz >&2
  "$VENV/bin/python" "$CPP/fuzz/seeds.py" "$tree/seeds"
  mkdir -p "$tree/found"
  for target in "$tree"/fuzz/fuzz_*; do
    name=${target##*/fuzz_}
    words=(-max_len=8192 -runs=20000 -seed=1)
    if [ -n "$seconds" ]; then
      mkdir -p "$tree/corpus/$name"
      words=(-max_len=65536 -max_total_time="$seconds" "$tree/corpus/$name")
    fi
    "$target" -timeout=5 -malloc_limit_mb=256 -rss_limit_mb=2048 -dict="$CPP/fuzz/$name.dict" -print_final_stats=1 \
      -artifact_prefix="$tree/found/$name-" "${words[@]}" "$tree/seeds/$name" >"$tree/$name.log" 2>&1 ||
      { tail -n 60 "$tree/$name.log" >&2; die "fuzz $name: a finding, see above and $tree/found"; }
    say "fuzz $name: $(sed -n 's/^stat::number_of_executed_units: *//p' "$tree/$name.log") inputs, nothing found"
  done
}

train() {
  setup_python test
  "$VENV/bin/vqvae-gluon" train --preset mnist --output runs/mnist "$@"
}

# requirements-EXTRA.txt: what the extra needs and what builds this package, for each Python, with all digests.
pins() {
  local extra
  setup_python dev
  for extra in test dev; do
    echo setuptools | "$VENV/bin/uv" pip compile setup.py - --extra "$extra" --constraint constraints.txt \
      --universal --python-version 3.9 --python "$VENV/bin/python" --no-build-isolation --generate-hashes \
      --no-annotate --custom-compile-command "bash build.sh pins" --output-file "requirements-$extra.txt" --quiet ||
      die "requirements-$extra.txt could not be written; see above"
  done
}

lint() {
  local sources
  setup_python dev
  build_cpp
  mapfile -t sources < <(find "$CPP"/{include,src,tools,tests,fuzz,kernels} -name '*.hpp' -o -name '*.cc')
  "$VENV/bin/ruff" check .
  "$VENV/bin/ruff" format --check .
  "$VENV/bin/mypy"
  "$VENV/bin/clang-format" --dry-run --Werror "${sources[@]}"
  # The fuzz targets and the kernels' OpenMP want headers that clang-tidy's package lacks.
  printf '%s\n' "${sources[@]}" | grep '\.cc$' | grep -v -e /fuzz/ -e /kernels/ |
    xargs -P "$(nproc)" -n 2 "$VENV/bin/clang-tidy" --quiet -p "$CPP/build" --warnings-as-errors='*'
  say "lint: clean"
}

case "${1:-}" in
  "") first_light ;;
  test) run_tests "${@:2}" ;;
  train) train "${@:2}" ;;
  cpp)
    setup_python test
    build_cpp
    ;;
  lint) lint ;;
  pins) pins ;;
  sanitize) sanitize ;;
  fuzz) fuzz "${@:2}" ;;
  setup)
    setup_python test
    setup_cpp
    ;;
  -h | --help | help) usage ;;
  *) usage >&2; exit 2 ;;
esac
