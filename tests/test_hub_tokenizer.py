"""Theorems about other people's tokenizers: what minigen reads is what transformers reads."""

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


def same(ours: Tokenizer, theirs: Any) -> None:
    """Ids of prompts and of strangers' texts, and the text of ids, whole and in a stream."""
    spelled = [f"a {name}b  {name} c" for name in theirs.get_added_vocab()]
    for text in [*TEXTS, *spelled, "".join(theirs.get_added_vocab())]:
        prompt = theirs(text)["input_ids"]
        assert ours.encode_prompt(text) == prompt or not prompt, text
        assert (
            ours.encode(text, special=True) == theirs(text, add_special_tokens=False)["input_ids"]
        )
        letters = theirs(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if ours.controls.keys().isdisjoint(letters):
            assert ours.encode(text) == letters, text
        else:  # joins of letters lead to a control token, which `encode` never gives
            with contextlib.suppress(UserError):
                assert ours.controls.keys().isdisjoint(ours.encode(text)), text
        for ids in (prompt, letters):
            assert ours.decode(ids) == theirs.decode(ids), text
            stream = ours.stream()
            assert "".join(map(stream.push, ids)) + stream.finish() == theirs.decode(ids)
            shown = [id for id in ids if id not in ours.controls]
            assert ours.decode(shown) == theirs.decode(ids, skip_special_tokens=True)


def judged(seed: int, folder: Path) -> str:
    """How a drawn folder is read: "same", or the line that refuses it."""
    drawn_tokenizers.draw(seed, folder)
    try:
        ours = read(folder)
    except UserError as error:
        assert re.fullmatch(r"[^\n]{20,400}", str(error)) and str(folder) in str(error)
        return str(error).replace(str(folder), "")
    assert ours is not None
    theirs = AutoTokenizer.from_pretrained(folder)
    same(ours, theirs)
    # As a checkpoint has it: the same to minigen, which asks transformers no more, and to them.
    config = json.loads((folder / "config.json").read_text())
    kept, again = companions.read(folder, folder, config), folder / "again"
    again.mkdir()
    told = huggingface.tokenizer_config(64, ours.controls[ours.end_of_text])
    files = {"tokenizer.json": to_json(ours), "tokenizer_config.json": json.dumps(told).encode()}
    for name, content in {**files, **kept.files}.items():
        (again / name).write_bytes(content)
    (again / "config.json").write_text(json.dumps(config))
    saved = tokenizer_files.with_companions(to_json(ours), "tokenizer.json", kept)
    assert (saved.fingerprint, saved.end_of_text) == (ours.fingerprint, ours.end_of_text)
    same(saved, AutoTokenizer.from_pretrained(again))
    return "same"


def test_random_tokenizers_are_read_as_by_transformers_or_refused(tmp_path: Path) -> None:
    """20 of the 300 drawn folders."""
    verdicts = Counter(judged(seed, tmp_path / str(seed)) for seed in range(20))
    assert verdicts["same"] >= 7


@pytest.mark.slow
def test_many_random_tokenizers_are_read_as_by_transformers(tmp_path: Path) -> None:
    verdicts = Counter(judged(seed, tmp_path / str(seed)) for seed in range(20, 300))
    assert verdicts["same"] >= 100


# ---- nothing is undecided ----


def test_every_component_of_tokenizers_is_drawn() -> None:
    """And each key of a tokenizer.json is one that the drawn files change."""
    for module, base, drawn in (
        (tokenizers.normalizers, "Normalizer", drawn_tokenizers.NORMALIZERS),
        (tokenizers.pre_tokenizers, "PreTokenizer", drawn_tokenizers.PRE_TOKENIZERS),
        (tokenizers.decoders, "Decoder", drawn_tokenizers.DECODERS),
    ):
        kind = getattr(module, base)
        classes = {c for c in vars(module).values() if isinstance(c, type) and issubclass(c, kind)}
        names = {c.__name__ for c in classes - {kind}}
        used = re.findall(r'"type": ?"(\w+)"', json.dumps([*map(drawn_tokenizers.as_json, drawn)]))
        # Precompiled is SentencePiece's: it has a table that only its own program makes.
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
    """As transformers takes them out of tokenizer_config.json."""
    base = transformers.PreTrainedTokenizerBase
    source = "".join(inspect.getsource(c.__init__) for c in (base, transformers.TokenizersBackend))
    taken = set(re.findall(r'kwargs\.(?:pop|get|setdefault)\(\s*"(\w+)"', source))
    taken |= set(base.SPECIAL_TOKENS_ATTRIBUTES)
    arguments = {  # that the program gives, or that only tell where something came from
        "_json_padding", "_json_truncation", "_spm_precompiled_charsmap", "backend", "gguf_file",
        "merges", "name_or_path", "post_processor", "tokenizer", "tokenizer_file",
        "tokenizer_object", "tokenizer_padding", "tokenizer_truncation", "unk_id", "vocab",
        "vocab_file", "verbose", "processor_class", "pad_token_type_id", "max_len",
        "model_specific_special_tokens", "response_schema", "response_template",
        "chat_control_tokens", "files_loaded", "fix_mistral_regex", "cls_token", "sep_token",
        "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output",
    }  # fmt: skip
    assert taken <= drawn_tokenizers.FIELDS.keys() | arguments, taken


# ---- what is read, and what is refused by name ----


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
                ours = read(folder)
            except UserError as error:
                assert "is not byte-level" in str(error)
                refused[part] += 1
            else:
                assert ours is not None
                same(ours, AutoTokenizer.from_pretrained(folder))
    # Only what does not take a text as bytes, or give bytes as text.
    assert refused == {"pre_tokenizer": 2, "decoder": len(drawn_tokenizers.DECODERS) - 2}


@pytest.mark.parametrize(
    "parts, complaint",
    [
        ({"model": {"type": "Unigram", "vocab": []}}, "is a Unigram (SentencePiece) tokenizer"),
        ({"model": {"type": "WordPiece", "vocab": {}}}, "is a WordPiece (as of BERT) tokenizer"),
        ({"added_tokens": []}, f"is a tokenizer without {END_OF_TEXT}, and no other"),
        ({"decoder": None}, "is not byte-level: it has no byte-level decoder"),
        ({"decoder": {"type": "Metaspace"}}, "is not byte-level: it decodes by Metaspace"),
        ({"pre_tokenizer": {"type": "Whitespace"}}, "is not byte-level: no step"),
    ],
)
def test_another_kind_of_tokenizer_is_refused_by_name(
    parts: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    folder_with(tmp_path, **parts)
    with pytest.raises(UserError, match=re.escape(f"tokenizer.json {complaint}")):
        tokenizer_files.load(tmp_path / "tokenizer.json")
    if parts != {"added_tokens": []}:  # there, transformers adds the eos_token
        with pytest.raises(UserError, match=re.escape(complaint)):
            read(tmp_path)


def test_a_huge_id_allocates_nothing(tmp_path: Path) -> None:
    saved = folder_with(tmp_path)
    saved["model"]["vocab"]["zz"] = 2**32 - 1
    with pytest.raises(UserError, match="is damaged or not a byte-level tokenizer"):
        from_json(json.dumps(saved).encode())


def test_ids_with_gaps_are_refused(tmp_path: Path) -> None:
    """`tokenizers` counts on from the number of tokens, and so gives other ids, or one twice."""
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
    """No tokenizer at all, one of SentencePiece, and one that needs the folder's own code."""
    folder_with(tmp_path)
    path, settings = tmp_path / "tokenizer.json", tmp_path / "tokenizer_config.json"
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Mine: ...\n")
    told = {"auto_map": {"AutoTokenizer": ["mine.Mine", "mine.Mine"]}, "tokenizer_class": "Mine"}
    settings.write_text(json.dumps(told))
    with pytest.raises(UserError, match="needs code of its folder"):
        read(tmp_path)
    assert not (tmp_path / "ran").exists()
    refused: list[tuple[str, Any]] = [
        ("split_special_tokens", True),
        ("tokenizer_class", "ByT5Tokenizer"),
        ("model_input_names", ["input_ids"]),  # transformers' pipeline then hides filling tokens
    ]
    for name, value in refused:
        settings.write_text(json.dumps({name: value}))
        with pytest.raises(UserError, match=r"tokenizer_config\.json: (split|ByT5|model_input)"):
            read(tmp_path)
    path.unlink()
    assert read(tmp_path) is None
    (tmp_path / "tokenizer.model").write_bytes(b"")
    with pytest.raises(UserError, match=r"has its tokenizer in tokenizer\.model; minigen reads"):
        read(tmp_path)


def test_truncation_and_padding_are_ignored(tmp_path: Path) -> None:
    """As transformers sets both anew at each call; a long text has all of its tokens."""
    folder_with(tmp_path)
    path, text = tmp_path / "tokenizer.json", 9 * drawn_tokenizers.WORDS
    ids = tokenizer_files.load(path).encode(text)
    theirs = tokenizers.Tokenizer.from_file(str(path))
    theirs.enable_truncation(16)
    theirs.enable_padding(length=5000, pad_id=0)
    theirs.save(str(path))
    for ours in (tokenizer_files.load(path), read(tmp_path)):
        assert ours is not None and ours.encode(text) == ours.encode_prompt(text) == ids
        assert ours.encode_prompt("a") == ours.encode("a") and len(ours.encode("a")) == 1


def test_the_eos_token_separates_documents(tmp_path: Path) -> None:
    """The eos_token of a tokenizer without END_OF_TEXT: in a stream of tokens, too."""
    saved = folder_with(tmp_path)
    saved["added_tokens"][0]["content"] = "</s>"
    (tmp_path / "tokenizer.json").write_text(json.dumps(saved))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"})
    )
    ours = read(tmp_path)
    assert ours is not None and ours.end_of_text == 300 and ours.controls == {300: "</s>"}
    documents = ["a</s>b", END_OF_TEXT]
    expected = [id for text in documents for id in (300, *ours.encode(text))]
    assert ours.copy().encode_documents(documents).tolist() == expected
    assert expected.count(300) == 2 and ours.encode_prompt("a</s>b").count(300) == 1
    assert ours.encode_prompt("") == [300]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen3"])
def test_a_file_of_minigen_in_a_folder_without_a_class(kind: str, tmp_path: Path) -> None:
    """transformers takes the class of the model_type, and Qwen's cuts in another way."""
    ours = train_tokenizer("bpe", ["the goat 123\n\n" * 9], 280)
    (tmp_path / "tokenizer.json").write_bytes(to_json(ours))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, "vocab_size": 320}))
    ours = read(tmp_path)
    assert ours is not None
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS[:4]:
        assert ours.encode_prompt(text) == theirs(text)["input_ids"]


