"""Tokenizers of the hub: minigen gives the ids and the text of transformers, or refuses a file."""

from __future__ import annotations

import contextlib
import inspect
import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import drawn_tokenizers
import pytest
import tokenizers
import transformers
from drawn_tokenizers import TEXTS
from gpt2_vocabulary import use_gpt2_cache
from transformers import AutoTokenizer

from minigen import data
from minigen.data.text import DocumentPart
from minigen.data.tokens import cut_chunks
from minigen.errors import UserError
from minigen.files import companions, huggingface, tokenizer_files
from minigen.files.tokenizer_files import from_json, to_json
from minigen.files.tokenizer_json import read_own
from minigen.tokenizer import END_OF_TEXT, Tokenizer, train_tokenizer

transformers.logging.set_verbosity_error()


def read(folder: Path) -> Tokenizer | None:
    config = json.loads((folder / "config.json").read_text())
    return tokenizer_files.read(folder, companions.read(folder, folder, config))


def same(tokenizer: Tokenizer, reference: Any) -> None:
    """Assert that a tokenizer gives transformers' ids and text, at once and in a stream.

    Args:
        reference: the tokenizer of transformers.
    """
    spelled = [f"a {name}b  {name} c" for name in reference.get_added_vocab()]
    for text in [*TEXTS, *spelled, "".join(reference.get_added_vocab())]:
        prompt = reference(text)["input_ids"]
        assert tokenizer.encode_prompt(text) == prompt or not prompt, text
        assert (
            tokenizer.encode(text, special=True)
            == reference(text, add_special_tokens=False)["input_ids"]
        )
        letters = reference(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if tokenizer.controls.keys().isdisjoint(letters):
            assert tokenizer.encode(text) == letters, text
        else:  # merges of letters end in a control token, which `encode` never returns
            with contextlib.suppress(UserError):
                assert tokenizer.controls.keys().isdisjoint(tokenizer.encode(text)), text
        for ids in (prompt, letters):
            assert tokenizer.decode(ids) == reference.decode(ids), text
            stream = tokenizer.stream()
            assert "".join(map(stream.push, ids)) + stream.finish() == reference.decode(ids)
            shown = [id for id in ids if id not in tokenizer.controls]
            assert tokenizer.decode(shown) == reference.decode(ids, skip_special_tokens=True)


def judged(seed: int, folder: Path) -> str:
    """Draw a folder and read it; return "same", or the error that refuses it."""
    drawn_tokenizers.draw(seed, folder)
    try:
        tokenizer = read(folder)
    except UserError as error:
        assert re.fullmatch(r"[^\n]{20,400}", str(error)) and str(folder) in str(error)
        return str(error).replace(str(folder), "")
    assert tokenizer is not None
    reference = AutoTokenizer.from_pretrained(folder)
    same(tokenizer, reference)
    # A checkpoint's tokenizer.json gives the same ids, in minigen alone and in transformers.
    config = json.loads((folder / "config.json").read_text())
    kept, again = companions.read(folder, folder, config), folder / "again"
    again.mkdir()
    settings = huggingface.tokenizer_config(64, tokenizer.controls[tokenizer.end_of_text])
    files = {"tokenizer.json": to_json(tokenizer)}
    files["tokenizer_config.json"] = json.dumps(settings).encode()
    for name, content in {**files, **kept.files}.items():
        (again / name).write_bytes(content)
    (again / "config.json").write_text(json.dumps(config))
    saved = tokenizer_files.with_companions(to_json(tokenizer), "tokenizer.json", kept)
    assert (saved.fingerprint, saved.end_of_text) == (tokenizer.fingerprint, tokenizer.end_of_text)
    same(saved, AutoTokenizer.from_pretrained(again))
    return "same"


def test_random_tokenizers_are_read_as_by_transformers_or_refused(tmp_path: Path) -> None:
    """Each of 20 random tokenizers is read as by transformers, or refused in one line."""
    verdicts = Counter(judged(seed, tmp_path / str(seed)) for seed in range(20))
    assert verdicts["same"] >= 7


@pytest.mark.slow
def test_many_random_tokenizers_are_read_as_by_transformers(tmp_path: Path) -> None:
    """Each of 280 more random tokenizers is read as by transformers, or refused in one line."""
    verdicts = Counter(judged(seed, tmp_path / str(seed)) for seed in range(20, 300))
    assert verdicts["same"] >= 100


# ---- the random tokenizers have each component and setting ----


def test_every_component_of_tokenizers_is_drawn() -> None:
    """Each component of `tokenizers`, and each key of tokenizer.json, occurs in random files."""
    for module, base, drawn in (
        (tokenizers.normalizers, "Normalizer", drawn_tokenizers.NORMALIZERS),
        (tokenizers.pre_tokenizers, "PreTokenizer", drawn_tokenizers.PRE_TOKENIZERS),
        (tokenizers.decoders, "Decoder", drawn_tokenizers.DECODERS),
    ):
        kind = getattr(module, base)
        classes = {c for c in vars(module).values() if isinstance(c, type) and issubclass(c, kind)}
        names = {c.__name__ for c in classes - {kind}}
        used = re.findall(r'"type": ?"(\w+)"', json.dumps([*map(drawn_tokenizers.as_json, drawn)]))
        # Precompiled has a table that only SentencePiece makes.
        assert names - {"Precompiled"} <= set(used)
    saved = json.loads(drawn_tokenizers.trained(True))
    assert saved.keys() == {
        "version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer",
        "post_processor", "decoder", "model",
    }  # fmt: skip
    assert saved["model"].keys() == {
        "type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
        "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges",
    }  # fmt: skip


def test_every_setting_of_a_tokenizer_is_drawn() -> None:
    """Each setting that transformers reads from tokenizer_config.json occurs in random files."""
    base = transformers.PreTrainedTokenizerBase
    source = "".join(inspect.getsource(c.__init__) for c in (base, transformers.TokenizersBackend))
    taken = set(re.findall(r'kwargs\.(?:pop|get|setdefault)\(\s*"(\w+)"', source))
    taken |= set(base.SPECIAL_TOKENS_ATTRIBUTES)
    arguments = {  # of the program, or without effect on the ids
        "_json_padding", "_json_truncation", "_spm_precompiled_charsmap", "backend", "gguf_file",
        "merges", "name_or_path", "post_processor", "tokenizer", "tokenizer_file",
        "tokenizer_object", "tokenizer_padding", "tokenizer_truncation", "unk_id", "vocab",
        "vocab_file", "verbose", "processor_class", "pad_token_type_id", "max_len",
        "model_specific_special_tokens", "response_schema", "response_template",
        "chat_control_tokens", "files_loaded", "fix_mistral_regex", "cls_token", "sep_token",
        "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output",
    }  # fmt: skip
    assert taken <= drawn_tokenizers.FIELDS.keys() | arguments, taken


# ---- single components and files ----


def folder_with(folder: Path, **parts: Any) -> dict[str, Any]:
    """Write a plain byte-level tokenizer.json with other `parts`, and return it."""
    saved = json.loads(drawn_tokenizers.trained(True))
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    end = {"id": len(saved["model"]["vocab"]), "content": END_OF_TEXT, "special": True, **flags}
    saved["added_tokens"] = [end]
    saved["decoder"] = drawn_tokenizers.as_json(drawn_tokenizers.DECODERS[0])
    saved |= parts
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(saved))
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen3", "vocab_size": 320}))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": END_OF_TEXT}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return saved


