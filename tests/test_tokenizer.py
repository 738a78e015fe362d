"""Theorems about minigen/tokenizer.py: its naive code, Hugging Face's `tokenizers`, its files."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import regex
import tiktoken
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from minigen.errors import UserError
from minigen.files import merges, tokenizer_files
from minigen.files.hub_tokenizer import HubTokenizer
from minigen.files.tokenizer_files import from_json, to_json
from minigen.system.streams import one_line_errors
from minigen.tokenizer import (
    BYTES,
    END_OF_TEXT,
    KINDS,
    PATTERN,
    Tokenizer,
    naive_bpe,
    naive_encode,
    train_bpe,
)
from minigen.tokenizer import train_tokenizer as train

ROOT = Path(__file__).resolve().parent.parent
GPT2_FILES = ROOT.parent / "shared" / "data" / "tiktoken_cache"
GPT2_URL = "https://openaipublic.blob.core.windows.net/gpt-2/encodings/main/"

MIXED = (
    "It's they'll we've I'm you'd 'S don't\r\n\r\n\ttabs\t\t and   runs of   spaces   \n\n  end \n"
    "def f(x: int) -> str:\n    return f'{x!r:>10}' if x != 0 else \"\\0\"  # 100% of 1,234.5e-6\n"
    "안녕하세요, 세계! 토큰 나누기 ㅋㅋㅋ 漢字かな Ünïcödé naïve Ελληνικά العربية हिन्दी ½ ² Ⅷ ١٢٣\n"
    "👩‍👩‍👧‍👦 🙂🙃 🇰🇷 ✌🏽 \x00 \x00\x00 \x7f\x85\xa0\u2003\u2028\u3000\ufeff\ufffd\U0010ffff "
    "a\u200bb e\u0301 0 00 000 1a2b <|endoftext <| endoftext |>"
)
TEXTS = [
    MIXED,
    "the theme of the thesis is the other theory; " * 5,
    "안녕 안녕하세요 안녕히 가세요 " * 3,
]

examples = settings(deadline=None, derandomize=True, max_examples=60)

# END_OF_TEXT within a text is plain to us, but special to `tokenizers`: it has its own tests.
some_text = st.one_of(
    st.text(),
    st.text(alphabet="the s'\r\n\t\u3000세안녕🙂\u200d1!"),
    st.lists(st.sampled_from(MIXED.split(" ")), max_size=12).map(" ".join),
).filter(lambda text: END_OF_TEXT not in text)
few_letters = st.sampled_from(["a", "ab", "aab ", "abc", "세상 "]).flatmap(
    lambda letters: st.tuples(*[st.text(alphabet=letters, max_size=150)] * 2)
)


class Case:
    """A tokenizer, its file, and what `tokenizers` makes of the file."""

    def __init__(self, tokenizer: Tokenizer, folder: Path) -> None:
        self.ours = tokenizer
        self.path = folder / "tokenizer.json"
        self.path.write_bytes(to_json(tokenizer))
        self.theirs = tokenizers.Tokenizer.from_file(str(self.path))

    def known(self, text: str) -> str:
        """The part of `text` that the tokenizer takes: all of it, but for char."""
        return "".join(c for c in text if c in MIXED) if self.ours.kind == "char" else text


@pytest.fixture(scope="session")
def gpt2() -> Iterator[Tokenizer]:
    if not GPT2_FILES.is_dir():
        pytest.skip("the folder with GPT-2's vocabulary, shared/data/tiktoken_cache, is not here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(GPT2_FILES))
        yield train("gpt2", [])


@pytest.fixture(scope="session")
def bpe() -> Tokenizer:
    return train("bpe", TEXTS, vocab_size=300)


@pytest.fixture(scope="session", params=KINDS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    kind = request.param
    tokenizer = train(kind, [MIXED]) if kind in ("char", "byte") else request.getfixturevalue(kind)
    return Case(tokenizer, tmp_path_factory.mktemp(kind))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """tiktoken has nothing stored and reaches no server."""
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {})
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "empty"))
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


# ---- text and bytes, there and back ----


@examples
@given(text=some_text)
def test_decode_inverts_encode_for_any_text(case: Case, text: str) -> None:
    text = case.known(text)
    ids = case.ours.encode(text)
    assert case.ours.decode(ids) == text
    assert all(0 <= id < case.ours.end_of_text for id in ids)
    assert case.ours.encode(text.encode("utf-8")) == ids
    array = case.ours.encode_array(text)
    assert array.dtype == np.uint32 and array.flags.writeable and array.tolist() == ids


@examples
@given(data=st.one_of(st.binary(), some_text.map(lambda text: text.encode("utf-8")[1:-1])))
def test_decode_bytes_inverts_encode_for_any_bytes(case: Case, data: bytes) -> None:
    if case.ours.kind == "char":
        data = case.known(data.decode("utf-8", errors="ignore")).encode("utf-8")
    ids = case.ours.encode(data)
    assert case.ours.decode_bytes(ids) == data
    assert case.ours.decode(ids) == data.decode("utf-8", errors="replace")


def test_a_byte_that_is_not_utf8_is_a_token_and_leaves_its_neighbours_alone(bpe: Tokenizer) -> None:
    [the] = bpe.encode("the")
    assert bpe.encode(b"the\xffthe\xed\xa0\x80") == [the, 0xFF, the, 0xED, 0xA0, 0x80]
    for byte in range(256):
        assert bpe.encode(bytes([byte])) == [byte]


def test_mixed_text_comes_back_and_nothing_is_nothing(case: Case) -> None:
    assert case.ours.decode(case.ours.encode(MIXED)) == MIXED
    assert case.ours.encode("") == case.ours.encode(b"") == []
    assert case.ours.encode_array("").shape == (0,)
    assert case.ours.decode([]) == "" and case.ours.merges("") == [[]]


def test_end_of_text_is_the_last_id_and_no_text_encodes_to_it(case: Case) -> None:
    ours = case.ours
    assert ours.end_of_text == ours.n_vocab - 1 == len(ours) - 1
    ids = ours.encode(f"a{END_OF_TEXT}b")
    assert ours.end_of_text not in ids
    assert ours.decode(ids) == f"a{END_OF_TEXT}b"
    assert ours.decode([ours.end_of_text]) == END_OF_TEXT


def test_a_million_blanks_before_a_word_encode(bpe: Tokenizer) -> None:
    text = " " * 1_100_000 + "x"
    with pytest.raises(BaseException, match="StackOverflow"):  # what the bound in PATTERN is for
        unbounded = PATTERN.replace("{1,100000}", "+")
        ranks = {byte: id for id, byte in enumerate(BYTES)}
        encoding = tiktoken.Encoding(
            "", pat_str=unbounded, mergeable_ranks=ranks, special_tokens={}
        )
        encoding.encode_ordinary(text)
    assert bpe.decode(bpe.encode(text)) == text


def test_half_a_surrogate_pair_is_refused_in_one_line(case: Case) -> None:
    for encode in (case.ours.encode, case.ours.encode_array, case.ours.merges):
        with pytest.raises(UserError, match=r"^the text holds '\\udc80', .*$"):
            encode("ab\udc80")
    for kind in ("char", "bpe"):
        with pytest.raises(UserError, match=r"^the text holds '\\ud800', .*$"):
            train(kind, ["ab", "c\ud800"])


def test_an_id_out_of_range_is_refused_in_one_line(case: Case) -> None:
    last = case.ours.n_vocab - 1
    for id in (-1, last + 1):
        message = rf"^token id {id} is not in this tokenizer's 0\.\.{last}; .*$"
        with pytest.raises(UserError, match=message):
            case.ours.decode([0, id])
        with pytest.raises(UserError, match=message):
            case.ours.stream().push(id)


def test_char_names_the_characters_that_it_does_not_know() -> None:
    tokenizer = train("char", ["hello", " world\n"])
    assert tokenizer.decode(range(tokenizer.end_of_text)) == "\n dehlorw"
    for encode in (tokenizer.encode, tokenizer.encode_array, tokenizer.merges):
        with pytest.raises(UserError, match=r"^not among the 9 char.*: '\\x00' '!' '한'; .*$"):
            encode("hello!\x00 한!\n")
    with pytest.raises(UserError, match=r"^.*: '0' '1' '2' '3' '4' \.\.\.; .*$"):
        tokenizer.encode("9876543210")
    with pytest.raises(UserError, match=r"^.*byte 0xff in position 5.*$"):
        tokenizer.encode(b"hello\xff")


@examples
@given(data=st.data())
def test_a_stream_shows_whole_characters_and_adds_up_to_decode(
    case: Case, data: st.DataObject
) -> None:
    """So far shown is at each step the start of the whole, though any ids come in any order."""
    ours = case.ours
    broken = [id for id in range(ours.n_vocab) if not is_utf8(ours.token_bytes(id))] or [0]
    one_id = st.sampled_from(broken) | st.integers(0, ours.end_of_text)
    korean = ours.encode(case.known("안녕 🙂"))
    ids = data.draw(st.lists(one_id.map(lambda id: [id]) | st.just(korean)).map(flat))
    stream, shown = ours.stream(), ""
    for i, id in enumerate(ids):
        shown += stream.push(id)
        assert ours.decode(ids).startswith(shown)
        so_far = ours.decode_bytes(ids[: i + 1])  # and nothing complete is held back
        assert not is_utf8(so_far) or shown == so_far.decode("utf-8")
    assert shown + stream.finish() == ours.decode(ids)


def flat(lists: list[list[int]]) -> list[int]:
    return [item for items in lists for item in items]


def is_utf8(data: bytes) -> bool:
    return data.decode("utf-8", errors="ignore").encode("utf-8") == data


# ---- training and merging: fast = naive ----


@settings(examples, max_examples=200)
@given(
    words=st.dictionaries(
        st.text(alphabet="ab", max_size=12).map(str.encode) | st.binary(max_size=4),
        st.integers(1, 4),
        max_size=12,
    ),
    n_tokens=st.integers(256, 290),
)
def test_incremental_training_is_naive_training(words: dict[bytes, int], n_tokens: int) -> None:
    """`train_bpe` and `naive_bpe` learn the same tokens of any words."""
    assert train_bpe(words, n_tokens) == naive_bpe(words, n_tokens)


def test_training_on_texts_is_naive_training_on_their_words() -> None:
    """The words of a text are its chunks, counted."""
    words = Counter(word.encode() for text in TEXTS for word in regex.findall(PATTERN, text))
    tokens = naive_bpe(words, 299)
    trained = train("bpe", iter(TEXTS), vocab_size=300)
    assert trained.tokens == [*tokens, END_OF_TEXT.encode()]
    assert trained.n_vocab == 300


def test_of_equally_frequent_pairs_the_smallest_ids_go_first() -> None:
    trained = train("bpe", ["ab cd ab cd"])
    assert trained.tokens[256:-1] == [b" c", b"ab", b" cd"]


def test_training_stops_when_no_pair_occurs_twice() -> None:
    assert train("bpe", ["ab ab"]).tokens[256:-1] == [b"ab"]
    assert len(train("bpe", [])) == len(train("bpe", [""])) == 257
    assert len(train("bpe", TEXTS, vocab_size=257)) == 257
    assert len(train("char", [])) == 1
    with pytest.raises(UserError, match=r"^vocab_size 256 .*257.*$"):
        train("bpe", TEXTS, vocab_size=256)
    with pytest.raises(UserError, match=r"^there is no tokenizer 'word'; .*char.*$"):
        train("word", TEXTS)


@examples
@given(texts=few_letters, mixed=some_text)
def test_encoding_is_naive_encoding(bpe: Tokenizer, texts: tuple[str, str], mixed: str) -> None:
    """`encode` and `naive_encode` give the same ids of any text, after any training."""
    assert bpe.encode(mixed) == naive_encode(mixed, bpe.tokens)
    trained = train("bpe", [texts[0]], vocab_size=300)
    assert trained.encode(texts[1]) == naive_encode(texts[1], trained.tokens)


@examples
@given(word=some_text)
def test_merges_go_from_bytes_to_the_tokens_two_pieces_a_step(case: Case, word: str) -> None:
    word = case.known(word)
    steps = case.ours.merges(word)
    assert steps[-1] == [case.ours.token_bytes(id) for id in case.ours.encode(word)]
    if case.ours.kind == "char":
        assert len(steps) == 1
        return
    assert steps[0] == [bytes([byte]) for byte in word.encode("utf-8")]
    for before, after in pairwise(steps):
        assert after in (
            [*before[:i], before[i] + before[i + 1], *before[i + 2 :]]
            for i in range(len(before) - 1)
        )


@examples
@given(texts=few_letters)
def test_merges_of_any_training_end_in_the_tokens(texts: tuple[str, str]) -> None:
    """Each trained token is reached by merges too, though tiktoken would take it whole."""
    trained = train("bpe", [texts[0]], vocab_size=300)
    for word in (texts[1], *(token.decode(errors="ignore") for token in trained.tokens[256:])):
        assert trained.merges(word)[-1] == [trained.token_bytes(id) for id in trained.encode(word)]


# ---- the file: `tokenizers` and `transformers` agree ----


@examples
@given(text=some_text)
def test_hugging_face_gives_the_same_ids_and_text(case: Case, text: str) -> None:
    text = case.known(text)
    ids = case.ours.encode(text)
    assert case.theirs.encode(text, add_special_tokens=False).ids == ids
    assert case.theirs.decode(ids) == text


def test_hugging_face_and_transformers_agree_on_mixed_text(case: Case) -> None:
    transformers = pytest.importorskip("transformers")
    ids = case.ours.encode(MIXED)
    assert case.theirs.encode(MIXED, add_special_tokens=False).ids == ids
    assert case.theirs.decode(ids) == MIXED
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(case.path))
    assert (
        theirs(MIXED)["input_ids"]
        == case.ours.encode_prompt(MIXED)
        == [case.ours.end_of_text, *ids]
    )
    assert theirs.decode(ids, clean_up_tokenization_spaces=False) == MIXED


@examples
@given(data=st.data())
def test_hugging_face_decodes_any_ids_alike(case: Case, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, case.ours.end_of_text)))
    assert case.theirs.decode(ids, skip_special_tokens=False) == case.ours.decode(ids)


def test_hugging_face_takes_end_of_text_for_its_special_token(case: Case) -> None:
    ids = [*case.ours.encode("a"), case.ours.end_of_text, *case.ours.encode("b")]
    assert case.theirs.encode(f"a{END_OF_TEXT}b", add_special_tokens=False).ids == ids
    assert case.theirs.decode(ids) == "ab"
    assert case.theirs.get_vocab_size() == case.ours.n_vocab


@settings(examples, max_examples=200)
@given(texts=few_letters)
def test_hugging_face_agrees_on_any_training(
    tmp_path_factory: pytest.TempPathFactory, texts: tuple[str, str]
) -> None:
    """A few letters make tokens that halve in many ways."""
    folder = tmp_path_factory.getbasetemp()
    case = Case(train("bpe", [texts[0]], vocab_size=320), folder)
    assert case.theirs.encode(texts[1], add_special_tokens=False).ids == case.ours.encode(texts[1])


def test_hugging_face_agrees_on_a_token_that_no_merges_lead_to(tmp_path: Path) -> None:
    tokens = [*BYTES, b"bc", b"ab", b"cd", b"abcd", END_OF_TEXT.encode()]
    case = Case(Tokenizer("bpe", tokens), tmp_path)
    assert (
        case.theirs.encode("abcd abcd", add_special_tokens=False).ids
        == case.ours.encode("abcd abcd")
        == [259, 32, 97, 256, 100]
    )


def test_hugging_face_refuses_an_unknown_character(tmp_path: Path) -> None:
    theirs = Case(train("char", ["hello"]), tmp_path).theirs
    with pytest.raises(Exception, match=r"Missing \[UNK\]"):
        theirs.encode("hello!")


def test_gpt2_is_the_published_one(gpt2: Tokenizer) -> None:
    """As tiktoken has it, and as the two files published with GPT-2 say it to `tokenizers`."""
    vocab, merges = (
        (GPT2_FILES / hashlib.sha1((GPT2_URL + name).encode()).hexdigest()).read_text("utf-8")
        for name in ("encoder.json", "vocab.bpe")
    )
    pairs = [(a, b) for a, b in map(str.split, merges.splitlines()[1:])]
    published = tokenizers.Tokenizer(tokenizers.models.BPE(json.loads(vocab), pairs))
    published.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    shakespeare = GPT2_FILES.parent / "tinyshakespeare.txt"
    for text in (MIXED, shakespeare.read_text("utf-8")[:100_000]):
        ids = gpt2.encode(text)
        assert ids == published.encode(text).ids
        assert ids == tiktoken.get_encoding("gpt2").encode_ordinary(text)
    assert (gpt2.n_vocab, gpt2.end_of_text) == (50257, 50256)


# ---- save and load ----


def test_load_inverts_save(case: Case, tmp_path: Path) -> None:
    """A saved tokenizer is the same when it is loaded; one byte changed anywhere, it is refused."""
    path = tmp_path / "tokenizer"
    case.ours.save(path)
    again = Tokenizer.load(path)
    assert (again.kind, again.tokens, again.bare) == (case.ours.kind, case.ours.tokens, False)
    assert again.fingerprint == case.ours.fingerprint
    content = path.read_bytes()
    for at in range(0, len(content), len(content) // 20):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(UserError, match=r"^cannot read [^\n]*: damaged; save it again$"):
            Tokenizer.load(path)


def test_from_json_inverts_to_json_without_a_network(
    case: Case, offline: None, tmp_path: Path
) -> None:
    """Also after Hugging Face has read our tokenizer.json and saved it again."""
    case.theirs.save(str(tmp_path / "saved_by_hugging_face.json"))
    for path in (case.path, tmp_path / "saved_by_hugging_face.json"):
        again = tokenizer_files.load(path)
        assert (again.kind, again.fingerprint) == (case.ours.kind, case.ours.fingerprint)
        assert (again.n_vocab, again.end_of_text) == (case.ours.n_vocab, case.ours.end_of_text)
        assert again.encode(MIXED) == case.ours.encode(MIXED)
    assert case.path.read_bytes() == to_json(again)
    with pytest.raises(
        UserError, match=r"^tokens\.json is damaged or not a byte-level tokenizer.*$"
    ):
        from_json(to_json(again)[:-1], "tokens.json")


def test_a_different_tokenizer_has_a_different_fingerprint(bpe: Tokenizer, gpt2: Tokenizer) -> None:
    others = [train("byte", []), train("bpe", []), train("char", ["ab"]), train("char", ["abc"])]
    others += [train("bpe", TEXTS, vocab_size=299), gpt2]
    tokens = bpe.tokens
    others += [Tokenizer("bpe", [*tokens[:256], tokens[257], tokens[256], *tokens[258:]])]
    prints = {each.fingerprint for each in others}
    assert len(prints | {bpe.fingerprint}) == len(others) + 1
    assert train("bpe", TEXTS, vocab_size=300).fingerprint == bpe.fingerprint
    assert all(regex.fullmatch("[0-9a-f]{64}", each) for each in prints)


def test_gpt2_without_cache_and_network_says_what_it_needs(offline: None) -> None:
    with pytest.raises(UserError, match=r"^cannot get GPT-2's vocabulary .*TIKTOKEN_CACHE_DIR.*$"):
        train("gpt2", [])


def put(*keys: Any, value: Any) -> Callable[[Any], None]:
    def change(saved: Any) -> None:
        for key in keys[:-1]:
            saved = saved[key]
        saved[keys[-1]] = value

    return change


DAMAGE: dict[str, Callable[[Any], Any]] = {
    "normalizer": put("normalizer", value={"type": "NFC"}),
    "pattern": put("pre_tokenizer", "pretokenizers", 0, "pattern", value={"Regex": r"\w+|\W"}),
    "another kind": put("pre_tokenizer", value={"type": "Whitespace"}),
    "byte with merges": lambda saved: saved.update(
        pre_tokenizer=saved["pre_tokenizer"]["pretokenizers"][1]
    ),
    "prefix space": put("pre_tokenizer", "pretokenizers", 1, "add_prefix_space", value=True),
    "model": put("model", "type", value="Unigram"),
    "dropout": put("model", "dropout", value=0.1),
    "a merge lost": lambda saved: saved["model"]["merges"].pop(),
    "a merge moved": lambda saved: saved["model"]["merges"].reverse(),
    "a byte lost": lambda saved: saved["model"]["vocab"].pop("a"),
    "an id twice": put("model", "vocab", "a", value=98),
    "an id of no number": put("model", "vocab", "a", value="97"),
    "a name that spells no bytes": lambda saved: put(
        "model", "vocab", "한", value=saved["model"]["vocab"].pop("a")
    )(saved),
    "vocab as list": put("model", "vocab", value=["a", "b"]),
    "no vocab": lambda saved: saved["model"].pop("vocab"),
    "no model": put("model", value=None),
    "another end of text": put("added_tokens", 0, "content", value="</s>"),
    "one more special token": lambda saved: saved["added_tokens"].append(saved["added_tokens"][0]),
}

OTHERS = {"normalizer", "pattern", "byte with merges", "prefix space", "a merge lost",
          "a merge moved", "one more special token"}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_changed_file_is_refused_or_means_what_it_says(
    bpe: Tokenizer, tmp_path: Path, damage: str
) -> None:
    """Not ours any more, it may be another's; then it does what `tokenizers` does with it."""
    path = tmp_path / "tokenizer.json"
    path.write_bytes(to_json(bpe))
    saved = json.loads(path.read_text("utf-8"))
    DAMAGE[damage](saved)
    path.write_text(json.dumps(saved), "utf-8")
    try:
        loaded = tokenizer_files.load(path)
    except UserError as error:
        assert re.fullmatch(r"[^\n]*tokenizer\.json is [^\n]*", str(error))
        assert damage not in OTHERS
    else:
        assert isinstance(loaded, HubTokenizer) and damage in OTHERS
        theirs = tokenizers.Tokenizer.from_file(str(path))
        assert loaded.encode(MIXED) == theirs.encode(MIXED, add_special_tokens=False).ids


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"null", b"[]", b"7", b"{}", b'{"model": {}}', b"[" * 100_000]
)
def test_a_file_of_something_else_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    for path in (tmp_path / "tokenizer.json", tmp_path, tmp_path / "missing.json"):
        with pytest.raises(UserError, match=r"^[^\n]*; save it again$"):
            tokenizer_files.load(path)
        with pytest.raises(UserError, match=r"^[^\n]*; save it again$"):
            Tokenizer.load(path)


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A tokenizer.json as Qwen has them: NFC, a pattern of its own, special tokens at the end."""
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.normalizer = tokenizers.normalizers.NFC()
    pattern = r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+"
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated"),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    theirs.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    theirs.train_from_iterator(
        TEXTS, tokenizers.trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet)
    )
    theirs.add_special_tokens([END_OF_TEXT, "<|im_end|>"])
    path = tmp_path / "tokenizer.json"
    theirs.save(str(path))
    return path


def test_a_foreign_tokenizer_is_read_as_it_is(foreign: Path) -> None:
    """The same ids as `tokenizers` gives, bytes and streams as ever, and the file unchanged."""
    ours, theirs = tokenizer_files.load(foreign), tokenizers.Tokenizer.from_file(str(foreign))
    assert isinstance(ours, HubTokenizer)
    for text in (MIXED, "e\u0301 cafe\u0301", "", " a\n\n b 12 's"):
        ids = ours.encode(text)
        assert ids == theirs.encode(text, add_special_tokens=False).ids
        assert ours.decode(ids) == unicodedata.normalize("NFC", text)
        stream = ours.stream()
        assert "".join(map(stream.push, ids)) + stream.finish() == ours.decode(ids)
    assert ours.encode_array(MIXED).dtype.name == "uint32"
    assert ours.token_bytes(ours.end_of_text) == END_OF_TEXT.encode()
    assert ours.n_vocab == theirs.get_vocab_size() == ours.end_of_text + 2
    assert to_json(ours) == foreign.read_bytes()
    assert from_json(to_json(ours)).fingerprint == ours.fingerprint
    assert ours.bare and ours.encode_prompt("a") == ours.encode("a")
    assert ours.encode_prompt("") == [ours.end_of_text]
    assert ours.merges("sun") == [[ours.token_bytes(id) for id in ours.encode("sun")]]


def test_end_of_text_that_a_user_writes_is_text(foreign: Path, case: Case) -> None:
    """Only the program itself parts documents."""
    for tokenizer in (tokenizer_files.load(foreign), case.ours):
        if tokenizer.kind == "char":
            continue
        ids = tokenizer.encode(f"a{END_OF_TEXT}b<|im_end|>")
        assert tokenizer.end_of_text not in ids and tokenizer.end_of_text + 1 not in ids
        assert tokenizer.decode(ids) == f"a{END_OF_TEXT}b<|im_end|>"


@examples
@given(documents=st.lists(st.just(END_OF_TEXT) | some_text, min_size=1, max_size=9))
def test_documents_at_once_are_documents_one_by_one(case: Case, documents: list[str]) -> None:
    """END_OF_TEXT before each, and no token across it. A copy gives the same."""
    tokenizer = case.ours.copy()
    documents = [
        document if document == END_OF_TEXT else case.known(document) for document in documents
    ]
    expected = [id for text in documents for id in (tokenizer.end_of_text, *case.ours.encode(text))]
    assert tokenizer.encode_documents(documents).tolist() == expected


def test_documents_of_a_foreign_tokenizer(foreign: Path) -> None:
    """In its copy too, END_OF_TEXT that a user writes is text."""
    tokenizer = tokenizer_files.load(foreign)
    ids = tokenizer.copy().encode_documents(["a", END_OF_TEXT]).tolist()
    end_of_text = tokenizer.end_of_text
    assert ids == [end_of_text, *tokenizer.encode("a"), end_of_text, *tokenizer.encode(END_OF_TEXT)]


def test_gpt2_s_published_file_is_ours(gpt2: Tokenizer, tmp_path: Path) -> None:
    """However others have saved GPT-2's tokens, they are known again, and read bare."""
    saved = json.loads(to_json(gpt2))
    saved["post_processor"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False}
    saved["model"].pop("ignore_merges")
    again = from_json(json.dumps(saved).encode())
    assert (again.kind, again.fingerprint, again.bare) == ("gpt2", gpt2.fingerprint, True)
    assert again.encode_prompt("hi") == gpt2.encode("hi")
    assert from_json(to_json(again)).bare and not gpt2.bare


