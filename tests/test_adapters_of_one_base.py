"""Adapters of one base model: each writes as in peft, in turn, and on no other model unnoticed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from forks import ROOT, Server
from models import architectures, random_model, varied_model
from serving import serving
from test_adapter import adapted, edit, off
from test_lora import IDS, TOKENIZER, save, with_adapter
from transformers import AutoModelForCausalLM

import minigen
import sample
from minigen.errors import UserError
from minigen.files import checkpoint
from minigen.model import GPTConfig
from minigen.serve.models import Models

CONFIGS = architectures(TOKENIZER.n_vocab, block_size=32, n_embd=16)
TARGETS = {"gpt2": ["c_attn", "c_fc"], "grouped queries": ["q_proj", "down_proj"]}
RUNS = ("base", "first", "second", "other", "larger")
SHORT = ("--max_new_tokens", "20", "--prompt", "the cat")


def make(out: Path, kind: str) -> Path:
    """Save the runs `base`, `other` and `larger`, two adapters of minigen, and two of peft.

    The runs `first` and `second` are adapters of `base`; `third` and `fourth` are folders of peft.
    """
    larger = GPTConfig(**{**vars(CONFIGS[kind]), "n_layer": 3})
    for name, config, seed in (("base", CONFIGS[kind], 0), ("other", CONFIGS[kind], 1)):
        checkpoint.save(out / name, varied_model(config, seed), TOKENIZER, {}, {"step": 1})
    checkpoint.save(out / "larger", random_model(larger, 1), TOKENIZER, {}, {"step": 1})
    base = out / "base/step-000001"
    for rank, name in ((2, "first"), (3, "second")):
        torch.manual_seed(rank)
        save(with_adapter(base, rank), base.resolve(), out / name)
    adapted(base, out / "third", target_modules=TARGETS[kind])
    adapted(base, out / "fourth", target_modules=TARGETS[kind][:1], r=2)
    for name in ("third", "fourth"):
        edit(out / name, base_model_name_or_path=str(base.resolve()))
    return out


@pytest.fixture(params=TARGETS)
def each_out(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return make(tmp_path / "out", request.param)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("adapters") / "out", "gpt2")


@torch.no_grad()
def test_each_adapter_of_a_base_gives_the_logits_of_peft(each_out: Path) -> None:
    """On a base that is named, each of four adapters gives the logits that peft gives for it."""
    base = each_out / "base/step-000001"
    folders = {"first": each_out / "first/best", "second": each_out / "second/best"}
    folders |= {name: each_out / name for name in ("third", "fourth")}
    reference = peft.PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base), folders["first"], adapter_name="first"
    )
    for name in ("second", "third", "fourth"):
        reference.load_adapter(folders[name], adapter_name=name)
    plain = minigen.load("base", out_dir=each_out).model(IDS)
    for name in folders:
        reference.set_adapter(name)
        logits = reference.eval()(IDS).logits
        for source in ("base", base):
            engine = minigen.load(source, out_dir=each_out, adapter=name)
            assert off(engine.model(IDS), logits) < 1e-5
        assert off(plain, logits) > 1e-2


def test_an_adapter_without_a_named_base_is_added_to_its_own(out: Path) -> None:
    """The model is that of `load(adapter)`, bit for bit, and so it is on the base of that name."""
    for name in ("first", "third"):
        wanted = minigen.load(name, out_dir=out)
        for source in (None, "base"):
            engine = minigen.load(source, out_dir=out, adapter=name)
            assert torch.equal(engine.model(IDS), wanted.model(IDS))
            assert (engine.path, engine.state) == (wanted.path, wanted.state)


def test_a_base_that_was_moved_is_named(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """minigen's adapter knows its base by the hash; for peft's, a note tells the other path."""
    moved = tmp_path / "moved"
    shutil.copytree(out / "base/step-000001", moved)
    for name in ("first", "third"):
        wanted = minigen.load(name, out_dir=out).model(IDS)
        assert torch.equal(minigen.load(moved, out_dir=out, adapter=name).model(IDS), wanted)
    own = (out / "base/step-000001").resolve()
    note = f"note: {out / 'third'} is an adapter of {own}, and is added to {moved}\n"
    assert capsys.readouterr().err == note


def test_an_adapter_that_names_no_base_needs_one(
    out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """peft may save an adapter without the name of its base; it is added to the one named."""
    nameless = tmp_path / "nameless"
    shutil.copytree(out / "third", nameless)
    wanted = minigen.load("third", out_dir=out).model(IDS)
    edit(nameless, base_model_name_or_path=None)
    assert torch.equal(minigen.load("base", out_dir=out, adapter=nameless).model(IDS), wanted)
    assert "is an adapter of a model that it does not name, and is added" in capsys.readouterr().err
    with pytest.raises(UserError, match="base_model_name_or_path is None; write the path"):
        minigen.load(adapter=nameless)


def test_a_name_on_the_hub_and_its_short_form_are_one_base(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An adapter of openai-community/gpt2 is added to gpt2 without a note."""
    from minigen.files import huggingface

    hub = {"gpt2": out / "base/step-000001", "owner/copy": out / "base/step-000001"}
    fetch = huggingface.fetch
    monkeypatch.setattr(huggingface, "fetch", lambda source: fetch(hub.get(str(source), source)))
    folder = tmp_path / "of-gpt2"
    shutil.copytree(out / "third", folder)
    edit(folder, base_model_name_or_path="openai-community/gpt2")
    minigen.load("gpt2", adapter=folder)
    assert capsys.readouterr().err == ""
    minigen.load("owner/copy", adapter=folder)
    assert "is an adapter of openai-community/gpt2, and is added to owner/copy" in (
        capsys.readouterr().err
    )


