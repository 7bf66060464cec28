"""The settings of a run: a preset, a TOML file, flags."""

import argparse
import contextlib
import dataclasses
import io
import math
from typing import Any

import pytest
from conftest import run_cli_here, settings

from vqvae_gluon.cli import main
from vqvae_gluon.config import PRESETS, ModelConfig, RunConfig, TrainingConfig
from vqvae_gluon.errors import REJECTED, USAGE, InputError, UsageError
from vqvae_gluon.model.vqvae import VQVAE
from vqvae_gluon.settings import add_flags, read_settings, to_toml


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "settings.toml"
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_what_it_is(preset):
    assert settings("--preset", preset) == (PRESETS[preset], RunConfig(output=f"runs/{preset}"))


def test_a_flag_wins_over_the_file_and_the_file_over_the_preset(write):
    path = write(
        'preset = "cifar10"\n[training]\nbatch_size = 7\nlearning_rate = 1\n[model]\nhidden_channels = [4, 8]\n'
    )
    config, _ = settings("--config", path, "--batch-size", 9)
    assert config.training.batch_size == 9
    assert config.training.learning_rate == 1.0
    assert config.model.hidden_channels == (4, 8)
    assert config.model.num_embeddings == 512


@pytest.mark.parametrize("preset", PRESETS)
def test_a_file_of_all_settings_gives_them_back(preset, write):
    config, run = settings("--preset", preset, "--num-workers", 3, "--flip")
    assert settings("--config", write(to_toml(config, run))) == (config, run)


def test_every_field_is_a_flag():
    parser = argparse.ArgumentParser()
    add_flags(parser)
    flags = set(vars(parser.parse_args([])))
    for section, kind in (("model", ModelConfig), ("training", TrainingConfig), ("run", RunConfig)):
        for entry in dataclasses.fields(kind):
            assert f"{section}.{entry.name}" in flags
    assert all(action.help for action in parser._actions)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[training]\nbatchsize = 3", r"\[training\] has the unknown key batchsize"),
        ("[trainnig]\nbatch_size = 3", "has the unknown key trainnig"),
        ("batch_size = 3", "has the unknown key batch_size"),
        ("[training]\nbatch_size = 3.0", r"\[training\] batch_size is 3.0, no int"),
        ('[training]\nepochs = "3"', "epochs is '3', no int"),
        ("[training]\nflip = 1", "flip is 1, no bool"),
        ("[training]\nepochs = true", "epochs is True, no int"),
        ("[training]\nlearning_rate = -1.0", "learning_rate is -1.0"),
        ("[training]\nlearning_rate = nan", "learning_rate is nan"),
        ("[training]\nlearning_rate = inf", "learning_rate is inf"),
        ('[training]\nschedule = "step"', "schedule is 'step'; it may be"),
        ("[model]\nhidden_channels = []", "hidden_channels is no list"),
        ("[model]\nhidden_channels = [4, 0]", "hidden_channels is 0"),
        ('preset = "imagenet"', "preset is 'imagenet'; the presets are"),
        ("preset = 3", "preset is 3"),
        ('preset = ["mnist"]', r"preset is \['mnist'\]"),
        ("[preset]", "preset is {}"),
        ("training = 3", "has the unknown key training"),
        ("[training\n", "is not TOML"),
        ("\udcff", "is not TOML"),
        # What would be read for minutes, or ask for all memory.
        ("a" + ".a" * 300000 + " = 1", "it holds more than settings"),
        ("\n".join(f"[a{n}.b]" for n in range(1100)), "it holds more than settings"),
        ("\n".join(f"x{n}=1" for n in range(1100)), "it holds more than settings"),
        ("x = " + "[" * 400000, "it holds more than settings"),
        ("x = " + "[" * 900 + "]" * 900, "is not TOML"),
        ("[training]\nepochs = " + "9" * 500000, "a number or a name of 200 characters"),
        ("[training]\nepochs = " + "9" * 190, "epochs is 9{100}\\.\\.\\."),
        ("#" * (1 << 20) + "#", "is larger than the limit"),
        ("[model]\nhidden_channels = [" + "1, " * 99999 + "1]", "hidden_channels has 100000 values, more than 16"),
        ("[model]\nembedding_dim = 1000000000", "embedding_dim is 1000000000, more than 65536"),
        ("[model]\nresidual_blocks = 9999", "residual_blocks is 9999, more than 256"),
        ("[run]\nnum_workers = 1000000", "num_workers is 1000000, more than 1024"),
        ('[run]\noutput = "a\\u0000b"', "which no file's name can be"),
    ],
)
def test_a_file_that_is_wrong_is_refused_by_name(text, why, tmp_path):
    path = tmp_path / "settings.toml"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=f"settings.toml: .*{why}"):
        settings("--config", path)