def test_each_component_is_computed_or_refused(tmp_path: Path) -> None:
    """A tokenizer with one component changed gives transformers' ids, or is not byte-level."""
    drawn = {
        "normalizer": drawn_tokenizers.NORMALIZERS,
        "pre_tokenizer": drawn_tokenizers.PRE_TOKENIZERS,
        "decoder": drawn_tokenizers.DECODERS,
        "post_processor": [
            drawn_tokenizers.processor(kind, END_OF_TEXT, END_OF_TEXT, {END_OF_TEXT: 300})
            for kind in drawn_tokenizers.PROCESSORS
        ],
    }
    refused = Counter[str]()
    for part, components in drawn.items():
        for n, component in enumerate(components):
            folder = tmp_path / f"{part}-{n}"
            folder_with(folder, **{part: drawn_tokenizers.as_json(component)})
            try:
                tokenizer = read(folder)
            except UserError as error:
                assert "is not byte-level" in str(error)
                refused[part] += 1
            else:
                assert tokenizer is not None
                same(tokenizer, AutoTokenizer.from_pretrained(folder))
    # Components that do not turn a text into bytes, or bytes into a text.
    assert refused == {"pre_tokenizer": 2, "decoder": len(drawn_tokenizers.DECODERS) - 2}


@pytest.mark.parametrize(
    "parts, complaint",
    [
        ({"model": {"type": "Unigram", "vocab": []}}, "is a Unigram (SentencePiece) tokenizer"),
        ({"model": {"type": "WordPiece", "vocab": {}}}, "is a WordPiece (as in BERT) tokenizer"),
        ({"added_tokens": []}, f"is a tokenizer without {END_OF_TEXT}, and no other"),
        ({"decoder": None}, "is not byte-level: it has no byte-level decoder"),
        ({"decoder": {"type": "Metaspace"}}, "is not byte-level: its decoder is Metaspace"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "is not byte-level: it has no byte-level step"),
    ],
)
def test_another_kind_of_tokenizer_is_refused_by_name(
    parts: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    """A tokenizer that is not byte-level BPE is refused with its name."""
    folder_with(tmp_path, **parts)
    with pytest.raises(UserError, match=re.escape(f"tokenizer.json {complaint}")):
        tokenizer_files.load(tmp_path / "tokenizer.json")
    if parts != {"added_tokens": []}:  # there, transformers adds the eos_token
        with pytest.raises(UserError, match=re.escape(complaint)):
            read(tmp_path)


def test_a_huge_id_allocates_nothing(tmp_path: Path) -> None:
    """A token with an id above the limit is refused before a list of that length is made."""
    saved = folder_with(tmp_path)
    saved["model"]["vocab"]["zz"] = 2**32 - 1
    with pytest.raises(UserError, match="is damaged or not a byte-level tokenizer"):
        from_json(json.dumps(saved).encode())


def test_ids_with_gaps_are_refused(tmp_path: Path) -> None:
    """A file whose ids have gaps is refused, as `tokenizers` would give its tokens other ids."""
    saved = folder_with(tmp_path)
    [end] = saved["added_tokens"]
    saved["added_tokens"] = [end | {"id": 302}]
    with pytest.raises(UserError, match="ids of its tokens have gaps"):
        from_json(json.dumps(saved).encode())
    saved["model"]["vocab"]["zz"] = 301
    saved["added_tokens"] = [end | {"id": 301}]
    with pytest.raises(UserError, match="ids of its tokens have gaps"):
        from_json(json.dumps(saved).encode())


def test_unsupported_files_are_refused_by_name(tmp_path: Path) -> None:
    """A tokenizer that needs code, one of SentencePiece and an odd setting are refused by name."""
    folder_with(tmp_path)
    path, settings = tmp_path / "tokenizer.json", tmp_path / "tokenizer_config.json"
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Mine: ...\n")
    own_code = {"AutoTokenizer": ["mine.Mine", "mine.Mine"]}
    settings.write_text(json.dumps({"auto_map": own_code, "tokenizer_class": "Mine"}))
    with pytest.raises(UserError, match="needs code in its folder"):
        read(tmp_path)
    assert not (tmp_path / "ran").exists()
    refused: list[tuple[str, Any]] = [
        ("split_special_tokens", True),
        ("tokenizer_class", "ByT5Tokenizer"),
        ("model_input_names", ["input_ids"]),  # transformers' pipeline then hides padding tokens
    ]
    for name, value in refused:
        settings.write_text(json.dumps({name: value}))
        with pytest.raises(
            UserError,
            match=r"tokenizer_config\.json: (split|transformers computes ByT5|model_input)",
        ):
            read(tmp_path)
    path.unlink()
    assert read(tmp_path) is None
    (tmp_path / "tokenizer.model").write_bytes(b"")
    with pytest.raises(UserError, match=r"has its tokenizer in tokenizer\.model; minigen reads"):
        read(tmp_path)


def test_truncation_and_padding_are_ignored(tmp_path: Path) -> None:
    """With truncation and padding in the file, each text still has all of its own tokens."""
    folder_with(tmp_path)
    path, text = tmp_path / "tokenizer.json", 9 * drawn_tokenizers.WORDS
    ids = tokenizer_files.load(path).encode(text)
    reference = tokenizers.Tokenizer.from_file(str(path))
    reference.enable_truncation(16)
    reference.enable_padding(length=5000, pad_id=0)
    reference.save(str(path))
    for tokenizer in (tokenizer_files.load(path), read(tmp_path)):
        assert (
            tokenizer is not None and tokenizer.encode(text) == tokenizer.encode_prompt(text) == ids
        )
        assert (
            tokenizer.encode_prompt("a") == tokenizer.encode("a")
            and len(tokenizer.encode("a")) == 1
        )


def test_the_eos_token_separates_documents(tmp_path: Path) -> None:
    """In a tokenizer without END_OF_TEXT, the eos_token separates documents."""
    saved = folder_with(tmp_path)
    saved["added_tokens"][0]["content"] = "</s>"
    (tmp_path / "tokenizer.json").write_text(json.dumps(saved))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"})
    )
    tokenizer = read(tmp_path)
    assert (
        tokenizer is not None
        and tokenizer.end_of_text == 300
        and tokenizer.controls == {300: "</s>"}
    )
    documents = ["a</s>b", END_OF_TEXT]
    expected = [id for text in documents for id in (300, *tokenizer.encode(text))]
    assert tokenizer.copy().encode_documents(documents).tolist() == expected
    assert expected.count(300) == 2 and tokenizer.encode_prompt("a</s>b").count(300) == 1
    assert tokenizer.encode_prompt("") == [300]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen3"])
