"""Damaged files through the real programs (mutations.py), a few of every kind; and the same ones on any machine."""

import hashlib
import subprocess
import sys
from random import Random

import pytest
from conftest import PRETRAINED, ROOT
from mutate import FORMS, claimed_pixels, mutate, png_bytes, vq_bytes
from mutate.checkpoints import checkpoint_bytes, damage_checkpoint
from mutations import KINDS, Sound, make_case, zlib_pixels

from vqvae_gluon.artifacts.codes import parse_codes
from vqvae_gluon.data.images import decode_image, encode_png
from vqvae_gluon.errors import InputError
from vqvae_gluon.training import checkpoint

COUNT = 360  # Of both programs: a minute of two processors, a third of it for Python to start.

OTHERS = 110  # Of those that Python alone reads.


def run_mutations(*words) -> subprocess.CompletedProcess:
    """In a process of its own, and a small one: see mutations.py."""
    command = [sys.executable, str(ROOT / "parity_tests" / "mutations.py"), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("programs", "count"), [(2, COUNT), (1, OTHERS)])
def test_damaged_files_are_refused_or_change_nothing(programs, count):
    kinds = [word for name, kind in KINDS.items() if len(kind.programs) == programs for word in ("--kind", name)]
    result = run_mutations("--count", count, "--seed", 1, *kinds)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{programs * count} runs in " in result.stdout


def test_a_mutation_can_be_made_again(tmp_path):
    sound = Sound()
    case = make_case(sound, "signed-json", 3, 7)
    assert (
        case.damaged == make_case(sound, "signed-json", 3, 7).damaged != make_case(sound, "signed-json", 3, 8).damaged
    )
    result = run_mutations("--only", "signed-json:3", "--seed", 7, "--keep", tmp_path)
    assert case.what in result.stdout
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()} == set(case.files)
    assert all((tmp_path / name).read_bytes() == content for name, content in case.files.items())


def test_a_seed_gives_the_same_files_on_any_machine():
    """But for the images that a library writes."""
    state = hashlib.sha256()
    for form, data in {
        "json": (PRETRAINED / "encoder-symbol.json").read_bytes(),
        "manifest": (PRETRAINED / "manifest.json").read_bytes(),
        "vq": vq_bytes(bytes(32), (1, 28, 28, 7, 7, 64), [5] * 49),
        "npy": Sound().npy,
    }.items():
        for number in range(300):
            what, damaged = mutate(form, data, data, Random(f"0/{form}/{number}"))
            state.update(what.encode() + damaged)
    assert state.hexdigest().startswith("0f5ac16dd2e53cf9")


def test_a_checkpoint_of_the_table_is_one_of_the_program(tmp_path):
    (tmp_path / "x.npz").write_bytes(checkpoint_bytes(1))
    assert checkpoint.load(tmp_path / "x.npz").progress.step == 120
    for number in range(20):
        name, damaged = damage_checkpoint(checkpoint_bytes(1), Random(number))
        (tmp_path / "x.npz").write_bytes(damaged)
        try:
            checkpoint.load(tmp_path / "x.npz")
        except InputError as error:
            assert "digest does not fit" not in str(error), name


def test_a_program_that_fails_is_told(tmp_path, monkeypatch):
    """The judge itself: a program that does the opposite of what it must."""
    program = tmp_path / "reconstruct"
    program.write_text("#!/bin/sh\nmkdir -p out && echo >out/.half\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("VQVAE_RECONSTRUCT", str(program))
    result = run_mutations("--count", 2, "--program", "cpp", "--kind", "params")
    assert result.returncode == 1
    assert "sound files of params: ended with 1" in result.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_the_sound_files_are_sound(kind):
    case = make_case(Sound(), kind, None, 0)
    assert case.what == "sound"
    assert KINDS[kind].form in ("", "call", *FORMS)
    assert case.words.keys() == set(KINDS[kind].programs)


def test_what_the_judge_reads_is_what_the_readers_read():
    pixels = decode_image((PRETRAINED / "digits" / "00.png").read_bytes(), 1)
    assert zlib_pixels(encode_png(pixels)) == (28, 28, pixels.tobytes())
    assert parse_codes(Sound().vq, "x").values.ravel().tolist() == [n * 5 % 64 for n in range(49)]
    assert claimed_pixels(png_bytes(13, 11, 8, 2, True, Random(0))) == 13 * 11
    assert decode_image(png_bytes(13, 11, 8, 2, True, Random(0)), 3).shape == (11, 13, 3)
