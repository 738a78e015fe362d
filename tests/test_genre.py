"""Genres: detect, ask for and judge documents; theorems that hold for all three corpora."""

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
from typing import Any, NamedTuple

import pytest
from digests import digests

from minigen import corpora
from minigen.corpora import command, genre, pictures, tales, tunes
from minigen.corpora.genre import Genre
from minigen.errors import UserError

TEXTS = {
    "tales": next(tales.documents(3)).text,
    "pictures": next(pictures.documents(3)).text,
    "tunes": next(tunes.documents(3)).text,
}


def test_each_corpus_that_a_grammar_writes_has_a_genre() -> None:
    """Each synthetic corpus is found by its name and by how its documents begin."""
    assert set(TEXTS) == set(genre.BEGINNINGS) == set(corpora.SYNTHETIC)


@pytest.mark.parametrize("name", TEXTS)
def test_a_document_is_detected_by_its_beginning(name: str) -> None:
    """A document is detected as one of its genre, and a text with another beginning is not."""
    detected = genre.detect(TEXTS[name])
    assert detected is genre.get(name)
    assert detected.check(TEXTS[name]).valid
    assert genre.detect(f" {TEXTS[name]}") is None and genre.detect("") is None


GENRES = [genre.get(name) for name in genre.BEGINNINGS]


@pytest.mark.parametrize("genres", [GENRES, GENRES[:1], GENRES[1:2], []], ids=len)
@pytest.mark.parametrize(
    "text", ["", "picture: a big", "picture: any words\n......", "tune: a loud one", "hero: x"]
)
def test_a_text_that_begins_like_a_document_is_the_prompt(text: str, genres: list[Genre]) -> None:
    """A text that begins like a document is the prompt unchanged, for any number of genres."""
    assert genre.prompt(genres, text, random.Random(0)) == text


def test_without_tasks_any_text_is_the_prompt() -> None:
    """For a model that was trained on other texts, the prompt is the text unchanged."""
    assert genre.prompt([], "a loud one", random.Random(0)) == "a loud one"


def test_words_that_no_task_has_are_refused() -> None:
    """For each genre, the error names a word that no first line of the genre has."""
    with pytest.raises(UserError, match=r"the caption says \"loud\".*; or no first line of a tune"):
        genre.prompt(GENRES[:2], "a loud one", random.Random(0))


@pytest.mark.parametrize("name", TEXTS)
def test_a_first_line_states_its_condition(name: str) -> None:
    """`condition` makes a first line for each value of a field, and `check` reads that value."""
    each, rng = genre.get(name), random.Random(0)
    for field, words in each.FIELDS.items():
        for word in words:
            line = each.condition({field: word.upper()}, rng)
            assert genre.detect(line) is each and genre.first_lines(f"{line}more\nmore") == line
            assert each.check(line).conditions[field] == word


@pytest.mark.parametrize("name", TEXTS)
def test_conditions_that_no_first_line_states_are_refused(name: str) -> None:
    """The error about an unknown field or value lists all fields or values."""
    each, rng = genre.get(name), random.Random(0)
    with pytest.raises(UserError, match=f"a {each.NOUN} has no 'hat'; it has "):
        each.condition({"hat": "red"}, rng)
    field = next(iter(each.FIELDS))
    with pytest.raises(UserError, match=f"{field} is 'zebra'; give one of "):
        each.condition({field: "zebra"}, rng)


@pytest.mark.parametrize("name", TEXTS)
def test_a_document_can_be_saved_with_each_ending_of_its_genre(name: str, tmp_path: Path) -> None:
    """Each ending in `ENDINGS` gives a file; a folder that does not exist is an error."""
    each = genre.get(name)
    for ending in each.ENDINGS:
        each.save([TEXTS[name]], tmp_path / f"x{ending}")
        assert (tmp_path / f"x{ending}").stat().st_size > 100
    with pytest.raises(UserError, match=r"cannot write .*no/x"):
        each.save([TEXTS[name]], tmp_path / "no" / f"x{each.ENDINGS[0]}")


