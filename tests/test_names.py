"""A run has one name, whichever command it is given to, and printed commands run when copied."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from forks import Server
from models import save_untrained

import minigen
import sample
import train
from minigen.corpora import command
from minigen.errors import UserError
from minigen.evaluation import command as evaluate
from minigen.files import checkpoint
from minigen.files import export as export_command
from minigen.files.export import export
from minigen.inference import parity
from minigen.system import shell
from minigen.tokenizer import train_tokenizer
from sample import SampleConfig

ROOT = Path(train.__file__).parent
TOKENIZER = train_tokenizer("char", ["the cat sat on the mat"])
SMALL = "--n_layer 1 --n_head 1 --n_embd 8 --block_size 16 --batch_size 2 --vocab_size 258"
SMALL += " --device cpu --dropout 0.1 --eval_tokens 50 --compile no --dtype float32"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working folder with out/tales (its first checkpoint is best), out/tunes, a model."""
    monkeypatch.chdir(tmp_path)
    save_untrained(Path("out/tales"), TOKENIZER, 1, 1.0)
    save_untrained(Path("out/tales"), TOKENIZER, 2, 2.0)
    save_untrained(Path("out/tunes"), TOKENIZER, 3, 1.0)
    export("out/tunes", Path("other"))
    return tmp_path