def test_a_file_of_minigen_in_a_folder_without_a_class(kind: str, tmp_path: Path) -> None:
    """minigen's tokenizer.json without a class is read as by transformers, by the model_type."""
    tokenizer = train_tokenizer("bpe", ["the goat 123\n\n" * 9], 280)
    (tmp_path / "tokenizer.json").write_bytes(to_json(tokenizer))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, "vocab_size": 320}))
    tokenizer = read(tmp_path)
    assert tokenizer is not None
    reference = AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS[:4]:
        assert tokenizer.encode_prompt(text) == reference(text)["input_ids"]


def test_letters_that_join_to_a_control_token_stay_letters(tmp_path: Path) -> None:
    """`encode` gives letters even where merges of letters end in a control token."""
    saved = folder_with(tmp_path)
    saved["model"] |= {"ignore_merges": True, "vocab": {**saved["model"]["vocab"], "<|x|>": 300}}
    cut = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    saved["added_tokens"][0] |= {"content": "<|x|>"}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(saved | {"pre_tokenizer": cut}))
    reference = tokenizers.Tokenizer.from_file(str(path))
    reference.encode_special_tokens = True
    assert reference.encode("<|x|>").ids == [300]
    tokenizer = from_json(path.read_bytes(), end="<|x|>")
    assert (
        300 not in tokenizer.encode("<|x|>")
        and tokenizer.decode(tokenizer.encode("<|x|>")) == "<|x|>"
    )
    assert tokenizer.encode("<|x|>", special=True) == [300]


