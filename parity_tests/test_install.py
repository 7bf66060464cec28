"""The installed tree: moved away from where it was made, it serves programs that know nothing of this repository."""

import ctypes
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import PRETRAINED, ROOT

from vqvae_gluon import __version__
from vqvae_gluon.artifacts.bundle import open_bundle
from vqvae_gluon.data.images import read_images
from vqvae_gluon.errors import DONE, FAILED, REJECTED, USAGE
from vqvae_gluon.runtimes.gluon import Predictor

DIGIT = PRETRAINED / "digits" / "00.png"
PAGE = ROOT / "docs" / "predictor.md"
EXAMPLES = ROOT / "cpp_bindings" / "examples"
MXNET = ("libmxnet.so", "libopenblas.so.0", "libgfortran.so.3")
WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Werror")


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """The installed tree, in another place than where it was installed, with a space in its name."""
    directory = tmp_path_factory.mktemp("install")
    command = ["cmake", "--install", str(ROOT / "cpp_bindings" / "build"), "--prefix", str(directory / "first")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return (directory / "first").rename(directory / "then here")


@pytest.fixture(scope="module")
def programs(tree, tmp_path_factory) -> Path:
    """The examples, built against the tree in a directory that knows nothing else."""
    directory = tmp_path_factory.mktemp("examples")
    shutil.copytree(EXAMPLES, directory / "source")
    flags = " ".join(WARNINGS)
    configure = ["cmake", "-S", "source", "-B", "build", f"-DCMAKE_PREFIX_PATH={tree}"]
    configure += [f"-DCMAKE_C_FLAGS=-std=c11 {flags}", f"-DCMAKE_CXX_FLAGS={flags}"]
    for command in (configure, ["cmake", "--build", "build"]):
        result = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
    assert str(ROOT) not in (directory / "build" / "CMakeCache.txt").read_text()
    return directory / "build"


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    """The reconstruction of the first digit in Python, uint8 (1, 28, 28, 1)."""
    return Predictor(open_bundle(PRETRAINED)).reconstruct(read_images([DIGIT], 1))


def run_bare(*command, variables=None, **keywords) -> subprocess.CompletedProcess:
    """Run a program in an empty environment."""
    return subprocess.run(list(map(str, command)), env=variables or {}, capture_output=True, check=False, **keywords)


def loaded(*command, variables=None) -> dict[str, Path]:
    """Libraries that a program loaded, by their names."""
    result = run_bare(*command, variables={**(variables or {}), "LD_DEBUG": "libs"})
    assert result.returncode == DONE, result.stderr
    paths = re.findall(r"calling init: (/.*)$", result.stderr.decode(), re.MULTILINE)
    return {Path(path).name: Path(path).resolve() for path in paths}


def is_of_the_system(path: Path) -> bool:
    return path.parts[1] in ("lib", "lib64") or path.parts[1:3] in (("usr", "lib"), ("usr", "lib64"))


def test_nothing_of_python_the_wheel_or_the_repository_is_used(tree, tmp_path):
    command = [tree / "bin/reconstruct", "--bundle", PRETRAINED, DIGIT, "--output", tmp_path / "out"]
    libraries = loaded(*command)
    for name in MXNET:
        assert libraries[name] == tree / "lib" / name
    for name, path in libraries.items():
        assert path.parent == tree / "lib" or is_of_the_system(path)
        assert "python" not in name


def test_the_installed_program_gives_pythons_pixels(tree, tmp_path, expected):
    result = run_bare(tree / "bin/reconstruct", "--bundle", PRETRAINED, DIGIT, "--output", tmp_path / "out")
    assert result.returncode == DONE, result.stderr
    np.testing.assert_array_equal(read_images([tmp_path / "out/00.png"], 1), expected)


def test_the_examples_give_pythons_pixels(programs, tree, tmp_path, expected):
    result = run_bare(programs / "reconstruct_one", PRETRAINED, DIGIT, tmp_path / "out.png")
    assert result.returncode == DONE, result.stderr
    np.testing.assert_array_equal(read_images([tmp_path / "out.png"], 1), expected)
    pixels = read_images([DIGIT], 1).tobytes()
    result = run_bare(programs / "reconstruct_one_c", PRETRAINED, 28, 28, input=pixels)
    assert result.returncode == DONE, result.stderr
    assert result.stdout == expected.tobytes()
    libraries = loaded(programs / "reconstruct_one", PRETRAINED, DIGIT, tmp_path / "out.png")
    assert libraries["libmxnet.so"] == tree / "lib/libmxnet.so"


@pytest.mark.parametrize("program", ["reconstruct_one", "reconstruct_one_c"])
def test_the_examples_tell_errors_in_one_line_and_by_their_code(programs, program, tmp_path):
    arguments = {"reconstruct_one": [tmp_path, DIGIT, tmp_path / "out.png"], "reconstruct_one_c": [tmp_path, 28, 28]}
    result = run_bare(programs / program, *arguments[program], input=b"")
    assert result.returncode == REJECTED
    (line,) = result.stderr.decode().splitlines()
    assert line.startswith(f"{program}: error: {tmp_path}")
    assert run_bare(programs / program).returncode == USAGE


def test_the_variable_chooses_the_library(tree, tmp_path):
    (tmp_path / "other").mkdir()
    for name in MXNET:
        os.link(tree / "lib" / name, tmp_path / "other" / name)
    command = [tree / "bin/reconstruct", "--bundle", PRETRAINED, DIGIT, "--output", tmp_path / "out"]
    for chosen in (tmp_path / "other", tmp_path / "other/libmxnet.so"):
        libraries = loaded(*command, variables={"MXNET_LIBRARY_PATH": str(chosen)})
        assert libraries["libmxnet.so"] == tmp_path / "other/libmxnet.so"
    for chosen in (tmp_path, tmp_path / "nowhere/libmxnet.so"):
        result = run_bare(*command, variables={"MXNET_LIBRARY_PATH": str(chosen)})
        assert result.returncode == FAILED
        assert f"{chosen}" in result.stderr.decode()
        assert "set MXNET_LIBRARY_PATH" in result.stderr.decode()


def test_a_tree_without_libmxnet_says_what_it_lacks_and_takes_the_linkers(tree, tmp_path):
    shutil.copytree(tree, tmp_path / "tree", ignore=shutil.ignore_patterns(*MXNET), symlinks=True)
    command = [tmp_path / "tree/bin/reconstruct", "--bundle", PRETRAINED, DIGIT, "--output", tmp_path / "out"]
    result = run_bare(*command)
    assert result.returncode == FAILED
    assert len(result.stderr.splitlines()) == 1
    assert b"set MXNET_LIBRARY_PATH" in result.stderr
    libraries = loaded(*command, variables={"LD_LIBRARY_PATH": str(tree / "lib")})
    assert libraries["libmxnet.so"] == tree / "lib/libmxnet.so"


def test_no_path_of_the_building_machine_is_left(tree):
    build = [str(ROOT), str(Path(sys.prefix).resolve()), str(tree.parent / "first")]
    ours = [path for path in tree.rglob("*") if path.is_file() and path.name not in MXNET]
    assert len(ours) > 20
    for path in ours:
        data = path.read_bytes()
        assert not [place for place in build if place.encode() in data], path
    for name, wanted in (("lib/libvqvae.so", "$ORIGIN"), ("bin/reconstruct", "$ORIGIN/../lib")):
        printed = subprocess.run(["readelf", "-d", str(tree / name)], capture_output=True, text=True, check=True).stdout
        assert re.findall(r"\((?:RUNPATH|RPATH)\).*\[(.*)\]", printed) == [wanted]


def test_the_library_shows_its_own_names_alone(tree):
    command = ["nm", "--dynamic", "--defined-only", "--format=posix", str(tree / "lib/libvqvae.so")]
    names = [line.split()[0] for line in subprocess.run(command, capture_output=True, text=True).stdout.splitlines()]
    ours = re.compile(r"vqvae_\w+|_ZNK?5vqvae\w+|_ZT[ISV]N5vqvae\w+")
    assert {"vqvae_open", "vqvae_close"} < set(names)
    assert not [name for name in names if not ours.fullmatch(name)]


def test_the_package_asks_for_nothing_else(tree):
    for path in (tree / "lib/cmake/vqvae").iterdir():
        text = path.read_text()
        assert "find_dependency" not in text
        assert not re.search(r"PNG|OpenSSL|ZLIB|nlohmann|TurboJPEG", text), path


def headers() -> list[str]:
    return sorted(path.name for path in (ROOT / "cpp_bindings/include/vqvae").iterdir())


def test_every_header_compiles_alone(tree, tmp_path):
    for name in headers():
        if name.endswith(".h"):
            (tmp_path / f"{name}.c").write_text(f'#include "vqvae/{name}"\n#include "vqvae/{name}"\n')
        (tmp_path / f"{name}.cc").write_text(f'#include "vqvae/{name}"\n#include "vqvae/{name}"\n')
    for compiler, standard, suffix in (("c++", "c++17", ".cc"), ("cc", "c11", ".c")):
        sources = sorted(str(path) for path in tmp_path.glob(f"*{suffix}"))
        assert sources
        command = [
            compiler,
            f"-std={standard}",
            "-pedantic-errors",
            *WARNINGS,
            "-fsyntax-only",
            "-I",
            str(tree / "include"),
        ]
        result = subprocess.run([*command, *sources], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", headers())
def test_a_header_knows_the_standard_library_and_its_neighbours_alone(tree, name):
    text = (tree / "include/vqvae" / name).read_text()
    for included in re.findall(r"#\s*include\s+(\S+)", text):
        assert re.fullmatch(r'<[a-z_]+>|<std(def|int)\.h>|"vqvae/\w+\.hpp"', included), included
    assert all(macro.startswith("VQVAE_") for macro in re.findall(r"#\s*define\s+(\w+)", text))
    assert "using namespace" not in text


class Options(ctypes.Structure):
    """vqvae_options"""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("engine", ctypes.c_int32),
        ("no_verify", ctypes.c_int32),
        ("memory_limit", ctypes.c_uint64),
        ("threads", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
    )


class Properties(ctypes.Structure):
    """vqvae_properties"""

    _fields_ = (
        ("size", ctypes.c_size_t),
        ("channels", ctypes.c_int64),
        ("stride", ctypes.c_int64),
        ("num_embeddings", ctypes.c_int64),
        ("digest", ctypes.c_char * 72),
    )


INT64, SIZE, POINTER = ctypes.c_int64, ctypes.c_size_t, ctypes.c_void_p
WORK = [POINTER, POINTER, SIZE, INT64, INT64, INT64, POINTER, SIZE]
FUNCTIONS = {
    "vqvae_open": [ctypes.c_char_p, POINTER, POINTER],
    "vqvae_close": [POINTER],
    "vqvae_info": [POINTER, POINTER],
    "vqvae_code_shape": [POINTER, INT64, INT64, POINTER, POINTER],
    "vqvae_encode": WORK,
    "vqvae_decode": WORK,
    "vqvae_reconstruct": WORK,
    "vqvae_last_error": [],
    "vqvae_version": [],
}


@pytest.fixture(scope="module")
def library(tree) -> ctypes.CDLL:
    """The C API. In this process MXNet is loaded already, by Python: the two share it."""
    result = ctypes.CDLL(str(tree / "lib/libvqvae.so"))
    for name, arguments in FUNCTIONS.items():
        getattr(result, name).argtypes = arguments
    for name in ("vqvae_last_error", "vqvae_version"):
        getattr(result, name).restype = ctypes.c_char_p
    result.vqvae_close.restype = None
    return result


def open_predictor(library, **options) -> ctypes.c_void_p:
    handle = ctypes.c_void_p()
    given = Options(size=ctypes.sizeof(Options), **options)
    status = library.vqvae_open(bytes(PRETRAINED), ctypes.byref(given), ctypes.byref(handle))
    assert status == DONE, library.vqvae_last_error()
    return handle


@pytest.fixture
def predictor(library):
    handle = open_predictor(library)
    yield handle
    library.vqvae_close(handle)


def work(function, predictor, given: np.ndarray, size, result: np.ndarray) -> int:
    """Call vqvae_encode, vqvae_decode or vqvae_reconstruct for images of this size (N, H, W)."""
    return function(predictor, given.ctypes.data, given.nbytes, *size, result.ctypes.data, result.nbytes)


def test_the_c_header_and_its_declarations_here_have_the_same_functions():
    text = (ROOT / "cpp_bindings/include/vqvae/vqvae.h").read_text()
    assert set(re.findall(r"^[a-z].*?\b(vqvae_\w+)\(", text, re.MULTILINE)) == set(FUNCTIONS)


@pytest.mark.parametrize("engine", range(4))
@pytest.mark.parametrize("size", [(3, 28, 28), (2, 31, 9)])
def test_the_c_api_gives_what_python_gives(library, engine, size):
    images = np.random.default_rng(0).integers(0, 256, (*size, 1), np.uint8)
    reference = Predictor(open_bundle(PRETRAINED))
    handle = open_predictor(library, engine=engine, no_verify=engine % 2, memory_limit=engine << 20)
    rows, columns = ctypes.c_int64(), ctypes.c_int64()
    assert library.vqvae_code_shape(handle, *size[1:], ctypes.byref(rows), ctypes.byref(columns)) == DONE
    codes, result, decoded = np.empty((size[0], rows.value, columns.value), np.int32), images.copy(), images.copy()
    assert work(library.vqvae_encode, handle, images, size, codes) == DONE
    np.testing.assert_array_equal(codes, reference.encode(images))
    assert work(library.vqvae_decode, handle, codes, size, decoded) == DONE
    assert work(library.vqvae_reconstruct, handle, result, size, result) == DONE
    np.testing.assert_array_equal(decoded, reference.reconstruct(images))
    np.testing.assert_array_equal(result, decoded)
    library.vqvae_close(handle)


def test_the_c_api_tells_what_a_predictor_is(library, predictor):
    properties = Properties(size=ctypes.sizeof(Properties))
    assert library.vqvae_info(predictor, ctypes.byref(properties)) == DONE
    bundle = open_bundle(PRETRAINED)
    assert (properties.channels, properties.stride) == (1, 4)
    assert (properties.num_embeddings, properties.digest.decode()) == (bundle.num_embeddings, bundle.digest)
    assert library.vqvae_version().decode() == __version__
    properties.size -= 8
    assert library.vqvae_info(predictor, ctypes.byref(properties)) == USAGE


def test_the_c_api_rejects_what_is_no_bundle(library, bundle):
    (bundle / "decoder-0000.params").write_bytes(b"\0" * 100)
    for path, words in ((bundle, "decoder-0000.params"), (bundle / "nothing", "nothing")):
        handle = ctypes.c_void_p(1)
        assert library.vqvae_open(bytes(path), None, ctypes.byref(handle)) == REJECTED
        assert handle.value is None
        assert words in library.vqvae_last_error().decode()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 0}, "options.size: is 0, not sizeof(vqvae_options)"),
        ({"size": 1 << 40}, "options.size: is 1099511627776"),
        ({"engine": 4}, "options.engine: is 4, not 0, 1, 2 or 3"),
        ({"engine": -1}, "options.engine: is -1"),
        ({"no_verify": 2}, "options.no_verify: is neither 0 nor 1"),
        ({"threads": -1}, "threads: are -1; give at least 1"),
        ({"threads": 12345}, "for the whole process since MXNet was loaded; they cannot be 12345"),
        ({"reserved": 1}, "options.reserved: is not 0"),
    ],
)
def test_the_c_api_refuses_options_that_it_does_not_know(library, predictor, options, words):
    handle = ctypes.c_void_p()
    given = Options(**{"size": ctypes.sizeof(Options), **options})
    assert library.vqvae_open(bytes(PRETRAINED), ctypes.byref(given), ctypes.byref(handle)) == USAGE
    assert words in library.vqvae_last_error().decode()
    assert handle.value is None