# ---- theorems of all three corpora ---------------------------------------------------------------

MODULES = {"tales": tales, "pictures": pictures, "tunes": tunes}


def stream(name: str, seed: int, n: int, split: str = "train") -> list[str]:
    """Return the first `n` documents of a corpus."""
    return [one.text for one in itertools.islice(genre.get(name).documents(seed, split), n)]


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
    """The first documents of seed 0 have this SHA-256; another text needs another VERSION."""
    texts = [text for split in splits for text in stream(name, 0, n, split)]
    sha256 = hashlib.sha256("\n\n".join(texts).encode("ascii")).hexdigest()
    assert (MODULES[name].VERSION, sha256) == (version, digest)


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
    """A document does not depend on the documents before it; another seed or split changes it."""
    texts = stream(name, 3, 20)
    assert texts == stream(name, 3, 20)
    assert texts[7] == kth().text
    assert len({*texts, *stream(name, 4, 20), *stream(name, 3, 20, "val")}) == 60


SIZES = {  # in bytes, of the file of each split
    "tales": {"train": 100_000, "val": 30_000},
    "tunes": {"train": 60_000, "val": 20_000, "held_out": 10_000},
    "pictures": {"train": 20_000, "val": 10_000, "held_out": 5_000},
}
LONGEST = {"tales": 2000, "tunes": 450, "pictures": 300}  # no document has more bytes


class Written(NamedTuple):
    """The files of a corpus."""

    name: str
    folder: Path
    facts: dict[str, Any]

    def texts(self, split: str) -> list[str]:
        """Return the documents of a file."""
        text = (self.folder / f"{split}.txt").read_text(encoding="ascii")
        return text.removesuffix("\n").split("\n\n")


@pytest.fixture(scope="module", params=SIZES)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Write a small corpus into a folder that does not exist yet."""
    folder = tmp_path_factory.mktemp(request.param) / "new" / "folder"
    facts = MODULES[request.param].write(folder, *SIZES[request.param].values(), seed=5)
    return Written(request.param, folder, facts)


def test_a_corpus_is_a_file_for_each_split_and_its_facts(written: Written) -> None:
    """`write` makes these files and no other, and returns the facts that facts.json has."""
    files = sorted([*(f"{split}.txt" for split in SIZES[written.name]), "facts.json"])
    assert sorted(path.name for path in written.folder.iterdir()) == files
    facts = json.loads((written.folder / "facts.json").read_text(encoding="utf-8"))
    assert facts == written.facts


def test_a_file_is_filled_to_its_size(written: Written) -> None:
    """A file is not larger than its maximum size, and has no room for one more document."""
    for split, limit in SIZES[written.name].items():
        size = (written.folder / f"{split}.txt").stat().st_size
        assert limit - LONGEST[written.name] < size <= limit


def test_facts_have_the_size_and_the_hash_of_each_file(written: Written) -> None:
    """The facts of a split are its SHA-256, its bytes, and the number of its documents."""
    for split, facts in written.facts["splits"].items():
        data, texts = (written.folder / f"{split}.txt").read_bytes(), written.texts(split)
        assert facts["sha256"] == hashlib.sha256(data).hexdigest()
        assert facts["bytes"] == len(data)
        assert facts[written.name] == len(texts)
        assert facts["text_bytes"] == sum(map(len, texts))


def test_facts_have_the_entropy_of_the_text(written: Written) -> None:
    """The bits of a split are the sum of -log2 p over its documents, by the checker."""
    module = MODULES[written.name]
    for split, facts in written.facts["splits"].items():
        bits = sum(module.check(text).bits or math.nan for text in written.texts(split))
        assert facts["bits"] == pytest.approx(bits, abs=0.001)
        assert facts["bits_per_byte"] == pytest.approx(bits / facts["text_bytes"], abs=1e-6)
    if entropy := getattr(module, "entropy", None):
        mean_bits = written.facts[f"entropy_bits_per_{module.NOUN}"]
        assert mean_bits == pytest.approx(entropy(), abs=1e-5)


def test_no_document_is_in_training_and_validation(written: Written) -> None:
    """No document is in both files, so a model cannot know a validation document by heart."""
    assert not set(written.texts("train")) & set(written.texts("val"))


def test_files_written_again_are_the_same(written: Written, tmp_path: Path) -> None:
    """Equal sizes and seeds give equal bytes."""
    MODULES[written.name].write(tmp_path, *SIZES[written.name].values(), seed=5)
    assert digests(tmp_path) == digests(written.folder)


@pytest.mark.parametrize("name", TEXTS)
def test_documents_that_the_command_prints_are_valid(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All documents that the command prints are valid if --check reads them."""
    command.main([name, "--seed", "9", "--count", "4"])
    printed = capsys.readouterr().out
    assert printed.rstrip("\n").split("\n\n") == stream(name, 9, 4)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(printed.encode())))
    command.main([name, "--check", "-"])
    summary = f"4 {name}, 4 well-formed, 4 follow their prompt, 4 valid\n"
    assert capsys.readouterr().out == summary


