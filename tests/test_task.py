"""Tasks: what a text is, what can be asked for, and the promises that all three corpora keep."""

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

from minigen import corpora
from minigen.corpora import command, pictures, tales, task, tunes
from minigen.errors import UserError

TEXTS = {
    "tales": next(tales.documents(3)).text,
    "pictures": next(pictures.documents(3)).text,
    "tunes": next(tunes.documents(3)).text,
}


def test_each_corpus_that_a_grammar_writes_has_a_task() -> None:
    """Each synthetic corpus is found by its name and by how its documents begin."""
    assert set(TEXTS) == set(task.BEGINNINGS) == set(corpora.SYNTHETIC)


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_is_known_by_its_beginning(name: str) -> None:
    """A document is detected as one of its task, and no other text is."""
    found = task.detect(TEXTS[name])
    assert found is task.get(name)
    assert found.check(TEXTS[name]).valid
    assert task.detect(f" {TEXTS[name]}") is None and task.detect("") is None


def test_a_prompt_that_begins_as_documents_do_is_taken_to_the_letter() -> None:
    """Words are turned into a first line only where the text is none yet, and a task is known."""
    tasks, rng = [task.get(name) for name in task.BEGINNINGS], random.Random(0)
    for raw in ("", "picture: a big", "picture: any words\n......", "tune: a loud one", "hero: x"):
        for some in (tasks, tasks[:1], tasks[1:2], []):
            assert task.prompt(some, raw, rng) == raw
    assert task.prompt([], "a loud one", rng) == "a loud one"
    with pytest.raises(UserError, match=r"the caption says \"loud\".*; or no tune is asked"):
        task.prompt(tasks[:2], "a loud one", rng)


@pytest.mark.parametrize("name", TEXTS)
def test_a_condition_holds_for_what_is_made_from_it(name: str) -> None:
    """Each value of each field can be asked for, and the check reads it from the first line."""
    one, rng = task.get(name), random.Random(0)
    for field, options in one.FIELDS.items():
        for option in options:
            line = one.condition({field: option.upper()}, rng)
            assert task.detect(line) is one and task.first_lines(f"{line}more\nmore") == line
            assert one.check(line).conditions[field] == option
    with pytest.raises(UserError, match=f"a {one.NOUN} has no 'hat'; it has "):
        one.condition({"hat": "red"}, rng)
    field = next(iter(one.FIELDS))
    with pytest.raises(UserError, match=f"{field} is 'zebra'; give one of "):
        one.condition({field: "zebra"}, rng)


@pytest.mark.parametrize("name", TEXTS)
def test_each_ending_of_a_task_is_a_file(name: str, tmp_path: Path) -> None:
    """A document can be saved in each way that its task names."""
    one = task.get(name)
    for ending in one.ENDINGS:
        one.save([TEXTS[name]], tmp_path / f"x{ending}")
        assert (tmp_path / f"x{ending}").stat().st_size > 100
    with pytest.raises(UserError, match=r"cannot write .*no/x"):
        one.save([TEXTS[name]], tmp_path / "no" / f"x{one.ENDINGS[0]}")


# ---- what all three corpora promise --------------------------------------------------------------

MODULES = {"tales": tales, "pictures": pictures, "tunes": tunes}
Stream = Callable[..., Any]  # of seed and split: documents with their text and bits, without end


def stream(name: str) -> Stream:
    return task.get(name).documents


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
    """Nothing that was drawn before, and no other stream, changes a document."""

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
    """Documents that it printed are valid, and a spoilt one among them is named."""
    command.main([name, "--seed", "9", "--count", "4"])
    printed = capsys.readouterr().out
    written = [one.text for one in itertools.islice(stream(name)(9), 4)]
    assert printed.rstrip("\n").split("\n\n") == written
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(printed.encode())))
    command.main([name, "--check", "-"])
    all_right = f"4 {name}, 4 well-formed, 4 obey their first line, 4 valid\n"
    assert capsys.readouterr().out == all_right
    faulty = re.sub(*spoil, printed, count=1).replace("\n", "\r\n")
    (tmp_path / "faulty.txt").write_bytes(faulty.encode())
    command.main([name, "--check", str(tmp_path / "faulty.txt")])
    checks = capsys.readouterr().out
    assert re.match(f"{MODULES[name].NOUN} 1: {complaint}", checks)
    counts = f"4 {name}, {n_well_formed} well-formed, 3 obey their first line, 3 valid\n"
    assert checks.endswith(counts)


@pytest.mark.parametrize("name", TEXTS)
def test_the_command_fills_a_folder_or_draws_one_file(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder holds the documents in each way that there is, and they are printed too."""
    one = task.get(name)
    command.main([name, "--count", "1", "--save", str(tmp_path / "new" / "folder")])
    first = next(one.documents(0)).text
    assert capsys.readouterr().out == first + "\n"
    saved = {path.name for path in (tmp_path / "new" / "folder").iterdir()}
    assert saved == {f"{one.NOUN}{ending}" for ending in one.ENDINGS}
    command.main([name, "--count", "1", "--save", str(tmp_path / "x.txt")])
    assert capsys.readouterr().out == ""
    assert (tmp_path / "x.txt").read_text(encoding="utf-8") == first + "\n"


def test_the_command_saves_the_well_formed_documents_of_a_file(tmp_path: Path) -> None:
    """The others are only named."""
    (tmp_path / "two.txt").write_text(f"{TEXTS['pictures']}\n\npicture: none\n", encoding="ascii")
    flags = ["--check", str(tmp_path / "two.txt"), "--save", str(tmp_path / "x.txt")]
    command.main(["pictures", *flags])
    assert (tmp_path / "x.txt").read_text(encoding="ascii") == TEXTS["pictures"] + "\n"


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["tales", "--check", "no/such/file"],
         "cannot read no/such/file: No such file or directory"),
        (["tales", "--split", "held_out"], "split is 'held_out'; give one of train, val"),
        (["cats"], "'cats' is not one of tales, pictures, tunes"),
        (["tunes", "--save", f"{__file__}/x"], "cannot make .*: Not a directory; give another"),
    ],
)  # fmt: skip
def test_a_wrong_command_is_refused_in_one_line(flags: list[str], complaint: str) -> None:
    """Each mistake is told in one line that says how to mend it."""
    with pytest.raises(UserError, match=complaint) as caught:
        command.main(flags)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", TEXTS)
def test_each_split_can_be_printed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--split prints the documents of each file of a corpus."""
    one = task.get(name)
    for split in one.SPLITS:
        command.main([name, "--count", "1", "--split", split])
        assert capsys.readouterr().out == next(one.documents(0, split)).text + "\n"