def test_letters_that_join_to_a_control_token_stay_letters(tmp_path: Path) -> None:
    """Where a word that is a token is taken whole, without joins."""
    saved = folder_with(tmp_path)
    saved["model"] |= {"ignore_merges": True, "vocab": {**saved["model"]["vocab"], "<|x|>": 300}}
    cut = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    saved["added_tokens"][0] |= {"content": "<|x|>"}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(saved | {"pre_tokenizer": cut}))
    theirs = tokenizers.Tokenizer.from_file(str(path))
    theirs.encode_special_tokens = True
    assert theirs.encode("<|x|>").ids == [300]
    ours = from_json(path.read_bytes(), end="<|x|>")
    assert 300 not in ours.encode("<|x|>") and ours.decode(ours.encode("<|x|>")) == "<|x|>"
    assert ours.encode("<|x|>", special=True) == [300]


def test_an_unreadable_folder_costs_one_line_before_weights(tmp_path: Path) -> None:
    """A token without a row in the embedding; no weights are needed to say so."""
    folder_with(tmp_path)
    config = {"model_type": "gpt2", "vocab_size": 300, "n_embd": 8, "n_head": 1, "n_layer": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        UserError, match=r"301 tokens, but the model's vocab_size is 300.*parts doc"
    ):
        huggingface.load(tmp_path)


