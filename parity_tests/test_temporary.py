"""Temporary directories: what a killed process leaves is removed by the next one, what a living one uses is not."""

import os
import subprocess
import sys
import tempfile

import pytest

from vqvae_gluon.temporary import PREFIX, UNFINISHED, hold, random_name, remove_stale, temporary_directory

HOLDING = (
    "import sys, time\nfrom vqvae_gluon.temporary import temporary_directory\n"
    "with temporary_directory(*sys.argv[1:]) as path:\n"
    "    (path / 'x').write_text('half'); print(path, flush=True); time.sleep(60)"
)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """An empty directory for temporary files, in which nothing was looked for yet."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("beside", [False, True])
def test_what_a_killed_process_left_is_removed_by_the_next_and_not_what_a_living_one_uses(beside, temporary):
    where = [temporary] if beside else []
    environment = {**os.environ, "TMPDIR": str(temporary)}
    command = [sys.executable, "-c", HOLDING, *where]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        left = process.stdout.readline().rstrip("\n")
        remove_stale.cache_clear()
        with temporary_directory(*where):
            assert len(os.listdir(temporary)) == 2
        process.kill()
    assert [left] == [str(path) for path in temporary.iterdir()]
    remove_stale.cache_clear()
    with temporary_directory(*where) as path:
        assert list(temporary.iterdir()) == [path]
    assert not list(temporary.iterdir())


def test_a_directory_that_another_process_holds_outlives_the_one_that_made_it(temporary):
    left = temporary / random_name(PREFIX)
    left.mkdir()
    with hold(left):
        remove_stale.cache_clear()
        remove_stale(temporary, PREFIX)
        assert left.exists()
    remove_stale.cache_clear()
    remove_stale(temporary, PREFIX)
    assert not left.exists()


def test_it_is_the_users_alone_and_goes_with_what_failed(temporary):
    with pytest.raises(ZeroDivisionError), temporary_directory() as path:
        assert path.stat().st_mode & 0o777 == 0o700
        (path / "x").mkdir()
        raise ZeroDivisionError
    assert not list(temporary.iterdir())


def test_what_the_user_named_alike_is_not_removed(temporary):
    (temporary / f"{PREFIX}training").mkdir()
    (temporary / f"{PREFIX}0123abcd.txt").touch()
    (temporary / "elsewhere").mkdir()
    (temporary / random_name(PREFIX)).symlink_to(temporary / "elsewhere")
    (temporary / "elsewhere" / "x").touch()
    before = sorted(temporary.rglob("*"))
    remove_stale.cache_clear()
    with temporary_directory():
        pass
    assert sorted(temporary.rglob("*")) == before


def test_hidden_files_of_killed_writers_go_too(temporary):
    (temporary / random_name(UNFINISHED)).touch()
    remove_stale.cache_clear()
    with temporary_directory(temporary):
        pass
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("name", ["shutil.rmtree", "fcntl.flock"])
def test_a_ctrl_c_while_one_is_made_or_removed_leaves_none(name, temporary):
    module = name.partition(".")[0]
    code = f"""
import {module}
from vqvae_gluon.temporary import temporary_directory
whole = {name}
def interrupted(*arguments, **more):
    {name} = whole
    raise KeyboardInterrupt
{name} = interrupted
with temporary_directory() as path:
    (path / "x").touch()
"""
    environment = {**os.environ, "TMPDIR": str(temporary)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert result.stderr.endswith("KeyboardInterrupt\n")
    assert not list(temporary.iterdir())