@settings(examples, max_examples=200)
@given(data=st.data())
def test_any_broken_file_is_refused_or_means_what_it_says(
    bpe: Tokenizer, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Cut or overwritten anywhere, a file loads only if its content is what we would save again."""
    path = tmp_path_factory.getbasetemp() / "broken.json"
    path.write_bytes(to_json(bpe))
    content = path.read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    rest = st.just(b"") | st.binary(max_size=2).map(lambda put: put + content[at + 1 :])
    path.write_bytes(content[:at] + data.draw(rest))
    try:
        loaded = tokenizer_files.load(path)
    except UserError as error:
        assert "\n" not in str(error)
    else:
        broken = json.loads(path.read_bytes())
        path.write_bytes(to_json(loaded))
        assert json.loads(path.read_bytes()) == broken


def test_a_tokenizer_cannot_be_half_made() -> None:
    end = END_OF_TEXT.encode()
    for kind, tokens in [
        ("word", [*BYTES, end]),
        ("byte", list(BYTES)),
        ("byte", [*BYTES, b"ab", end]),
        ("bpe", [*BYTES[1:], end]),
        ("bpe", [*BYTES, b"ab", b"ab", end]),
        ("char", [b"a", b"bc", end]),
        ("char", [b"\xff", end]),
    ]:
        with pytest.raises(ValueError):
            Tokenizer(kind, tokens)


# ---- the command line ----


def test_the_command_prints_the_merges_and_imports_no_hugging_face(tmp_path: Path) -> None:
    """A step a line, with a tokenizer.json of ours."""
    trained = train("bpe", ["low lower lowest"], vocab_size=260)
    (tmp_path / "tokenizer.json").write_bytes(to_json(trained))
    code = "import sys; from minigen.files import merges; merges.main(sys.argv[1:])"
    command = [sys.executable, "-X", "importtime", "-c", code, "low!", "--tokenizer"]
    command.append(str(tmp_path / "tokenizer.json"))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout == "l | o | w | !\nlo | w | !\nlow | !\nids: 257 33\n"
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "tiktoken" in imported and not imported & {"tokenizers", "transformers"}


def test_the_command_says_in_one_line_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is missing, and a word that is missing."""
    missing = str(tmp_path / "missing.json")
    for words, error in ((["low", "--tokenizer", missing], "cannot read .*"), ([], "no word; .*")):
        with pytest.raises(SystemExit) as stopped, one_line_errors():
            merges.main(words)
        shown = capsys.readouterr()
        assert stopped.value.code == 2 and shown.out == ""
        assert regex.fullmatch(rf"error: {error}\n", shown.err)