def test_options_of_another_version_are_taken_if_they_ask_for_nothing_new(library):
    larger = (ctypes.c_uint8 * (ctypes.sizeof(Options) + 8))()
    options = Options.from_buffer(larger)
    for size, last, status in ((12, 0, DONE), (len(larger), 0, DONE), (len(larger), 1, USAGE)):
        options.size, larger[-1], handle = size, last, ctypes.c_void_p()
        assert library.vqvae_open(bytes(PRETRAINED), ctypes.byref(options), ctypes.byref(handle)) == status
        library.vqvae_close(handle)


def test_the_c_api_refuses_null(library, predictor):
    number, properties = ctypes.c_int64(), Properties(size=ctypes.sizeof(Properties))
    handle = ctypes.c_void_p()
    images = np.zeros((1, 4, 4, 1), np.uint8)
    pixels, size = images.ctypes.data, images.nbytes
    library.vqvae_close(None)
    refused = [
        library.vqvae_open(None, None, ctypes.byref(handle)),
        library.vqvae_open(bytes(PRETRAINED), None, None),
        library.vqvae_info(None, ctypes.byref(properties)),
        library.vqvae_info(predictor, None),
        library.vqvae_code_shape(None, 4, 4, ctypes.byref(number), ctypes.byref(number)),
        library.vqvae_code_shape(predictor, 4, 4, None, ctypes.byref(number)),
        library.vqvae_code_shape(predictor, 4, 4, ctypes.byref(number), None),
        library.vqvae_encode(None, pixels, size, 1, 4, 4, pixels, 4),
        library.vqvae_encode(predictor, None, size, 1, 4, 4, pixels, 4),
        library.vqvae_encode(predictor, pixels, size, 1, 4, 4, None, 4),
        library.vqvae_decode(predictor, None, 4, 1, 4, 4, pixels, size),
        library.vqvae_decode(predictor, pixels, 4, 1, 4, 4, None, size),
        library.vqvae_reconstruct(predictor, None, size, 1, 4, 4, pixels, size),
        library.vqvae_reconstruct(predictor, pixels, size, 1, 4, 4, None, size),
    ]
    assert refused == [USAGE] * len(refused)
    assert library.vqvae_last_error().endswith(b": is NULL")