WRONG: list[tuple[str, str]] = [
    ("--adapter base", "{out}/base/step-000001 is not an adapter: it has no adapter_config.json; "),
    ("--adapter nothing", "no run 'nothing' in {out}; runs there: base, first, larger, other"),
    ("--adapter {out}/nothing", "no run 'nothing' in {out}; "),
    ("--adapter first nothing", "no run 'nothing' in {out}; "),
    ("--run other --adapter first", "{out}/first/step-000002 is an adapter of another model than "
     "{out}/other/step-000001: it was trained on {out}/base/step-000001; name that model"),
    ("--run larger --adapter first", "{out}/first/step-000002 is an adapter of another model"),
    ("--run larger --adapter third", "{out}/third/adapter_config.json: target_modules name "
     "transformer.h.2.attn.c_attn, but its file has no [^;]* (on the model {out}/larger/step-0"),
    ("--run second --adapter first", "{out}/second/step-000002 is an adapter itself"),
    ("--checkpoint {out}/third --adapter first", "{out}/third is an adapter itself"),
    ("--checkpoint last --run first --adapter second", "{out}/first/step-000002 is an adapter it"),
    ("--adapter first second --interactive", "--interactive, --save and --help_conditions take "),
    ("--adapter first second --save x.txt", "--interactive, --save and --help_conditions take "),
]  # fmt: skip


@pytest.mark.parametrize("flags, complaint", WRONG, ids=[flags for flags, _ in WRONG])
def test_a_wrong_adapter_is_one_line_and_no_text(
    flags: str, complaint: str, out: Path, server: Server, tmp_path: Path
) -> None:
    """A name of no adapter, another base, or an adapter as the base is an error, exit code 2."""
    words = ["--out_dir", str(out), *flags.replace("{out}", str(out)).split()]
    if "--interactive" not in flags:
        words += SHORT
    done = server.python(ROOT / "sample.py", *words, cwd=tmp_path)
    pattern = re.escape(complaint.replace("{out}", str(out))).replace(r"\[\^;\]\*", "[^;]*")
    assert re.fullmatch(f"error: {pattern}.*\n", done.stderr), done.stderr
    assert (done.returncode, done.stdout) == (2, "")


def test_several_adapters_write_one_after_the_other(out: Path, server: Server) -> None:
    """Each writes the text that it writes alone, to the letter, after the line that names it."""

    def run(*flags: str) -> tuple[str, str]:
        """Return the text and the other lines that the command sample.py writes."""
        done = server.python(ROOT / "sample.py", *flags, *SHORT, cwd=out.parent)
        assert done.returncode == 0, done.stderr
        return done.stdout, re.sub(r"compiled cpu\.c in .*\n", "", done.stderr)

    texts, notes = zip(*(run("--adapter", name) for name in ("first", "third")), strict=True)
    assert texts[0] != texts[1] and run("--run", "base")[0] not in texts
    assert [run("--run", name) for name in ("first", "third")] == list(
        zip(texts, notes, strict=True)
    )
    together = f"{sample.RULE}\n".join(texts), "".join(notes)
    assert run("--adapter", "first", "third") == together
    assert run("--run", "base", "--adapter", "first", "third") == together
    assert notes == ("out/first/step-000002: step 2\n", "out/third: not a checkpoint of train.py\n")
    words = [sys.executable, ROOT / "sample.py", "--adapter", "first", "third", *SHORT]
    one_stream = subprocess.run(
        words, cwd=out.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    ).stdout  # fmt: skip
    assert one_stream == f"{sample.RULE}\n".join(map("".join, zip(notes, texts, strict=True)))


def test_two_adapters_of_a_base_are_served_by_their_names(out: Path) -> None:
    """A server that is given two adapters and their base answers as each of them."""
    import httpx

    names = ("base", "first", "third")
    ask: dict[str, Any] = {"prompt": "the cat", "max_tokens": 20, "temperature": 0}
    with serving(Models(names, out_dir=str(out))) as address:
        listed = httpx.get(f"{address.url}/v1/models").json()
        assert [each["id"] for each in listed["data"]] == list(names)
        answers = [
            httpx.post(f"{address.url}/v1/completions", json=ask | {"model": name}, timeout=60)
            for name in names
        ]
    written = [json.loads(answer.text)["choices"][0]["text"] for answer in answers]
    assert len(set(written)) == 3
    for name, text in zip(names, written, strict=True):
        engine = minigen.load(name, out_dir=out)
        pieces = engine.stream("the cat", minigen.Sampling(temperature=0), max_new_tokens=20)
        assert "".join(pieces) == text