def test_an_unreadable_folder_costs_one_line_before_weights(tmp_path: Path) -> None:
    """A tokenizer larger than the embedding is refused before weights are read."""
    folder_with(tmp_path)
    config = {"model_type": "gpt2", "vocab_size": 300, "n_embd": 8, "n_head": 1, "n_layer": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        UserError, match=r"301 tokens, but the model's vocab_size is 300.*the end of a text too"
    ):
        huggingface.load(tmp_path)


@pytest.mark.parametrize("seed", range(3))
def test_tokens_of_parts_are_tokens_of_the_whole(seed: int, tmp_path: Path) -> None:
    """A text encoded in chunks has the ids of the whole text, with each way to split words."""
    rng = random.Random(seed)
    words = ["the", "goat!", "bells;", "\n", "\n\n", " \n", "\r\n", "12", " ", "  ", "é", "e\u0301"]
    text = "".join(rng.choice(words) for _ in range(4000))
    whole = 0
    for n, cut in enumerate(drawn_tokenizers.PRE_TOKENIZERS[:8]):
        for normalizer in (None, {"type": "NFC"}):
            folder_with(
                tmp_path, pre_tokenizer=drawn_tokenizers.as_json(cut), normalizer=normalizer
            )
            tokenizer = tokenizer_files.load(tmp_path / "tokenizer.json")
            parts = [DocumentPart(i == 0, text[i : i + 1000]) for i in range(0, len(text), 1000)]
            chunks = [*cut_chunks(parts, 300, tokenizer)]
            assert "".join(part for chunk in chunks for part in chunk.documents) == text
            ids = [id for chunk in chunks for id in tokenizer.encode(chunk.documents[0])]
            whole += ids == tokenizer.encode(text)
            assert ids == tokenizer.encode(text) or n == 2  # there a text is one word
    assert whole >= 14