def test_settings_that_do_not_fit_together_are_a_usage_error():
    with pytest.raises(UsageError, match="restart_below is for the quantizer ema"):
        settings("--quantizer", "codebook-loss")
    with pytest.raises(UsageError, match=r"decay is 1\.5, not"):
        settings("--decay", "1.5")
    with pytest.raises(UsageError, match="epsilon is 0; it is what"):
        settings("--epsilon", "0")
    with pytest.raises(UsageError, match="decay_steps is for a schedule that falls"):
        settings("--preset", "mnist-original", "--decay-steps", 10)


def test_texts_and_comments_may_hold_anything(write):
    path = write("# " + "[a.b]" * 2000 + '\n[run]\noutput = "' + "[a.b]" * 2000 + '"\ndata_directory = """#"""')
    assert settings("--config", path)[1] == RunConfig(output="[a.b]" * 2000, data_directory="#")


@pytest.mark.parametrize("preset", PRESETS)
def test_the_parameters_of_a_network_are_counted_before_it_is_made(preset):
    for model in (PRESETS[preset].model, dataclasses.replace(PRESETS[preset].model, hidden_channels=(3, 4, 5))):
        counts = (math.prod(parameter.shape) for parameter in VQVAE(model).collect_params().values())
        assert model.parameters == sum(counts)
    with pytest.raises(UsageError, match=r"would have \d+ parameters, more than 268435456; make it smaller"):
        settings("--preset", preset, "--hidden-channels", 60000, 60000)


def test_a_preset_in_a_file_is_looked_at_even_where_a_flag_names_another(write):
    with pytest.raises(InputError, match="preset is 3"):
        settings("--config", write("preset = 3"), "--preset", "mnist")


def test_epochs_win_over_the_steps_of_what_they_win_over(write):
    assert PRESETS["cifar10"].training.steps
    assert settings("--preset", "cifar10", "--epochs", 1)[0].training.steps == 0
    path = write('preset = "cifar10"\n[training]\nepochs = 2')
    assert settings("--config", path)[0].training.steps == 0
    assert settings("--config", path, "--steps", 5)[0].training.steps == 5
    path = write("[training]\nsteps = 7\nepochs = 2")
    assert settings("--config", path)[0].training.steps == 7
    assert settings("--config", path, "--epochs", 1)[0].training.steps == 0


def test_an_empty_output_is_that_of_the_preset(write):
    assert settings("--output", "", "--preset", "cifar10")[1].output == "runs/cifar10"
    assert settings("--config", write('[run]\noutput = ""'))[1].output == "runs/mnist"


@pytest.mark.parametrize("name", ["runs/\U0001f600", 'a"b\\c', "a\tb\x7f"])
def test_names_of_any_characters_are_given_back(name, tmp_path):
    config, run = settings("--output", name)
    path = tmp_path / "settings.toml"
    path.write_bytes(to_toml(config, run).encode())
    assert settings("--config", path)[1].output == name


def test_a_missing_file_is_told(tmp_path):
    result = run_cli_here("train", "--config", tmp_path / "none.toml")
    assert result.returncode == REJECTED
    assert "none.toml: does not exist" in result.stderr


@pytest.mark.parametrize("flag", [["--decay", "x"], ["--cosine=3"], ["--quantizer", "gumbel"], ["--seed", "9" * 30]])
def test_a_flag_that_is_wrong_is_a_usage_error(flag):
    with pytest.raises(SystemExit) as end:
        run_cli_here("train", *flag)
    assert end.value.code == USAGE


def test_help_says_every_default_and_that_of_each_preset(monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit) as end, contextlib.redirect_stdout(io.StringIO()) as out:
        main(["train", "--help"])
    assert end.value.code == 0
    told = out.getvalue()
    parser = argparse.ArgumentParser()
    add_flags(parser)
    for action in parser._actions:
        if "." in action.dest:
            assert "(default: " in (action.help or ""), action.dest
    assert "(default: 500 of mnist, mnist-original; 32 of cifar10, cifar10-sonnet)" in told
    assert "(default: 0.001 of mnist, cifar10; 0.0001 of mnist-original; 0.0003 of cifar10-sonnet)" in told
    assert "(default: runs/PRESET)" in told


