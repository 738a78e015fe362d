"""minigen/tokenizer.py: the fast ways are the naive ones, and `tokenizers` gives the same ids."""

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
from unittest import mock

import numpy as np
import pytest
import regex
import tiktoken
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from models import random_model

from minigen import tokenizer as tokenizer_module
from minigen.errors import UserError
from minigen.files import checkpoint, merges, tokenizer_files
from minigen.files.hub_tokenizer import HubTokenizer
from minigen.files.tokenizer_files import from_json, to_json
from minigen.model import GPTConfig
from minigen.system.streams import one_line_errors
from minigen.tokenizer import (
    BYTES,
    END_OF_TEXT,
    KINDS,
    PATTERN,
    Tokenizer,
    naive_bpe,
    naive_encode,
    single_bytes,
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

# A written END_OF_TEXT is letters to us, but special to `tokenizers`: it has tests of its own.
some_text = st.one_of(
    st.text(),
    st.text(alphabet="the s'\r\n\t\u3000세안녕🙂\u200d1!"),
    st.lists(st.sampled_from(MIXED.split(" ")), max_size=12).map(" ".join),
).filter(lambda text: END_OF_TEXT not in text)
few_letters = st.sampled_from(["a", "ab", "aab ", "abc", "세상 "]).flatmap(
    lambda letters: st.tuples(*[st.text(alphabet=letters, max_size=150)] * 2)
)


class Case:
    """A tokenizer, its tokenizer.json, and the tokenizer that `tokenizers` reads from it."""

    def __init__(self, tokenizer: Tokenizer, folder: Path) -> None:
        self.ours = tokenizer
        self.path = folder / "tokenizer.json"
        self.path.write_bytes(to_json(tokenizer))
        self.theirs = tokenizers.Tokenizer.from_file(str(self.path))

    def encodable(self, text: str) -> str:
        """Return `text` without the characters that the tokenizer has no id for."""
        return "".join(c for c in text if c in MIXED) if self.ours.kind == "char" else text


@pytest.fixture(scope="session")
def gpt2() -> Iterator[Tokenizer]:
    """Return GPT-2's tokenizer, from a folder with its vocabulary."""
    if not GPT2_FILES.is_dir():
        pytest.skip("the folder with GPT-2's vocabulary, shared/data/tiktoken_cache, is not here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(GPT2_FILES))
        yield train("gpt2", [])


@pytest.fixture(scope="session")
def bpe() -> Tokenizer:
    """Return a bpe tokenizer of 300 ids."""
    return train("bpe", TEXTS, vocab_size=300)


@pytest.fixture(scope="session", params=KINDS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Return a tokenizer of each kind."""
    kind = request.param
    tokenizer = train(kind, [MIXED]) if kind in ("char", "byte") else request.getfixturevalue(kind)
    return Case(tokenizer, tmp_path_factory.mktemp(kind))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Leave tiktoken without a cache and without a network."""
    monkeypatch.setattr(tiktoken.registry, "ENCODINGS", {})
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "empty"))
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


# ---- text and bytes, there and back ----


@examples
@given(text=some_text)
def test_decode_inverts_encode_for_any_text(case: Case, text: str) -> None:
    """The ids of a text decode to that text, and none of them is END_OF_TEXT."""
    text = case.encodable(text)
    ids = case.ours.encode(text)
    assert case.ours.decode(ids) == text
    assert all(0 <= id < case.ours.end_of_text for id in ids)


@examples
@given(text=some_text)
def test_bytes_and_arrays_have_the_ids_of_the_text(case: Case, text: str) -> None:
    """The UTF-8 bytes of a text have its ids, and so has its array, which may be overwritten."""
    text = case.encodable(text)
    ids = case.ours.encode(text)
    assert case.ours.encode(text.encode("utf-8")) == ids
    array = case.ours.encode_array(text)
    assert array.dtype == np.uint32 and array.flags.writeable and array.tolist() == ids


@examples
@given(data=st.one_of(st.binary(), some_text.map(lambda text: text.encode("utf-8")[1:-1])))
def test_decode_bytes_inverts_encode_for_any_bytes(case: Case, data: bytes) -> None:
    """The ids of any bytes, also of those that are not UTF-8, decode to these bytes."""
    if case.ours.kind == "char":
        data = case.encodable(data.decode("utf-8", errors="ignore")).encode("utf-8")
    ids = case.ours.encode(data)
    assert case.ours.decode_bytes(ids) == data
    assert case.ours.decode(ids) == data.decode("utf-8", errors="replace")


def test_a_byte_that_is_not_utf8_is_its_own_token(bpe: Tokenizer) -> None:
    """Bytes that are not UTF-8 are tokens of one byte, and the text around them stays as it is."""
    [the] = bpe.encode("the")
    assert bpe.encode(b"the\xffthe\xed\xa0\x80") == [the, 0xFF, the, 0xED, 0xA0, 0x80]
    for byte in range(256):
        assert bpe.encode(bytes([byte])) == [byte]


def test_text_of_many_scripts_comes_back(case: Case) -> None:
    """A text of letters of many scripts, signs, emoji and white space decodes to itself."""
    assert case.ours.decode(case.ours.encode(MIXED)) == MIXED


def test_an_empty_text_has_no_tokens(case: Case) -> None:
    """An empty text has no ids, no ids decode to an empty text, and no merges make its tokens."""
    assert case.ours.encode("") == case.ours.encode(b"") == []
    assert case.ours.encode_array("").shape == (0,)
    assert case.ours.decode([]) == "" and case.ours.merges("") == [[]]


def test_end_of_text_is_the_last_id_and_no_text_encodes_to_it(case: Case) -> None:
    """END_OF_TEXT has the last id, and a text that spells it is encoded as letters."""
    ours = case.ours
    assert ours.end_of_text == ours.n_vocab - 1 == len(ours) - 1
    ids = ours.encode(f"a{END_OF_TEXT}b")
    assert ours.end_of_text not in ids
    assert ours.decode(ids) == f"a{END_OF_TEXT}b"
    assert ours.decode([ours.end_of_text]) == END_OF_TEXT


def test_a_million_blanks_before_a_word_encode(bpe: Tokenizer) -> None:
    """A million blanks overflow tiktoken's stack without the bound in PATTERN, and not with it."""
    text = " " * 1_100_000 + "x"
    with pytest.raises(BaseException, match="StackOverflow"):
        unbounded = PATTERN.replace("{1,100000}", "+")
        ranks = {byte: id for id, byte in enumerate(BYTES)}
        encoding = tiktoken.Encoding(
            "", pat_str=unbounded, mergeable_ranks=ranks, special_tokens={}
        )
        encoding.encode_ordinary(text)
    assert bpe.decode(bpe.encode(text)) == text


def test_half_a_surrogate_pair_is_refused_in_one_line(case: Case) -> None:
    """A lone surrogate, which UTF-8 cannot write, is refused in encoding and in training."""
    for encode in (case.ours.encode, case.ours.encode_array, case.ours.merges):
        with pytest.raises(UserError, match=r"^the text holds '\\udc80', .*$"):
            encode("ab\udc80")
    for kind in ("char", "bpe"):
        with pytest.raises(UserError, match=r"^the text holds '\\ud800', .*$"):
            train(kind, ["ab", "c\ud800"])


def test_an_id_out_of_range_is_refused_in_one_line(case: Case) -> None:
    """A negative id and the first id after the vocabulary are refused, also in a stream."""
    last = case.ours.n_vocab - 1
    for id in (-1, last + 1):
        message = rf"^token id {id} is not in this tokenizer's 0\.\.{last}; .*$"
        with pytest.raises(UserError, match=message):
            case.ours.decode([0, id])
        with pytest.raises(UserError, match=message):
            case.ours.stream().push(id)


def test_char_has_an_id_for_each_character_in_order() -> None:
    """The ids of a char tokenizer are the characters of the training text, sorted."""
    tokenizer = train("char", ["hello", " world\n"])
    assert tokenizer.decode(range(tokenizer.end_of_text)) == "\n dehlorw"


def test_char_names_unknown_characters() -> None:
    """A text with unknown characters is refused with the first five of them, in order."""
    tokenizer = train("char", ["hello", " world\n"])
    for encode in (tokenizer.encode, tokenizer.encode_array, tokenizer.merges):
        with pytest.raises(UserError, match=r"^not among the 9 char.*: '\\x00' '!' '한'; .*$"):
            encode("hello!\x00 한!\n")
    with pytest.raises(UserError, match=r"^.*: '0' '1' '2' '3' '4' \.\.\.; .*$"):
        tokenizer.encode("9876543210")
    with pytest.raises(UserError, match=r"^.*byte 0xff in position 5.*$"):
        tokenizer.encode(b"hello\xff")


@st.composite
def any_ids(draw: st.DrawFn, tokenizer: Tokenizer, text: str) -> list[int]:
    """Draw ids in any order, among them many that are no whole character, and those of a text."""
    broken = [id for id in range(tokenizer.n_vocab) if not is_utf8(tokenizer.token_bytes(id))]
    one_id = st.sampled_from(broken or [0]) | st.integers(0, tokenizer.end_of_text)
    some_ids = one_id.map(lambda id: [id]) | st.just(tokenizer.encode(text))
    return [id for ids in draw(st.lists(some_ids)) for id in ids]


@examples
@given(data=st.data())
def test_a_stream_adds_up_to_decode(case: Case, data: st.DataObject) -> None:
    """A stream of any ids shows a beginning of their text at each step, and at last all of it."""
    ids = data.draw(any_ids(case.ours, case.encodable("안녕 🙂")))
    stream, shown = case.ours.stream(), ""
    for id in ids:
        shown += stream.push(id)
        assert case.ours.decode(ids).startswith(shown)
    assert shown + stream.finish() == case.ours.decode(ids)


@examples
@given(data=st.data())
def test_a_stream_shows_each_character_that_is_complete(case: Case, data: st.DataObject) -> None:
    """Whenever the ids so far form whole characters, a stream has shown all these characters."""
    ids = data.draw(any_ids(case.ours, case.encodable("안녕 🙂")))
    stream, shown = case.ours.stream(), ""
    for n, id in enumerate(ids, start=1):
        shown += stream.push(id)
        so_far = case.ours.decode_bytes(ids[:n])
        assert not is_utf8(so_far) or shown == so_far.decode("utf-8")


def is_utf8(data: bytes) -> bool:
    """Return whether bytes are UTF-8."""
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
    """A bpe tokenizer of texts has the tokens that `naive_bpe` learns from their words."""
    words = Counter(word.encode() for text in TEXTS for word in regex.findall(PATTERN, text))
    tokens = naive_bpe(words, 299)
    trained = train("bpe", iter(TEXTS), vocab_size=300)
    assert trained.tokens == [*tokens, END_OF_TEXT.encode()]
    assert trained.n_vocab == 300


@given(st.dictionaries(st.text("abcd", min_size=2, max_size=8), st.integers(1, 4), min_size=1))
@examples
def test_the_first_merge_is_the_one_that_shortens_the_text_most(counts: dict[str, int]) -> None:
    """No other pair of letters leaves fewer pieces, if no letter stands beside itself."""
    words = {re.sub(r"(.)\1+", r"\1", word).encode(): n for word, n in counts.items()}

    def n_pieces(pair: bytes) -> int:
        return sum(n * len(word.replace(pair, b"x")) for word, n in words.items())

    for learnt in naive_bpe(words, 257)[256:]:
        pairs = {bytes(pair) for word in words for pair in pairwise(word)}
        assert n_pieces(learnt) == min(map(n_pieces, pairs))


@examples
@given(text=some_text)
def test_no_token_crosses_two_words(bpe: Tokenizer, text: str) -> None:
    """The ids of a text are those of its words, one after the other."""
    assert bpe.encode(text) == [id for w in regex.findall(PATTERN, text) for id in bpe.encode(w)]


def test_naive_encoding_merges_within_words_only() -> None:
    """A token that would cross two words is not used, and each blank has its token."""
    tokens = [*BYTES, b"b ", b" a", b"ab"]
    assert naive_encode("ab ab  é\n", tokens) == [258, 257, *b"b  \xc3\xa9\n"]


@settings(examples, max_examples=200)
@given(texts=few_letters.filter(lambda texts: texts[0].isascii()))
def test_a_word_is_spelled_by_the_merges_of_training_in_their_order(texts: tuple[str, str]) -> None:
    """Making each merge of training everywhere in a word, in order, gives the word's tokens."""
    tokens = train("bpe", [texts[0]], vocab_size=300).tokens[:-1]
    for word in regex.findall(PATTERN, "".join(texts)):
        pieces = single_bytes(word)
        for id in range(256, len(tokens)):
            pair = [tokens[half] for half in naive_encode(tokens[id].decode(), tokens[:id])]
            for i in range(len(pieces)):
                if pieces[i : i + 2] == pair:
                    pieces[i : i + 2] = [tokens[id]]
        assert pieces == [tokens[id] for id in naive_encode(word, tokens)]


Learn = Callable[[dict[bytes, int], int], list[bytes]]
each_training = pytest.mark.parametrize("learn", [naive_bpe, train_bpe], ids=["naive", "fast"])


@each_training
def test_a_pair_counts_as_often_as_its_words_occur(learn: Learn) -> None:
    """A pair in one word that occurs five times is before a pair in two words that occur twice."""
    assert learn({b"ab": 2, b"abc": 2, b"xy": 5}, 258)[256:] == [b"xy", b"ab"]


@each_training
def test_no_merge_crosses_two_words(learn: Learn) -> None:
    """Words of one letter give no token, whichever words stand beside them."""
    assert learn({b"a": 5, b"b": 5}, 300) == [*BYTES]
    assert learn({b"ab": 3, b"c": 3, b"a": 3}, 300)[256:] == [b"ab"]


@each_training
def test_of_three_equal_letters_the_first_two_are_merged(learn: Learn) -> None:
    """In "aaa" two pairs overlap: the first becomes a token, and the third letter stays."""
    assert learn({b"aaa": 2}, 300)[256:] == [b"aa", b"aaa"]


@each_training
def test_of_equally_frequent_pairs_the_smallest_ids_are_merged_first(learn: Learn) -> None:
    """Pairs that occur equally often are merged in the order of their ids."""
    words = {b" cd": 2, b"ab": 2}
    assert learn(words, 300)[256:] == [b" c", b"ab", b" cd"]
    assert train("bpe", ["ab cd ab cd"]).tokens[256:-1] == [b" c", b"ab", b" cd"]


@each_training
def test_training_stops_when_no_pair_occurs_twice(learn: Learn) -> None:
    """Words with one repeated pair give one merge, and an empty text gives none."""
    assert learn({b"ab": 1, b" ab": 1, b"xyz": 1}, 300)[256:] == [b"ab"]
    assert train("bpe", ["ab ab"]).tokens[256:-1] == [b"ab"]
    assert len(train("bpe", [])) == len(train("bpe", [""])) == 257
    assert len(train("char", [])) == 1


def test_a_vocabulary_without_room_for_the_bytes_is_refused() -> None:
    """A bpe tokenizer needs 257 ids, for the bytes and END_OF_TEXT; 256 are refused."""
    assert len(train("bpe", TEXTS, vocab_size=257)) == 257
    with pytest.raises(UserError, match=r"^vocab_size 256 .*257.*$"):
        train("bpe", TEXTS, vocab_size=256)


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    """The error about an unknown kind of tokenizer lists the kinds."""
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
def test_each_step_of_merges_merges_two_pieces(case: Case, word: str) -> None:
    """The steps lead from the bytes of a word to its tokens, and each merges two neighbours."""
    word = case.encodable(word)
    steps = case.ours.merges(word)
    assert steps[-1] == [case.ours.token_bytes(id) for id in case.ours.encode(word)]
    assert case.ours.kind == "char" or steps[0] == single_bytes(word)
    for before, after in pairwise(steps):
        assert after in (
            [*before[:i], before[i] + before[i + 1], *before[i + 2 :]]
            for i in range(len(before) - 1)
        )


def test_a_char_tokenizer_has_no_merges() -> None:
    """The characters of a word are its tokens from the beginning."""
    assert train("char", ["low"]).merges("low") == [[b"l", b"o", b"w"]]


@examples
@given(texts=few_letters)
def test_merges_of_any_training_end_in_the_tokens(texts: tuple[str, str]) -> None:
    """The last step of `merges` has the ids of `encode`, also if a whole word is a token."""
    trained = train("bpe", [texts[0]], vocab_size=300)
    for word in (texts[1], *(token.decode(errors="ignore") for token in trained.tokens[256:])):
        assert trained.merges(word)[-1] == [trained.token_bytes(id) for id in trained.encode(word)]


# ---- the file: `tokenizers` and `transformers` agree ----


@examples
@given(text=some_text)
def test_hugging_face_gives_the_same_ids_and_text(case: Case, text: str) -> None:
    """`tokenizers` gives the ids of minigen for any text, and decodes them to this text."""
    text = case.encodable(text)
    ids = case.ours.encode(text)
    assert case.theirs.encode(text, add_special_tokens=False).ids == ids
    assert case.theirs.decode(ids) == text


def test_transformers_gives_the_ids_of_a_prompt(case: Case) -> None:
    """transformers puts END_OF_TEXT before a text, as `encode_prompt` does."""
    transformers = pytest.importorskip("transformers")
    ids = case.ours.encode(MIXED)
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
    """`tokenizers` decodes any ids, in any order, to the text of minigen."""
    ids = data.draw(st.lists(st.integers(0, case.ours.end_of_text)))
    assert case.theirs.decode(ids, skip_special_tokens=False) == case.ours.decode(ids)


def test_hugging_face_takes_end_of_text_for_its_special_token(case: Case) -> None:
    """`tokenizers` encodes a written END_OF_TEXT as its token, and leaves it out in decoding."""
    ids = [*case.ours.encode("a"), case.ours.end_of_text, *case.ours.encode("b")]
    assert case.theirs.encode(f"a{END_OF_TEXT}b", add_special_tokens=False).ids == ids
    assert case.theirs.decode(ids) == "ab"
    assert case.theirs.get_vocab_size() == case.ours.n_vocab


@settings(examples, max_examples=200)
@given(texts=few_letters)
def test_hugging_face_agrees_on_any_training(
    tmp_path_factory: pytest.TempPathFactory, texts: tuple[str, str]
) -> None:
    """`tokenizers` gives the ids of minigen where few letters make tokens of many pairs."""
    folder = tmp_path_factory.getbasetemp()
    case = Case(train("bpe", [texts[0]], vocab_size=320), folder)
    assert case.theirs.encode(texts[1], add_special_tokens=False).ids == case.ours.encode(texts[1])


def test_hugging_face_agrees_on_a_token_that_no_merges_lead_to(tmp_path: Path) -> None:
    """A token that no merges reach is used only for a word that is exactly this token."""
    tokens = [*BYTES, b"bc", b"ab", b"cd", b"abcd", END_OF_TEXT.encode()]
    case = Case(Tokenizer("bpe", tokens), tmp_path)
    assert (
        case.theirs.encode("abcd abcd", add_special_tokens=False).ids
        == case.ours.encode("abcd abcd")
        == [259, 32, 97, 256, 100]
    )


def test_hugging_face_refuses_an_unknown_character(tmp_path: Path) -> None:
    """`tokenizers` refuses a character that a char tokenizer does not know."""
    theirs = Case(train("char", ["hello"]), tmp_path).theirs
    with pytest.raises(Exception, match=r"Missing \[UNK\]"):
        theirs.encode("hello!")


def test_gpt2_is_the_published_one(gpt2: Tokenizer) -> None:
    """GPT-2's ids are those of tiktoken, and of the two files that were published with GPT-2."""
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


# ---- special tokens of one's own ----

NAMES = ("<|user|>", "<|user|><|end|>", "<|end|>", "[/INST]", "<| 답 |>", "the theme")
# Texts in which special tokens stand beside letters, blanks, their own parts and each other.
PARTS = st.lists(
    st.sampled_from([*NAMES, END_OF_TEXT, "<|", "|>", "user", " ", "\n", "the", " the", "'s"]),
    max_size=9,
).map("".join)


@pytest.fixture(scope="session")
def special(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Return the tokenizer of a case with special tokens."""
    ours = case.ours
    tokenizer = Tokenizer(ours.kind, ours.tokens, special_tokens=NAMES)
    return Case(tokenizer, tmp_path_factory.mktemp(f"{ours.kind}-special"))


@pytest.mark.parametrize("kind", ["char", "byte", "bpe"])
def test_special_tokens_follow_end_of_text_and_change_no_other_id(kind: str) -> None:
    """Special tokens have the ids after END_OF_TEXT, in their order, and all others keep theirs."""
    without = train(kind, TEXTS, vocab_size=300)
    trained = train(kind, TEXTS, vocab_size=300 + len(NAMES), special_tokens=NAMES)
    added = Tokenizer(kind, without.tokens, special_tokens=NAMES)
    for tokenizer in (trained, added, trained.copy()):
        assert tokenizer.tokens == [*without.tokens, *map(str.encode, NAMES)]
        assert tokenizer.end_of_text == without.end_of_text == len(without) - 1
        assert tokenizer.encode(TEXTS[0]) == without.encode(TEXTS[0])
        assert tokenizer.fingerprint == added.fingerprint != without.fingerprint
        assert tokenizer.stop_ids == {tokenizer.end_of_text}
        for n, name in enumerate(NAMES, start=1):
            assert tokenizer.encode(name, special=True) == [tokenizer.end_of_text + n]
            assert tokenizer.decode([tokenizer.end_of_text + n]) == name


@examples
@given(text=PARTS | some_text)
def test_no_text_encodes_to_a_special_token(special: Case, text: str) -> None:
    """A text that spells special tokens is encoded as letters, one by one and in documents."""
    text, ours = special.encodable(text), special.ours
    ids = ours.encode(text)
    assert max(ids, default=0) < ours.end_of_text and ours.decode(ids) == text
    assert ours.encode_documents([text]).tolist() == [ours.end_of_text, *ids]
    assert ours.encode(text.encode()) == ids


@examples
@given(texts=st.lists(PARTS | some_text, max_size=4))
def test_trusted_and_untrusted_parts_add_up(special: Case, texts: list[str]) -> None:
    """Special tokens of one's own around untrusted texts have the ids of the whole.

    A text that spells a special token adds none.
    """
    ours, user, end = special.ours, *(special.ours.end_of_text + n for n in (1, 3))
    ids, texts = list[int](), [special.encodable(text) for text in texts]
    for text in texts:
        ids += [*ours.encode("<|user|>", True), *ours.encode(text), *ours.encode("<|end|>", True)]
    whole = "".join(f"<|user|>{text}<|end|>" for text in texts)
    assert [id for id in ids if id in ours.controls] == [user, end] * len(texts)
    assert ours.decode(ids) == whole
    # An empty text would leave "<|user|><|end|>", a special token of its own.
    if not any(not text or name in text for text in texts for name in ours.controls.values()):
        assert ours.encode(whole, special=True) == ids


@examples
@given(text=PARTS | some_text)
def test_tokenizers_reads_special_tokens_alike(special: Case, text: str) -> None:
    """`tokenizers` gives the ids of a text with special tokens, and of the text as letters."""
    text, ours = special.encodable(text), special.ours
    ids = ours.encode(text, special=True)
    assert special.theirs.encode(text, add_special_tokens=False).ids == ids
    assert special.theirs.encode(text).ids == ours.encode_prompt(text)
    assert special.theirs.decode(ids, skip_special_tokens=False) == ours.decode(ids) == text
    shown = ours.decode(id for id in ids if id not in ours.controls)
    assert special.theirs.decode(ids, skip_special_tokens=True) == shown
    special.theirs.encode_special_tokens = True
    letters = special.theirs.encode(text, add_special_tokens=False).ids
    special.theirs.encode_special_tokens = False
    assert letters == ours.encode(text)


def test_transformers_reads_the_saved_folder_alike(special: Case, tmp_path: Path) -> None:
    """AutoTokenizer gives the same ids from a checkpoint, and minigen from a folder it saves."""
    transformers = pytest.importorskip("transformers")
    ours = special.ours
    text = f"<|user|>the{NAMES[1]} theme <|end|>{END_OF_TEXT}x[/INST]<| 답 |>the theme"
    saved, again = tmp_path / "saved", tmp_path / "again"
    model = random_model(GPTConfig.modern(ours.n_vocab, 16, 1, 1, 8), seed=1)
    checkpoint.save(saved, model, ours, {}, {"step": 1})
    theirs = transformers.AutoTokenizer.from_pretrained(saved / "step-000001")
    ids = theirs(text)["input_ids"]
    assert ids == ours.encode_prompt(text) and len(set(ids) & set(ours.controls)) == 7
    assert theirs.decode(ids) == ours.decode(ids)
    assert len(theirs) == ours.n_vocab
    theirs.save_pretrained(again)
    loaded = checkpoint.load(saved / "step-000001").tokenizer
    from_theirs = tokenizer_files.load(again / "tokenizer.json")
    for tokenizer in (loaded, from_theirs):
        assert (tokenizer.kind, tokenizer.fingerprint) == (ours.kind, ours.fingerprint)
        assert tokenizer.special_tokens == NAMES and tokenizer.encode_prompt(text) == ids


def test_a_saved_tokenizer_keeps_its_special_tokens(special: Case, tmp_path: Path) -> None:
    """Both files of a tokenizer give it back; a file without its special tokens is damaged."""
    path, ours = tmp_path / "tokenizer", special.ours
    ours.save(path)
    for again in (Tokenizer.load(path), from_json(to_json(ours))):
        assert (again.kind, again.tokens, again.controls) == (ours.kind, ours.tokens, ours.controls)
        assert again.fingerprint == ours.fingerprint
    saved = json.loads(path.read_text("utf-8"))
    for names in ([], NAMES[:2], [*NAMES[1:], NAMES[0]], [1], "text"):
        path.write_text(json.dumps({**saved, "special_tokens": names}), "utf-8")
        with pytest.raises(UserError, match=r"^cannot read [^\n]*: damaged; save it again$"):
            Tokenizer.load(path)


def test_a_tokenizer_without_special_tokens_has_the_files_of_earlier_versions() -> None:
    """Without special tokens, the fingerprint and tokenizer.json are those of earlier versions."""
    tokenizer = train("bpe", ["low lower lowest"], vocab_size=260)
    assert tokenizer.fingerprint == (
        "769d35bf107b2effb6ef3b2efc7af34b66421eaac23389fb5c10ccad42f3ac04"
    )
    assert hashlib.sha256(to_json(tokenizer)).hexdigest() == (
        "0e6c0b6bee68946219b8470a0c51e6594e4d93fbcfc217dfb5903703c10ce6f4"
    )


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ("<|user|>", r"^special_tokens is the text '<\|user\|>'; give a list: \['<\|user\|>'\]$"),
        ([""], "special token '' is empty"),
        ([7], "special token 7 is not text"),
        (["<a>", "<b>", "<a>"], "special token '<a>' is there twice"),
        ([END_OF_TEXT], "is always a token"),
        (["<é>"], "has 'é', which tokenizer.json cannot spell"),
        (["\udc80"], "cannot spell"),
        (["the"], "special token 'the' is a token of the text, too"),
    ],
)
def test_a_special_token_that_cannot_be_one_is_refused(names: Any, why: str) -> None:
    """A special token that other programs would read differently is refused in one line."""
    with pytest.raises(UserError, match=why):
        train("bpe", TEXTS, vocab_size=320, special_tokens=names)
    with pytest.raises(UserError, match=r"^vocab_size 258 has no room .*; give 259 or more$"):
        train("bpe", TEXTS, vocab_size=258, special_tokens=["<a>", "<b>"])


# ---- a text in chunks ----


@settings(examples, max_examples=200)
@given(
    text=some_text | PARTS | st.text("ab \n", max_size=40), data=st.data(), piece=st.integers(1, 12)
)
def test_the_ids_of_chunks_are_those_of_the_joined_text(
    special: Case, text: str, data: st.DataObject, piece: int
) -> None:
    """Wherever a text is cut into chunks, and whatever the size of a piece, the ids are its own."""
    text = special.encodable(text)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=9)))
    chunks = [text[a:b] for a, b in pairwise([0, *cuts, len(text)])]
    with mock.patch.object(tokenizer_module, "PIECE", piece):
        assert [*special.ours.encode_iterable(iter(chunks))] == special.ours.encode(text)


def test_a_text_in_chunks_needs_the_memory_of_a_piece(case: Case) -> None:
    """While ids come, at most about two pieces of the text are read ahead, in any kind.

    So it is also after a word that is longer than a piece.
    """
    words = "the theme of the thesis is the other theory " * 500
    chunks = ["x" * 3 * tokenizer_module.PIECE, *[words] * 40]
    given, read, ahead = 0, 0, list[int]()

    def counted() -> Iterator[str]:
        nonlocal given
        for chunk in chunks:
            given += len(chunk)
            yield chunk

    for id in case.ours.encode_iterable(counted()):
        read += len(case.ours.token_bytes(id))
        ahead.append(given - read)
    assert read == given == sum(map(len, chunks))
    assert max(ahead[len(ahead) // 2 :]) < 2 * tokenizer_module.PIECE + len(words)


def test_a_text_without_a_blank_in_chunks_is_searched_seldom(bpe: Tokenizer) -> None:
    """A word of several pieces keeps its tokens, and is searched for a cut a few times only."""
    text, calls = "ab" * 40_000 + " end", []
    search = tokenizer_module.last_cut

    def last_cut(*args: Any) -> int | None:
        calls.append(args)
        return search(*args)

    with (
        mock.patch.object(tokenizer_module, "PIECE", 100),
        mock.patch.object(tokenizer_module, "last_cut", last_cut),
    ):
        assert [*bpe.encode_iterable([text])] == bpe.encode(text)
    assert len(calls) < 20


# ---- save and load ----


def test_load_inverts_save(case: Case, tmp_path: Path) -> None:
    """A tokenizer that was saved is the same when it is loaded."""
    path = tmp_path / "tokenizer"
    case.ours.save(path)
    again = Tokenizer.load(path)
    assert (again.kind, again.tokens, again.bare) == (case.ours.kind, case.ours.tokens, False)
    assert again.fingerprint == case.ours.fingerprint


def test_a_saved_tokenizer_with_a_changed_byte_is_refused(case: Case, tmp_path: Path) -> None:
    """A file in which one byte was changed is refused as damaged, wherever the byte is."""
    path = tmp_path / "tokenizer"
    case.ours.save(path)
    content = path.read_bytes()
    for at in range(0, len(content), len(content) // 20):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(UserError, match=r"^cannot read [^\n]*: damaged; save it again$"):
            Tokenizer.load(path)


def test_from_json_inverts_to_json_without_a_network(
    case: Case, offline: None, tmp_path: Path
) -> None:
    """tokenizer.json gives the tokenizer back, also after Hugging Face has saved it again."""
    case.theirs.save(str(tmp_path / "saved_by_hugging_face.json"))
    for path in (case.path, tmp_path / "saved_by_hugging_face.json"):
        again = tokenizer_files.load(path)
        assert (again.kind, again.fingerprint) == (case.ours.kind, case.ours.fingerprint)
        assert (again.n_vocab, again.end_of_text) == (case.ours.n_vocab, case.ours.end_of_text)
        assert again.encode(MIXED) == case.ours.encode(MIXED)
    assert case.path.read_bytes() == to_json(again)


def test_a_tokenizer_json_that_is_cut_short_is_refused(case: Case) -> None:
    """A tokenizer.json without its last byte is refused by its name."""
    message = r"^tokens\.json is damaged or not a byte-level tokenizer.*$"
    with pytest.raises(UserError, match=message):
        from_json(to_json(case.ours)[:-1], "tokens.json")


def test_a_different_tokenizer_has_a_different_fingerprint(bpe: Tokenizer, gpt2: Tokenizer) -> None:
    """Another kind, other tokens or another order change the fingerprint; a rerun does not."""
    others = [train("byte", []), train("bpe", []), train("char", ["ab"]), train("char", ["abc"])]
    others += [train("bpe", TEXTS, vocab_size=299), gpt2]
    tokens = bpe.tokens
    others += [Tokenizer("bpe", [*tokens[:256], tokens[257], tokens[256], *tokens[258:]])]
    prints = {each.fingerprint for each in others}
    assert len(prints | {bpe.fingerprint}) == len(others) + 1
    assert train("bpe", TEXTS, vocab_size=300).fingerprint == bpe.fingerprint
    assert all(regex.fullmatch("[0-9a-f]{64}", each) for each in prints)


def test_gpt2_without_cache_and_network_is_refused_with_a_way_out(offline: None) -> None:
    """The error names the variable of the folder in which tiktoken keeps vocabularies."""
    with pytest.raises(UserError, match=r"^cannot get GPT-2's vocabulary .*TIKTOKEN_CACHE_DIR.*$"):
        train("gpt2", [])


def put(*keys: Any, value: Any) -> Callable[[Any], None]:
    """Return a function that changes one value of a tokenizer.json."""

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
    "an id as text": put("model", "vocab", "a", value="97"),
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
def test_a_changed_file_is_refused_or_read_as_tokenizers_does(
    bpe: Tokenizer, tmp_path: Path, damage: str
) -> None:
    """A changed tokenizer.json is refused, or gives the ids that `tokenizers` gives with it."""
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
    """A file that is no tokenizer, a folder and a missing file are each refused in one line."""
    (tmp_path / "tokenizer.json").write_bytes(content)
    for path in (tmp_path / "tokenizer.json", tmp_path, tmp_path / "missing.json"):
        with pytest.raises(
            UserError, match=r"^[^\n]*; (save it again|give a tokenizer\.json [^\n]*)$"
        ):
            tokenizer_files.load(path)
        with pytest.raises(UserError, match=r"^[^\n]*; save it again$"):
            Tokenizer.load(path)


@pytest.fixture
def qwen(tmp_path: Path) -> Path:
    """Write a tokenizer.json like that of Qwen: NFC, its own pattern, special tokens at the end."""
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


@pytest.mark.parametrize("text", [MIXED, "e\u0301 cafe\u0301", "", " a\n\n b 12 's"])
def test_a_hub_tokenizer_gives_the_ids_of_tokenizers(qwen: Path, text: str) -> None:
    """A tokenizer of another model encodes as `tokenizers` does; its ids decode to NFC."""
    ours, theirs = tokenizer_files.load(qwen), tokenizers.Tokenizer.from_file(str(qwen))
    ids = ours.encode(text)
    assert ids == theirs.encode(text, add_special_tokens=False).ids
    assert ours.decode(ids) == unicodedata.normalize("NFC", text)
    stream = ours.stream()
    assert "".join(map(stream.push, ids)) + stream.finish() == ours.decode(ids)
    assert ours.encode_array(text).dtype == np.uint32 and ours.encode_array(text).tolist() == ids


def test_a_hub_tokenizer_keeps_its_file(qwen: Path) -> None:
    """A tokenizer of another model is saved as the very bytes that were read."""
    ours = tokenizer_files.load(qwen)
    assert isinstance(ours, HubTokenizer)
    assert to_json(ours) == qwen.read_bytes()
    assert from_json(to_json(ours)).fingerprint == ours.fingerprint


def test_a_hub_tokenizer_counts_its_special_tokens(qwen: Path) -> None:
    """Special tokens have ids after all others, and END_OF_TEXT is one of them."""
    ours, theirs = tokenizer_files.load(qwen), tokenizers.Tokenizer.from_file(str(qwen))
    assert ours.n_vocab == theirs.get_vocab_size() == ours.end_of_text + 2
    assert ours.token_bytes(ours.end_of_text) == END_OF_TEXT.encode()


def test_a_hub_tokenizer_reads_a_prompt_bare(qwen: Path) -> None:
    """A prompt has no END_OF_TEXT before it, unless it is empty."""
    ours = tokenizer_files.load(qwen)
    assert ours.bare and ours.encode_prompt("a") == ours.encode("a")
    assert ours.encode_prompt("") == [ours.end_of_text]


def test_a_hub_tokenizer_shows_no_merges(qwen: Path) -> None:
    """The merges of a tokenizer of another model are one step: its tokens."""
    ours = tokenizer_files.load(qwen)
    assert ours.merges("sun") == [[ours.token_bytes(id) for id in ours.encode("sun")]]


def test_end_of_text_that_a_user_writes_is_text(qwen: Path, case: Case) -> None:
    """Control tokens that a text spells are letters, so no text can end a document."""
    for tokenizer in (tokenizer_files.load(qwen), case.ours):
        if tokenizer.kind == "char":
            continue
        ids = tokenizer.encode(f"a{END_OF_TEXT}b<|im_end|>")
        assert tokenizer.end_of_text not in ids and tokenizer.end_of_text + 1 not in ids
        assert tokenizer.decode(ids) == f"a{END_OF_TEXT}b<|im_end|>"


@examples
@given(documents=st.lists(st.just(END_OF_TEXT) | some_text, min_size=1, max_size=9))
def test_documents_at_once_are_documents_one_by_one(case: Case, documents: list[str]) -> None:
    """Documents that are encoded at once have the ids of each, END_OF_TEXT before it."""
    tokenizer = case.ours.copy()
    documents = [
        document if document == END_OF_TEXT else case.encodable(document) for document in documents
    ]
    expected = [id for text in documents for id in (tokenizer.end_of_text, *case.ours.encode(text))]
    assert tokenizer.encode_documents(documents).tolist() == expected


def test_documents_at_once_are_documents_one_by_one_for_a_hub_tokenizer(qwen: Path) -> None:
    """A copy of a hub tokenizer puts END_OF_TEXT before each document, and reads one as letters."""
    tokenizer = tokenizer_files.load(qwen)
    ids = tokenizer.copy().encode_documents(["a", END_OF_TEXT]).tolist()
    end_of_text = tokenizer.end_of_text
    assert ids == [end_of_text, *tokenizer.encode("a"), end_of_text, *tokenizer.encode(END_OF_TEXT)]


def test_a_file_of_gpt2_s_tokens_is_read_as_gpt2(gpt2: Tokenizer, tmp_path: Path) -> None:
    """A tokenizer.json with GPT-2's tokens, as others save it, is kind gpt2, and bare."""
    saved = json.loads(to_json(gpt2))
    saved["post_processor"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False}
    saved["model"].pop("ignore_merges")
    again = from_json(json.dumps(saved).encode())
    assert (again.kind, again.fingerprint, again.bare) == ("gpt2", gpt2.fingerprint, True)
    assert again.encode_prompt("hi") == gpt2.encode("hi")
    assert from_json(to_json(again)).bare and not gpt2.bare


@settings(examples, max_examples=200)
@given(data=st.data())
def test_any_broken_file_is_refused_or_kept(
    bpe: Tokenizer, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A file that is cut or overwritten anywhere loads only if saving it gives the same JSON."""
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


def test_tokens_of_another_kind_are_refused() -> None:
    """Tokens that repeat, that lack a byte or END_OF_TEXT, or are no characters are refused."""
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
    """`merges` prints a line for each step, and needs neither `tokenizers` nor transformers."""
    trained = train("bpe", ["low lower lowest"], vocab_size=260)
    (tmp_path / "tokenizer.json").write_bytes(to_json(trained))
    code = "import sys; from minigen.files import merges; merges.main(sys.argv[1:])"
    command = [sys.executable, "-X", "importtime", "-c", code, "low!", "--tokenizer"]
    command.append(str(tmp_path / "tokenizer.json"))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout == "l | o | w | !\nlo | w | !\nlow | !\nids: 257 33\n"
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "tiktoken" in imported and not imported & {"tokenizers", "transformers"}


def test_a_wrong_command_costs_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing file and a missing word are each reported in one line."""
    missing = str(tmp_path / "missing.json")
    for words, error in (
        (["low", "--tokenizer", missing], "cannot read .*"),
        ([], "WORD .* is missing; .*"),
    ):
        with pytest.raises(SystemExit) as stopped, one_line_errors():
            merges.main(words)
        shown = capsys.readouterr()
        assert stopped.value.code == 2 and shown.out == ""
        assert regex.fullmatch(rf"error: {error}\n", shown.err)