@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("extent", [0, -1, -(2**63), 2**31, 2**63 - 1])
def test_the_c_api_refuses_extents_that_cannot_be(library, predictor, place, extent):
    size = [1, 4, 4]
    size[place] = extent
    images, codes = np.zeros((1, 4, 4, 1), np.uint8), np.zeros((1, 1, 1), np.int32)
    for function, given, result in (
        (library.vqvae_encode, images, codes),
        (library.vqvae_decode, codes, images),
        (library.vqvae_reconstruct, images, images),
    ):
        assert work(function, predictor, given, size, result) == USAGE
        assert b"not 1 to 2^31 - 1" in library.vqvae_last_error()


def test_the_c_api_refuses_buffers_of_another_size_and_leaves_them(library, predictor):
    images, codes = np.full((2, 8, 8, 1), 7, np.uint8), np.full((2, 2, 2), 7, np.int32)
    for function, given, result in (
        (library.vqvae_encode, images, codes),
        (library.vqvae_decode, codes, images),
        (library.vqvae_reconstruct, images, images.copy()),
    ):
        for size in ((1, 8, 8), (3, 8, 8), (2, 8, 12), (2, 2**31 - 1, 2**31 - 1), (2**31 - 1,) * 3):
            assert work(function, predictor, given, size, result) == USAGE
        assert function(predictor, given.ctypes.data, given.nbytes, 2, 8, 8, result.ctypes.data, 0) == USAGE
        assert function(predictor, given.ctypes.data, 2**64 - 1, 2, 8, 8, result.ctypes.data, result.nbytes) == USAGE
        assert np.all(result == 7)
    codes[1, 1, 1] = 64
    assert work(library.vqvae_decode, predictor, codes, (2, 8, 8), images) == REJECTED
    assert b"the codebook has 0..63" in library.vqvae_last_error()
    assert np.all(images == 7)