def test_control_tokens_in_a_text_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Notes report control tokens in a text, and a text that the tokenizer changes."""
    folder_with(tmp_path, normalizer={"type": "Lowercase"})
    tokenizer = tokenizer_files.load(tmp_path / "tokenizer.json")
    path = tmp_path / "text.txt"
    path.write_text(f"The goat{END_OF_TEXT}and two bells")
    for _ in range(2):
        data.write_tokens(data.scan([path], None), tokenizer, tmp_path / "cache", "training text")
        notes = capsys.readouterr().err.splitlines()
        assert notes[0].endswith(
            f"1 control tokens of the model ({END_OF_TEXT}) are read as letters"
        )
        assert "changes the training text" in notes[1]


CHANGES = ["first token", "prefix space", "other merges", "digits alone", "no pattern"]
CHANGES += ["normalizer", "no decoder", "one more token", "end_of_text lstrip", "suffix"]


@pytest.mark.parametrize(
    "change",
    [pytest.param(change, marks=pytest.mark.slow if n > 2 else ())  # two seconds each
     for n, change in enumerate(CHANGES)],
)  # fmt: skip
def test_gpt2_s_tokens_with_other_steps_are_not_gpt2(
    change: str, gpt2_file: dict[str, Any]
) -> None:
    """A file with GPT-2's tokens and one other step is not read as GPT-2's."""
    base = gpt2_file
    cut, [end] = base["pre_tokenizer"], base["added_tokens"]
    first = drawn_tokenizers.processor("first", END_OF_TEXT, END_OF_TEXT, {END_OF_TEXT: 50256})
    merges = base["model"]["merges"]
    more: dict[str, Any] = {
        "first token": {"post_processor": drawn_tokenizers.as_json(first)},
        "digits alone": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True}, cut]}},
        "no pattern": {"pre_tokenizer": cut | {"use_regex": False}},
        "normalizer": {"normalizer": {"type": "NFKC"}},
        "prefix space": {"pre_tokenizer": cut | {"add_prefix_space": True}},
        "no decoder": {"decoder": None},
        "other merges": {"model": base["model"] | {"merges": merges[:-100]}},
        "one more token": {"added_tokens": [end, end | {"id": 50257, "content": "ZORP"}]},
        "end_of_text lstrip": {"added_tokens": [end | {"lstrip": True}]},
        "suffix": {"model": base["model"] | {"end_of_word_suffix": "</w>"}},
    }[change]  # fmt: skip
    assert read_own(base) is not None
    assert read_own(base | more) is None


@pytest.fixture(scope="module")
def gpt2_file() -> dict[str, Any]:
    """Return GPT-2's tokenizer.json in the spelling of another program."""
    with pytest.MonkeyPatch.context() as patch:
        use_gpt2_cache(patch)
        saved: dict[str, Any] = json.loads(to_json(train_tokenizer("gpt2", [])))
    return saved | {"post_processor": None}