@pytest.mark.parametrize("command", ["train", "export", "parity", "parity record", "parity compare", "encode-folder"])
def test_a_wrong_option_points_to_the_help_of_its_own_command(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([*command.split(), "x", "--output", "x", "--runtime", "gluon", "--bogus"])
    assert end.value.code == USAGE
    assert capsys.readouterr().err.endswith(f"(see vqvae-gluon {command} --help)\n")


def test_a_wrong_command_points_to_the_help_of_all(capsys):
    assert main(["trian"]) == USAGE
    told = capsys.readouterr().err
    assert told == "vqvae-gluon: error: trian: is no command; did you mean train? (see vqvae-gluon --help)\n"
    assert main(["xyzzy"]) == USAGE
    assert capsys.readouterr().err == "vqvae-gluon: error: xyzzy: is no command (see vqvae-gluon --help)\n"


@pytest.mark.parametrize(("words", "usage"), [(["help"], "vqvae-gluon ["), (["help", "pack"], "vqvae-gluon pack [")])
def test_help_is_a_command_too(words, usage, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 0
    assert f"usage: {usage}" in capsys.readouterr().out


def test_a_misspelt_option_is_told_beside_the_one_that_is_then_missing(capsys):
    with pytest.raises(SystemExit):
        main(["export", "runs/x", "--outptu=b", "--prec", "int8"])
    told = "the following arguments are required: --output; unknown: --outptu=b (see vqvae-gluon export --help)\n"
    assert capsys.readouterr().err.endswith(told)


def test_parity_without_words_points_to_its_help(capsys):
    assert main(["parity"]) == USAGE
    assert capsys.readouterr().err.endswith("--input (see vqvae-gluon parity --help)\n")


def test_an_image_size_that_does_not_fit_says_which_would():
    with pytest.raises(
        UsageError, match="image_size is 3, which the network's stride of 4 does not divide; give 4 or 8"
    ):
        settings("--image-size", 3)
    with pytest.raises(UsageError, match="does not divide; give 28 or 32"):
        settings("--image-size", 30)


@pytest.mark.parametrize("given", [["--resume", "--output", "run"], ["--resume", "--output", "run", "--epochs", "7"]])
def test_a_run_that_is_resumed_is_that_of_its_own_settings(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before, run = settings(
        "--preset", "cifar10", "--steps", 9, "--data", "faces", "--num-workers", 2, "--output", "old"
    )
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.toml").write_text(to_toml(before, dataclasses.replace(run, kvstore="dist_sync")))
    parser = argparse.ArgumentParser()
    parser.add_argument("--resume", action="store_true")
    add_flags(parser)
    found = read_settings(parser.parse_args(given), resumes=True)
    wanted: dict[str, Any] = {"epochs": 7, "steps": 0} if "7" in given else {}
    assert found.config == dataclasses.replace(before, training=dataclasses.replace(before.training, **wanted))
    assert found.run == dataclasses.replace(run, output="run")
    assert {"training.batch_size", "training.validation_images", "model.image_channels"} <= found.given


def test_only_what_the_user_set_counts_as_given(write):
    parser = argparse.ArgumentParser()
    add_flags(parser)
    path = write('preset = "cifar10"\n[training]\nbatch_size = 7')
    found = read_settings(parser.parse_args(["--config", str(path), "--epochs", "3"]))
    assert found.given == {"training.batch_size", "training.epochs"}


@pytest.mark.parametrize(
    "words",
    [
        ["parity", "x", "--count", str(2**31)],
        ["parity", "x", "--batch-size", "9" * 30],
        ["parity", "x", "--max-memory", "9" * 5000],
        ["train", "--num-workers", "1000000000"],
        ["faults", "--jobs", "100000"],
        ["launch", "--workers", "100000"],
        ["encode-folder", "x", "y", "--output", "z", "--shard-size", "-1"],
    ],
)
def test_a_number_beyond_measure_is_a_usage_error_at_once(words, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == USAGE
    assert capsys.readouterr().err.count("\n") == 1