def test_the_page_shows_the_examples_as_they_are():
    for language, name in (("cpp", "reconstruct_one.cc"), ("c", "reconstruct_one.c")):
        (shown,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
        assert shown == (EXAMPLES / name).read_text()


def test_the_page_lists_what_is_installed(tree):
    """A line names a file, with its versions behind a dot, or a directory; those beside it are named in its comment."""
    section = PAGE.read_text().split("## Install and deploy\n")[1]
    listed = []
    for path, comment in re.findall(r"^    dist/(\S+)(.*)$", section, re.MULTILINE):
        listed += [path, *(f"{Path(path).parent}/{name}" for name in re.findall(r"\blib\S+\.so\S*\b", comment))]
    installed = [str(path.relative_to(tree)) for path in tree.rglob("*") if not path.is_dir()]
    for path in listed:
        assert (tree / path).is_dir() == path.endswith("/"), path
        assert (tree / path).exists(), path
    for path in installed:
        assert any(path == name or path.startswith(name if name[-1] == "/" else f"{name}.") for name in listed), path


def test_the_python_of_the_page_needs_numpy_alone(tree, tmp_path):
    (tmp_path / "dist").symlink_to(tree)
    (tmp_path / "pretrained").symlink_to(ROOT / "pretrained")
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    check = (
        "\nimport sys\nassert not {'mxnet', 'vqvae_gluon'} & set(sys.modules)\nassert result.shape == images.shape\n"
    )
    command = [sys.executable, "-c", code + check]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == DONE, result.stderr