def places(name: str, monkeypatch: pytest.MonkeyPatch, tmp: Path) -> dict[str, Path]:
    """Return the model that each command finds by a name."""
    taken = {
        "run": sample.find_model(SampleConfig(run=name)).path,
        "checkpoint": sample.find_model(SampleConfig(checkpoint=name)).path,
        "load": minigen.load(name).path,
    }
    monkeypatch.setattr(parity, "check", lambda model: taken.update(check=model) or [])
    parity.main([name])
    return {command: path.resolve() for command, path in taken.items()}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("tales", "out/tales/step-000001"),
        ("out/tales", "out/tales/step-000001"),
        ("out/tales/", "out/tales/step-000001"),
        ("./out/tales", "out/tales/step-000001"),
        ("{here}/out/tales", "out/tales/step-000001"),
        ("out/tales/step-000002", "out/tales/step-000002"),
        ("tales/step-000002", "out/tales/step-000002"),
        ("{here}/out/tales/step-000002", "out/tales/step-000002"),
        ("out/tales/best", "out/tales/step-000001"),
        ("tales/best", "out/tales/step-000001"),
        ("other", "other"),
        ("{here}/other", "other"),
    ],
)
def test_a_name_means_the_same_model_to_every_command(
    name: str, wanted: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command finds the same model by a name, a path, a checkpoint or a link `best`."""
    name = name.format(here=here)
    assert set(places(name, monkeypatch, here).values()) == {here / wanted}
    found = checkpoint.find(name)  # as --init_from and export do
    assert isinstance(found, Path)
    assert here / wanted in (found.resolve(), found.resolve() / "step-000001")
    if wanted != "other":
        exported = export(name, here / "exported")
        assert (exported / "model.safetensors").read_bytes() == (
            here / wanted / "model.safetensors"
        ).read_bytes()


def test_a_run_in_another_folder_has_its_name_there(here: Path) -> None:
    """A run is found by its name in --out_dir, and by its path without --out_dir."""
    Path("out").rename("else where")
    wanted = Path("else where/tales/step-000001")
    assert sample.find_model(SampleConfig(run="tales", out_dir="else where")).path == wanted
    assert checkpoint.find_run("out", "else where/tunes") == Path("else where/tunes")
    assert checkpoint.find_run("else where", "tunes") == Path("else where/tunes")


def test_a_folder_of_texts_hides_no_run(here: Path) -> None:
    """A run is found by its name even if a folder of texts has the same name."""
    Path("tales").mkdir()
    assert checkpoint.find("tales") == Path("out/tales")
    assert checkpoint.find_run("out", "tales") == Path("out/tales")


def test_a_path_that_exists_is_never_replaced(here: Path) -> None:
    """An existing path without a model is an error, also if --out_dir has a run of that name."""
    save_untrained(Path("out/books/tales"), TOKENIZER, 1, 1.0)
    Path("books/tales").mkdir(parents=True)
    with pytest.raises(UserError, match="books/tales holds no model"):
        checkpoint.find("books/tales")


def test_a_hub_name_is_taken_when_no_run_has_it(here: Path) -> None:
    """A name on the hub means the hub, and a run of that name is found by its path."""
    assert checkpoint.find("gpt2") == "gpt2"
    assert checkpoint.find("Qwen/Qwen3-0.6B") == "Qwen/Qwen3-0.6B"
    save_untrained(Path("out/gpt2"), TOKENIZER, 1, 1.0)
    assert checkpoint.find_run("out", "gpt2") == Path("out/gpt2")
    assert checkpoint.find("openai-community/gpt2") == "openai-community/gpt2"
    assert checkpoint.find("out/gpt2") == Path("out/gpt2")


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("tals", "no run 'tals' in out; did you mean tales? runs there: gpt2, tales, tunes"),
        ("nothing", "no run 'nothing' in out; runs there: gpt2, tales, tunes"),
        ("out/tals", "no run 'tals' in out; did you mean tales?"),
        ("out/tales/step-000003", "did you mean out/tales/step-000002?"),
        ("tales/bset", "bset"),
        ("./nothing", "there is no run, checkpoint or model ./nothing; "),
        ("out", "out is a folder of runs; give one of them: out/gpt2, out/tales, out/tunes"),
        ("my.txt", "my.txt is a file; give the folder"),
        ("books", "books holds no model"),
        ("unsaved", "out/unsaved holds no model"),
        ("", "the name of a run is empty"),
        ("gpt2", "'gpt2' may be your out/gpt2 or openai-community/gpt2 of huggingface.co"),
        ("both", "'both' may be ./both or out/both; give one of these paths"),
    ],
)
def test_a_wrong_name_is_refused_with_the_nearest_one(
    name: str, complaint: str, here: Path
) -> None:
    """Each command refuses a name of no model, or of two models, in one line that helps."""
    for run in ("out/gpt2", "out/both", "both"):
        if not run.endswith("both") or name == "both":
            save_untrained(Path(run), TOKENIZER, 1, 1.0)
    Path("my.txt").write_text("text")
    Path("books").mkdir()
    Path("out/unsaved").mkdir()
    calls: list[Callable[[], Any]] = [
        lambda: sample.find_model(SampleConfig(run=name)),
        lambda: sample.find_model(SampleConfig(checkpoint=name)),
        lambda: evaluate.main([name]),
        lambda: minigen.load(name),
        lambda: export(name, here / "exported"),
        lambda: train.main(["--init_from", name, "--device", "cpu"]),
    ]
    if name not in ("gpt2", "both"):
        calls.append(lambda: checkpoint.find_run("out", name))
    for call in calls:
        with pytest.raises(UserError, match=re.escape(complaint)) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert not Path("exported").exists()


def test_only_a_run_resumes(here: Path) -> None:
    """Only a run can resume: a checkpoint, a model and a name on the hub are refused."""
    for name, complaint in (
        ("out/tales/step-000001", "a checkpoint, not a run; name its run: out/tales"),
        ("other", "other is a model, not a run; runs there: tales, tunes"),
        ("gpt2", "no run 'gpt2' in out; runs there: tales, tunes"),
    ):
        with pytest.raises(UserError, match=re.escape(complaint)):
            train.main(["--init_from", "resume", "--name", name, "--device", "cpu"])
        with pytest.raises(UserError, match=re.escape(complaint)):
            sample.find_model(SampleConfig(run=name, checkpoint="last"))
    assert sample.find_model(SampleConfig(run="tales", checkpoint="last")).state["step"] == 2


# ---- commands that are printed ----


def copied(server: Server, command: str, folder: Path, *more: str) -> str:
    """Run a printed command as a shell would; return its output."""
    python, *words = shlex.split(command)
    assert shutil.which(python) == sys.executable
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = server.python(*words, *more, cwd=folder, env=env)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.usefixtures("signals")
def test_printed_commands_run_when_they_are_copied(
    text: Path, server: Server, tmp_path: Path
) -> None:
    """A printed command runs in another folder than the repository, with spaces in its paths."""
    flags = [*SMALL.split(), "--max_steps", "2", "--out_dir", "else where", "--name", "my run"]
    line = shlex.join([sys.executable, str(ROOT / "train.py"), text.name, *flags])
    output = copied(server, line, tmp_path)
    sampling = re.search(r"Now: (.*)", output)
    assert sampling is not None and "'else where/my run'" in sampling[1]
    text_out = copied(server, sampling[1], tmp_path, "the sun", "--max_new_tokens", "3")
    assert "the sun" in text_out and "else where/my run/step-000002" in text_out


@pytest.mark.usefixtures("signals")
def test_the_hint_to_export_runs_when_it_is_copied(
    text: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error about an adapter ends with a command that merges the adapter when it is run."""
    monkeypatch.setenv("MINIGEN_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    begun = ["--data", text.name, "--max_steps", "1", "--device", "cpu", "--compile", "no"]
    assert train.main([*SMALL.split(), *begun, "--name", "base"]) == 0
    lora_flags = [*begun, "--lora_rank", "1", "--eval_tokens", "50"]
    assert train.main([*lora_flags, "--init_from", "base", "--name", "lora"]) == 0
    state = checkpoint.load_best(Path("out/lora")).state
    assert state["base_model"]["path"] == str(tmp_path / "out/base/step-000001")
    with pytest.raises(UserError, match="is a LoRA adapter; first merge it") as caught:
        train.main([*lora_flags, "--init_from", "lora"])
    hint = re.search(r"its model: (.*)", str(caught.value))
    assert hint is not None
    copied(server, hint[1], tmp_path)
    assert (tmp_path / "FOLDER" / "model.safetensors").is_file()


def test_a_command_names_the_script_from_every_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A printed command has the short name of a script in its folder, and its path elsewhere."""
    monkeypatch.chdir(ROOT)
    words = shlex.split(shell.command("sample", "--run", Path("a b")))
    assert words[1:] == ["sample.py", "--run", os.path.join(".", "a b")]
    assert shutil.which(words[0]) == sys.executable
    assert shlex.split(shell.install("hf"))[-1] == ".[hf]"
    monkeypatch.chdir(tmp_path)
    script = shlex.split(shell.command("train"))[1]
    assert Path(script).resolve() == ROOT / "train.py"
    assert Path(shlex.split(shell.install("hf"))[-1].removesuffix("[hf]")) == ROOT


def test_other_commands_run_from_every_folder_installed_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A printed command sets PYTHONPATH if Python would not find minigen without it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", str(ROOT)])
    words = shlex.split(shell.command("evaluate", "x"))
    assert words[-4:] == ["-m", "minigen", "evaluate", "x"]
    monkeypatch.setattr(sys, "path", [str(ROOT)])  # as after python /path/to/train.py
    assert shlex.split(shell.command("evaluate", "x"))[:2] == ["env", f"PYTHONPATH={ROOT}"]


def test_without_a_checkout_the_installed_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a checkout, a printed command is `minigen`, or `python -m minigen` if needed."""
    python, installed = tmp_path / "python", tmp_path / "minigen"
    for program in (python, installed):
        program.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "python -m minigen evaluate" in shell.command(
        "evaluate"
    )  # that `minigen` may belong to another Python
    monkeypatch.setattr(shell, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert shell.command("train", "--minutes", "3") == "minigen train --minutes 3"
    installed.unlink()
    assert shell.command("train", "--minutes", "3") == "python -m minigen train --minutes 3"


# ---- the version ----


def test_the_version_is_that_of_pyproject(capsys: pytest.CaptureFixture[str]) -> None:
    """The library and each command report the version in pyproject.toml."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    version = re.search(r'^version = "(.*)"', project, flags=re.M)
    assert version is not None and minigen.__version__ == version[1]
    mains = [train.main, sample.main, evaluate.main, export_command.main, parity.main]
    mains += [command.main]  # of corpora
    for main in mains:
        with pytest.raises(SystemExit) as stop:
            main(["--version"])
        assert stop.value.code == 0
        assert capsys.readouterr().out == f"minigen {version[1]}\n"


def test_an_installed_package_knows_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installed package reports the version in its metadata."""
    monkeypatch.setattr(minigen, "__file__", str(tmp_path / "minigen" / "__init__.py"))
    monkeypatch.setattr(importlib.metadata, "version", lambda name: f"{name} of the metadata")
    assert minigen.__version__ == "minigen of the metadata"
