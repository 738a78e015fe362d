"""Media: what a text is, what can be asked for, and one way to deal with all three."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from minigen import corpora
from minigen.corpora import medium, pictures, tales, tunes
from minigen.errors import UserError

TEXTS = {
    "tales": next(tales.tales(3)).text,
    "pictures": next(pictures.pictures(3)).text,
    "tunes": next(tunes.tunes(3)).text,
}


def test_each_corpus_that_a_grammar_writes_is_a_medium() -> None:
    assert set(TEXTS) == set(medium.BEGINNINGS) == set(corpora.WRITTEN)


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_is_known_by_its_beginning(name: str) -> None:
    found = medium.of(TEXTS[name])
    assert found is medium.named(name)
    assert found.check(TEXTS[name]).valid
    assert medium.of(f" {TEXTS[name]}") is None and medium.of("") is None


@pytest.mark.parametrize("name", TEXTS)
def test_a_condition_holds_for_what_is_made_from_it(name: str) -> None:
    """Each value of each field can be asked for, and the check reads it from the first line."""
    one, rng = medium.named(name), random.Random(0)
    for field, options in one.FIELDS.items():
        for option in options:
            line = one.condition({field: option.upper()}, rng)
            assert medium.of(line) is one and medium.first_line(f"{line}more\nmore") == line
            assert one.check(line).conditions[field] == option
    with pytest.raises(UserError, match=f"a {one.NOUN} has no 'hat'; it has "):
        one.condition({"hat": "red"}, rng)
    field = next(iter(one.FIELDS))
    with pytest.raises(UserError, match=f"{field} is 'zebra'; give one of "):
        one.condition({field: "zebra"}, rng)


@pytest.mark.parametrize("name", TEXTS)
def test_each_ending_of_a_medium_is_a_file(name: str, tmp_path: Path) -> None:
    one = medium.named(name)
    for ending in one.ENDINGS:
        one.save([TEXTS[name]], tmp_path / f"x{ending}")
        assert (tmp_path / f"x{ending}").stat().st_size > 100
    with pytest.raises(UserError, match=r"cannot write .*no/x"):
        one.save([TEXTS[name]], tmp_path / "no" / f"x{one.ENDINGS[0]}")