@pytest.mark.parametrize("seed", range(3))
def test_tokens_of_parts_are_tokens_of_the_whole(seed: int, tmp_path: Path) -> None:
    """For each way to cut into words, Qwen's too, by which line breaks join with what is before."""
    rng = random.Random(seed)
    words = ["the", "goat!", "bells;", "\n", "\n\n", " \n", "\r\n", "12", " ", "  ", "é", "e\u0301"]
    text = "".join(rng.choice(words) for _ in range(4000))
    whole = 0
    for n, cut in enumerate(drawn_tokenizers.PRE_TOKENIZERS[:8]):
        for normalizer in (None, {"type": "NFC"}):
            folder_with(
                tmp_path, pre_tokenizer=drawn_tokenizers.as_json(cut), normalizer=normalizer
            )
            ours = tokenizer_files.load(tmp_path / "tokenizer.json")
            parts = [DocumentPart(i == 0, text[i : i + 1000]) for i in range(0, len(text), 1000)]
            chunks = [*cut_chunks(parts, 300, ours)]
            assert "".join(part for chunk in chunks for part in chunk.documents) == text
            ids = [id for chunk in chunks for id in ours.encode(chunk.documents[0])]
            whole += ids == ours.encode(text)
            assert ids == ours.encode(text) or n == 2  # uncut, a text is one word: nowhere
    assert whole >= 14


def test_a_text_that_spells_control_tokens_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also when its tokens lie in the cache; and one that the tokenizer changes."""
    folder_with(tmp_path, normalizer={"type": "Lowercase"})
    ours = tokenizer_files.load(tmp_path / "tokenizer.json")
    path = tmp_path / "text.txt"
    path.write_text(f"The goat{END_OF_TEXT}and two bells")
    for _ in range(2):
        data.write_tokens(data.scan([path], None), ours, tmp_path / "cache", "training text")
        said = capsys.readouterr().err.splitlines()
        assert said[0].endswith(
            f"1 control tokens of the model ({END_OF_TEXT}) are read as letters"
        )
        assert "changes the training text" in said[1]


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
    """GPT-2's tokenizer.json as others save it."""
    cache = Path(__file__).resolve().parents[2] / "shared" / "data" / "tiktoken_cache"
    if not cache.is_dir():
        pytest.skip("the folder with GPT-2's vocabulary, shared/data/tiktoken_cache, is not here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", str(cache))
        saved: dict[str, Any] = json.loads(to_json(train_tokenizer("gpt2", [])))
    return saved | {"post_processor": None}
