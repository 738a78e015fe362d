"""Media: what a text is, what can be asked for, and one way to deal with all three."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import math
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from digests import digests
from forks import ROOT, Server

from minigen import corpora
from minigen.corpora import pictures, tales, task, tunes
from minigen.errors import UserError

TEXTS = {
    "tales": next(tales.tales(3)).text,
    "pictures": next(pictures.pictures(3)).text,
    "tunes": next(tunes.tunes(3)).text,
}


def test_each_corpus_that_a_grammar_writes_is_a_medium() -> None:
    assert set(TEXTS) == set(task.BEGINNINGS) == set(corpora.WRITTEN)


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_is_known_by_its_beginning(name: str) -> None:
    found = task.of(TEXTS[name])
    assert found is task.named(name)
    assert found.check(TEXTS[name]).valid
    assert task.of(f" {TEXTS[name]}") is None and task.of("") is None


def test_a_prompt_that_begins_as_documents_do_is_taken_to_the_letter() -> None:
    media, rng = [task.named(name) for name in task.BEGINNINGS], random.Random(0)
    for raw in ("", "picture: a big", "picture: any words\n......", "tune: a loud one", "hero: x"):
        for some in (media, media[:1], media[1:2], []):
            assert task.prompt(some, raw, rng) == raw
    assert task.prompt([], "a loud one", rng) == "a loud one"
    with pytest.raises(UserError, match=r"the caption says \"loud\".*; or no tune is asked"):
        task.prompt(media[:2], "a loud one", rng)


@pytest.mark.parametrize("name", TEXTS)
def test_a_condition_holds_for_what_is_made_from_it(name: str) -> None:
    """Each value of each field can be asked for, and the check reads it from the first line."""
    one, rng = task.named(name), random.Random(0)
    for field, options in one.FIELDS.items():
        for option in options:
            line = one.condition({field: option.upper()}, rng)
            assert task.of(line) is one and task.first_lines(f"{line}more\nmore") == line
            assert one.check(line).conditions[field] == option
    with pytest.raises(UserError, match=f"a {one.NOUN} has no 'hat'; it has "):
        one.condition({"hat": "red"}, rng)
    field = next(iter(one.FIELDS))
    with pytest.raises(UserError, match=f"{field} is 'zebra'; give one of "):
        one.condition({field: "zebra"}, rng)


@pytest.mark.parametrize("name", TEXTS)
def test_each_ending_of_a_medium_is_a_file(name: str, tmp_path: Path) -> None:
    one = task.named(name)
    for ending in one.ENDINGS:
        one.save([TEXTS[name]], tmp_path / f"x{ending}")
        assert (tmp_path / f"x{ending}").stat().st_size > 100
    with pytest.raises(UserError, match=r"cannot write .*no/x"):
        one.save([TEXTS[name]], tmp_path / "no" / f"x{one.ENDINGS[0]}")


# ---- what all three corpora promise --------------------------------------------------------------

MODULES = {"tales": tales, "pictures": pictures, "tunes": tunes}
Stream = Callable[..., Any]  # of seed and split: documents with their text and bits, without end


def stream(name: str) -> Stream:
    found: Stream = getattr(MODULES[name], name)
    return found


@pytest.mark.parametrize(
    ("name", "splits", "n", "version", "digest"),
    [
        ("tales", ["train"], 100, 6,
         "1f69b72c8a06f30af6b392d2b872f326f2033cd76dc993459d43616209824f3d"),
        ("tunes", ["train"], 100, 1,
         "a50b45fae5cf923ea7ec4e7e62593969990b949cc80e28c647db7f24cb9c002d"),
        ("pictures", ["train", "val", "held_out"], 50, 1,
         "cb8f28c6139e9154976eed21f26d48b63b58031d7d4890c9e614713c3b7cb089"),
    ],
)  # fmt: skip
def test_the_same_seed_gives_the_same_bytes_on_every_python(
    name: str, splits: list[str], n: int, version: int, digest: str
) -> None:
    """A change of the text needs a new VERSION."""
    texts = [one.text for split in splits for one in itertools.islice(stream(name)(0, split), n)]
    found = hashlib.sha256("\n\n".join(texts).encode("ascii")).hexdigest()
    assert (MODULES[name].VERSION, found) == (version, digest)


@pytest.mark.parametrize(
    ("name", "kth"),
    [
        ("tales", lambda: tales.tale(random.Random("3/train/7"))),
        ("tunes", lambda: tunes.tune(random.Random("3/train/7"))),
        ("pictures", lambda: pictures.picture(random.Random("pictures/3/train/7"))),
    ],
)
def test_the_kth_document_depends_on_seed_split_and_k_alone(
    name: str, kth: Callable[[], Any]
) -> None:
    def first(seed: int, split: str = "train") -> list[str]:
        return [one.text for one in itertools.islice(stream(name)(seed, split), 20)]

    assert first(3) == first(3)
    assert first(3)[7] == kth().text
    assert len({*first(3), *first(4), *first(3, "val")}) == 60


@pytest.mark.parametrize(
    ("name", "sizes", "longest"),  # in bytes: of each split's file, and of a document
    [
        ("tales", {"train": 100_000, "val": 30_000}, 2000),
        ("tunes", {"train": 60_000, "val": 20_000, "held_out": 10_000}, 450),
        ("pictures", {"train": 20_000, "val": 10_000, "held_out": 5_000}, 300),
    ],
)
def test_files_hold_what_the_facts_say(
    name: str, sizes: dict[str, int], longest: int, tmp_path: Path
) -> None:
    """And validation has no document of training."""
    folder, module = tmp_path / "new" / "folder", MODULES[name]
    facts = module.write(folder, *sizes.values(), seed=5)
    files = sorted([*(f"{split}.txt" for split in sizes), "facts.json"])
    assert sorted(path.name for path in folder.iterdir()) == files
    assert json.loads((folder / "facts.json").read_text(encoding="utf-8")) == facts
    if entropy := getattr(module, "entropy", None):
        assert facts[f"entropy_bits_per_{module.NOUN}"] == pytest.approx(entropy(), abs=1e-5)
    texts: dict[str, list[str]] = {}
    for split, limit in sizes.items():
        data = (folder / f"{split}.txt").read_bytes()
        said = facts["splits"][split]
        texts[split] = data.decode("ascii").removesuffix("\n").split("\n\n")
        bits = sum(module.check(text).bits or math.nan for text in texts[split])
        assert limit - longest < len(data) <= limit
        assert said["sha256"] == hashlib.sha256(data).hexdigest()
        assert said["bytes"] == len(data)
        assert said[name] == len(texts[split])
        assert said["text_bytes"] == sum(map(len, texts[split]))
        assert said["bits"] == pytest.approx(bits, abs=0.001)
        assert said["bits_per_byte"] == pytest.approx(bits / said["text_bytes"], abs=1e-6)
    assert not set(texts["train"]) & set(texts["val"])
    before = digests(folder, "train.txt")
    module.write(folder, *sizes.values(), seed=5)
    assert digests(folder, "train.txt") == before


@pytest.mark.parametrize(
    ("name", "spoil", "complaint", "n_well_formed"),
    [
        ("tales", (r"hero: (\w+) ", r"hero: \1 x"), r"hero: x\w+ in the header is none of Fox",
         3),
        ("tunes", (r"K:(\w+)", "K:Eb"), "the key is Eb, not ", 4),
        ("pictures", ("picture: ", "picture: one "),
         'the caption says "one", a word that no caption has\n', 3),
    ],
)  # fmt: skip
def test_what_the_command_prints_it_also_accepts(
    name: str,
    spoil: tuple[str, str],
    complaint: str,
    n_well_formed: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    main = MODULES[name].main
    main(["--seed", "9", "--count", "4"])
    printed = capsys.readouterr().out
    written = [one.text for one in itertools.islice(stream(name)(9), 4)]
    assert printed.rstrip("\n").split("\n\n") == written
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(printed.encode())))
    main(["--check", "-"])
    all_right = f"4 {name}, 4 well-formed, 4 obey their first line, 4 valid\n"
    assert capsys.readouterr().out == all_right
    faulty = re.sub(*spoil, printed, count=1).replace("\n", "\r\n")
    (tmp_path / "faulty.txt").write_bytes(faulty.encode())
    main(["--check", str(tmp_path / "faulty.txt")])
    checks = capsys.readouterr().out
    assert re.match(f"{MODULES[name].NOUN} 1: {complaint}", checks)
    counts = f"4 {name}, {n_well_formed} well-formed, 3 obey their first line, 3 valid\n"
    assert checks.endswith(counts)


@pytest.mark.parametrize("name", TEXTS)
def test_a_file_that_is_not_there_is_told_in_one_line(name: str, server: Server) -> None:
    module = f"minigen.corpora.{name}"
    done = server.python("-W", "error", "-m", module, "--check", "no/such/file", cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: cannot read no/such/file: No such file or directory\n"