@pytest.mark.parametrize(
    ("name", "spoil", "complaint", "n_well_formed"),
    [
        ("tales", (r"hero: (\w+) ", r"hero: \1 x"),
         r"hero: x\w+ in the first line is none of Fox", 3),
        ("tunes", (r"K:(\w+)", "K:Eb"), "the key is Eb, not ", 4),
        ("pictures", ("picture: ", "picture: one "),
         'the caption says "one", a word that no caption has\n', 3),
    ],
)  # fmt: skip
def test_the_command_names_a_spoilt_document(
    name: str,
    spoil: tuple[str, str],
    complaint: str,
    n_well_formed: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """--check names the damaged document among four, also with the line ends of Windows."""
    text = "\n\n".join(stream(name, 9, 4)) + "\n"
    faulty = re.sub(*spoil, text, count=1).replace("\n", "\r\n")
    (tmp_path / "faulty.txt").write_bytes(faulty.encode())
    command.main([name, "--check", str(tmp_path / "faulty.txt")])
    output = capsys.readouterr().out
    assert re.match(f"{MODULES[name].NOUN} 1: {complaint}", output)
    summary = f"4 {name}, {n_well_formed} well-formed, 3 follow their prompt, 3 valid\n"
    assert output.endswith(summary)


@pytest.mark.parametrize("name", TEXTS)
def test_a_folder_gets_the_documents_in_each_format(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--save FOLDER writes a file for each ending, and the documents are printed, too."""
    each = genre.get(name)
    command.main([name, "--count", "1", "--save", str(tmp_path / "new" / "folder")])
    assert [capsys.readouterr().out] == [text + "\n" for text in stream(name, 0, 1)]
    saved = {path.name for path in (tmp_path / "new" / "folder").iterdir()}
    assert saved == {f"{each.NOUN}{ending}" for ending in each.ENDINGS}


@pytest.mark.parametrize("name", TEXTS)
def test_a_file_gets_the_documents_and_nothing_is_printed(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--save FILE writes the format that the ending of the file names."""
    command.main([name, "--count", "1", "--save", str(tmp_path / "x.txt")])
    assert capsys.readouterr().out == ""
    (text,) = stream(name, 0, 1)
    assert (tmp_path / "x.txt").read_text(encoding="utf-8") == text + "\n"


def test_only_well_formed_documents_of_a_checked_file_are_saved(tmp_path: Path) -> None:
    """--check with --save leaves out the document whose format is wrong."""
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
    """The error about a wrong flag is one line, which says how to mend it."""
    with pytest.raises(UserError, match=complaint) as caught:
        command.main(flags)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", TEXTS)
def test_each_split_can_be_printed(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """--split prints the documents of each split of a corpus."""
    for split in genre.get(name).SPLITS:
        command.main([name, "--count", "1", "--split", split])
        assert [capsys.readouterr().out] == [text + "\n" for text in stream(name, 0, 1, split)]
