"""A model keeps its companions: its end tokens, its sampling settings, its chat template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from chat_models import TEMPLATE, make
from transformers import AutoTokenizer, GenerationConfig

import minigen
import sample
import train
from minigen.errors import UserError
from minigen.files import checkpoint, companions, huggingface, lora
from minigen.files.export import export
from minigen.inference import parity
from minigen.tokenizer import END_OF_TEXT

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a chat model with a template, its own end tokens and settings."""
    folder = tmp_path_factory.mktemp("chat")
    generation = {"eos_token_id": [302, 300], "repetition_penalty": 1.3, "top_k": 7,
                  "return_dict_in_generate": True, "output_scores": True}  # fmt: skip
    make(folder, generation, chat_template=TEMPLATE, pad_token=END_OF_TEXT)
    return folder


# ---- settings ----


def test_every_setting_of_transformers_is_in_one_table() -> None:
    """Each sampling setting of transformers is in exactly one of the three tables."""
    known = {name for name in GenerationConfig().to_dict() if not name.startswith("_")}
    tables = [companions.COMPUTED, companions.NOT_COMPUTED, companions.WITHOUT_EFFECT]
    assert known <= set().union(*tables)
    assert sum(map(len, tables)) == len(set().union(*tables))


def test_a_setting_that_is_not_computed_is_refused(tmp_path: Path) -> None:
    """A setting that minigen does not compute is refused by name, unless its value does nothing."""
    for name in (*companions.NOT_COMPUTED, "a_new_one"):
        for value in (None, *companions.NOT_COMPUTED.get(name, ())):
            assert companions.Companions(generation={name: value}).settings("m") == {}
        model = companions.Companions(generation={name: [7], "top_k": 5})
        with pytest.raises(UserError, match=rf"^m: generation_config.json has {name} \[7\],"):
            model.settings("m")
    for name in companions.COMPUTED:
        with pytest.raises(UserError, match=f"^m: {name} is "):
            companions.from_files(
                {"generation_config.json": json.dumps({name: {}}).encode()}, {}, "m"
            )


@pytest.mark.parametrize(
    "generation, call",
    [
        ({"repetition_penalty": 1.9}, {"do_sample": False, "max_new_tokens": 20}),
        ({"repetition_penalty": 1.9}, {"do_sample": False, "repetition_penalty": 1.0}),
        ({"do_sample": False}, {}),
        ({"do_sample": False, "max_new_tokens": 7}, {}),
        ({"do_sample": False, "max_new_tokens": 7}, {"max_length": 30}),
        ({"do_sample": False, "max_length": 12}, {}),
        ({"do_sample": False, "max_length": 12}, {"max_new_tokens": 9}),
        ({"top_k": 1}, {"max_new_tokens": 15}),
        ({"top_p": 1e-9}, {"max_new_tokens": 15}),
        ({"min_p": 1.0}, {"max_new_tokens": 15}),
        ({"temperature": 1e-6}, {"max_new_tokens": 15}),
        ({"eos_token_id": [301, 40, 63, 107], "do_sample": False}, {"max_new_tokens": 30}),
        ({"eos_token_id": None, "do_sample": False}, {"max_new_tokens": 30}),
        ({"num_beams": 1, "typical_p": 1.0, "do_sample": False}, {"max_new_tokens": 5}),
        (None, {"do_sample": False, "max_new_tokens": 30}),
    ],
)  # fmt: skip
def test_the_model_s_settings_are_the_defaults_of_a_call(
    generation: dict[str, Any] | None, call: dict[str, Any], tmp_path: Path
) -> None:
    """Both pipelines write the same text: settings that a call leaves open are the model's.

    Where the settings draw, they leave only one token to draw.
    """
    make(tmp_path, generation)
    text = "<|im_start|>the goat<|im_end|>"
    reference = transformers.pipeline("text-generation", model=str(tmp_path), device="cpu")
    pipe = minigen.pipeline("text-generation", model=str(tmp_path), device="cpu")
    assert pipe(text, **call) == reference(text, **call)


def test_an_empty_prompt_begins_with_the_model_s_first_token(tmp_path: Path) -> None:
    """An empty prompt is read as the model's bos_token_id."""
    make(tmp_path, {"bos_token_id": 301, "do_sample": False, "max_new_tokens": 9})
    reference = transformers.pipeline("text-generation", model=str(tmp_path), device="cpu")
    pipe = minigen.pipeline("text-generation", model=str(tmp_path), device="cpu")
    assert pipe.tokenizer.encode_prompt("") == [301] and pipe("") == reference("")


def test_settings_in_an_old_config_are_read(tmp_path: Path) -> None:
    """Without a generation_config.json, the settings in config.json apply, as in transformers."""
    make(tmp_path)
    edit(tmp_path / "config.json", repetition_penalty=1.9, do_sample=False)
    pipe = minigen.pipeline("text-generation", model=str(tmp_path), device="cpu")
    reference = transformers.pipeline("text-generation", model=str(tmp_path), device="cpu")
    assert pipe("the goat", max_new_tokens=20) == reference("the goat", max_new_tokens=20)
    edit(tmp_path / "config.json", num_beams=4)
    with pytest.raises(UserError, match="num_beams 4"):
        minigen.pipeline("text-generation", model=str(tmp_path), device="cpu")


def test_sample_reports_settings_that_it_does_not_follow(
    chat: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """sample.py reports a setting of the model that its flags overrule."""
    sample.main(["--checkpoint", str(chat), "--prompt", "a", "--max_new_tokens", "2", "--top_k=7"])
    assert "asks for repetition_penalty 1.3; the flags decide" in capsys.readouterr().err


def test_each_end_ends_a_text_and_is_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A text ends at each end token, which is hidden if it is a control token."""
    model = make(tmp_path, {"eos_token_id": [302, 40]})
    with torch.no_grad():  # one token follows every text
        model.model.norm.weight.zero_()
        model.model.norm.weight[0] = 1.0
        model.model.embed_tokens.weight[:, 0] = 5.0
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    for id, shown in ((302, ""), (40, "I"), (301, None)):
        with torch.no_grad():
            model.lm_head.weight.zero_()
            model.lm_head.weight[id, 0] = 3.0
        model.generation_config = GenerationConfig(eos_token_id=[302, 40])
        model.save_pretrained(tmp_path)
        ask = {"do_sample": False, "max_new_tokens": 5}
        text = minigen.pipeline("text-generation", model=str(tmp_path), device="cpu")("a", **ask)
        reference = transformers.pipeline("text-generation", model=str(tmp_path), device="cpu")
        assert text == reference("a", **ask)
        flags = ["--checkpoint", str(tmp_path), "--prompt", "a", "--max_new_tokens", "5"]
        sample.main([*flags, "--temperature", "0"])
        written = capsys.readouterr().out
        assert written == "a" + ("<|im_start|>" * 5 if shown is None else shown) + "\n"


def test_a_model_without_ends_gets_none(tmp_path: Path) -> None:
    """A model without an eos_token_id has no default one, and a bos_token_id must exist."""
    for kind in ("gpt2", "llama", "qwen3"):
        empty = companions.from_files({}, {"model_type": kind}, "m")
        assert empty.ends == frozenset() and empty.kept["eos_token_id"] is None
    make(tmp_path, {"bos_token_id": 999})
    pipe = minigen.pipeline("text-generation", model=str(tmp_path), device="cpu")
    assert pipe.tokenizer.ends == frozenset() and pipe.tokenizer.encode_prompt("") == [300]


@pytest.mark.parametrize("begin", [65, 300])
def test_an_empty_prompt_begins_as_in_transformers(begin: int, tmp_path: Path) -> None:
    """The first token of an empty prompt is shown unless it is a control token."""
    make(tmp_path, {"bos_token_id": begin})
    ask = {"do_sample": False, "max_new_tokens": 5}
    text, reference = (
        pipeline("text-generation", model=str(tmp_path), device="cpu")("", **ask)
        for pipeline in (minigen.pipeline, transformers.pipeline)
    )
    assert text == reference


@pytest.mark.parametrize("stop", ["e", "ll", "<|im_end|>", "<|im_start|>", ["Q", " g"], "t."])
def test_a_stop_string_ends_a_text_as_in_transformers(stop: Any, tmp_path: Path) -> None:
    """A stop string in a token, across tokens or as a control token ends both pipelines' texts."""
    make(tmp_path, {"eos_token_id": None})
    reference = transformers.pipeline("text-generation", model=str(tmp_path), device="cpu")
    pipe = minigen.pipeline("text-generation", model=str(tmp_path), device="cpu")
    for text in ("the goat", "<|im_start|>the", "it"):
        ask = {"do_sample": False, "max_new_tokens": 30, "stop_strings": stop}
        assert pipe(text, **ask) == reference(text, **ask, tokenizer=reference.tokenizer), text


# ---- a checkpoint keeps the companions ----


def same_companions(before: Path, after: Path) -> None:
    """Assert that transformers reads the same companions from two folders."""
    a, b = (AutoTokenizer.from_pretrained(path) for path in (before, after))
    assert (a.chat_template, a.special_tokens_map) == (b.chat_template, b.special_tokens_map)
    assert {k: str(v) for k, v in a.added_tokens_decoder.items()} == {
        k: str(v) for k, v in b.added_tokens_decoder.items()
    }
    text = "<|im_start|>user\nthe goat<|im_end|>"
    assert a(text)["input_ids"] == b(text)["input_ids"]
    old, new = (GenerationConfig.from_pretrained(path).to_dict() for path in (before, after))
    assert old == new
    old, new = (json.loads((path / "config.json").read_text()) for path in (before, after))
    for name in companions.IDS:
        assert old.get(name) == new.get(name)


def test_a_checkpoint_keeps_the_companions_of_its_model(chat: Path, tmp_path: Path) -> None:
    """A checkpoint, the next one of its run, and an export have the companions of the model."""
    (chat / "chat_template.jinja").write_text(TEMPLATE)
    loaded = huggingface.load(chat)
    kept, state = loaded.companions, {"step": 1}
    first = checkpoint.save(tmp_path, loaded.model, loaded.tokenizer, {}, state, kept)
    again = checkpoint.load(first)
    assert again.tokenizer.ends == {300, 302} and again.companions == kept
    second = checkpoint.save(
        tmp_path, again.model(), again.tokenizer, {}, {"step": 2}, again.companions
    )
    lora.add(loaded.model, 2)
    path = str(chat)
    base = {"path": path, "sha256": lora.fingerprint(loaded.model), "config": {}}
    third = checkpoint.save(
        tmp_path, loaded.model, loaded.tokenizer, {}, {"step": 3, "base_model": base}, kept
    )
    prompt = "<|im_start|>user\nthe goat<|im_end|>"
    expected = AutoTokenizer.from_pretrained(chat)(prompt)["input_ids"]
    assert again.tokenizer.encode_prompt(prompt) == expected
    for folder in (first, second, export(third, tmp_path / "exported")):
        same_companions(chat, folder)
    assert (third / "chat_template.jinja").read_text() == TEMPLATE
    (first / "generation_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"generation_config\.json is damaged"):
        checkpoint.load(first)


def test_fine_tuning_keeps_the_companions(
    chat: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signals: None
) -> None:
    """Each checkpoint of a run that fine-tunes a model, also resumed, has the companions."""
    monkeypatch.chdir(tmp_path)
    flags = ["--block_size", "16", "--batch_size", "2", "--device", "cpu", "--compile", "no"]
    flags += ["--data", str(text), "--old_data", str(text), "--name", "tuned"]
    assert train.main(["--init_from", str(chat), "--max_steps", "2", *flags]) == 0
    resume = ["--init_from", "resume", "--name", "tuned", "--max_steps", "3", "--device", "cpu"]
    assert train.main(resume) == 0
    for step in (2, 3):
        same_companions(chat, tmp_path / f"out/tuned/step-{step:06d}")


def test_an_adapter_s_own_tokenizer_is_read(tmp_path: Path) -> None:
    """An adapter's tokenizer is read, and the generation_config.json of its base model."""
    make(tmp_path / "base", {"top_k": 3}, chat_template="of the base")
    make(tmp_path / "adapter", {"top_k": 9}, chat_template="of its own")
    found = companions.read(tmp_path / "base", tmp_path / "adapter", {})
    assert found.generation == {"top_k": 3} and found.tokenizer["chat_template"] == "of its own"


def test_an_adapter_s_tokenizer_without_a_class_is_refused(tmp_path: Path) -> None:
    """An adapter's tokenizer without a class is refused: transformers would read another one."""
    make(tmp_path / "base")
    make(tmp_path / "adapter")
    (tmp_path / "adapter" / "config.json").unlink()
    (tmp_path / "adapter" / "tokenizer_config.json").write_text("{}")
    config = {"peft_type": "LORA", "base_model_name_or_path": str(tmp_path / "base")}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="names its tokenizer_class, so transformers would read"):
        huggingface.load(tmp_path / "adapter")


def test_settings_in_an_old_config_are_kept(tmp_path: Path) -> None:
    """Settings, ends and the tokenizer's class in config.json stay in a checkpoint and export."""
    old = tmp_path / "old"
    make(old)
    settings = {"repetition_penalty": 1.9, "eos_token_id": None, "tokenizer_class": "GPT2Tokenizer"}
    edit(old / "config.json", **settings)
    (old / "tokenizer_config.json").write_text("{}")
    loaded = huggingface.load(old)
    path = checkpoint.save(
        tmp_path, loaded.model, loaded.tokenizer, {}, {"step": 1}, loaded.companions
    )
    folders = old, path, export(path, tmp_path / "exported")
    ask = {"do_sample": False, "max_new_tokens": 20}
    texts = [
        pipeline("text-generation", model=str(folder), device="cpu")("the  goat\n\n123", **ask)
        for folder in folders
        for pipeline in (minigen.pipeline, transformers.pipeline)
    ]
    assert all(text == texts[0] for text in texts)


def test_an_older_checkpoint_without_companions_loads(chat: Path, tmp_path: Path) -> None:
    """A checkpoint without the model's companions loads with the same tokenizer."""
    loaded = huggingface.load(chat)
    assert loaded.tokenizer is not None
    path = checkpoint.save(tmp_path, loaded.model, loaded.tokenizer, {}, {"step": 1})
    found = checkpoint.load(path)
    assert found.tokenizer.fingerprint == loaded.tokenizer.fingerprint
    assert found.tokenizer.ends == {found.tokenizer.end_of_text} == {300}
    assert found.companions.files.keys() == {"tokenizer_config.json"}


# ---- the check ----


def test_the_check_sees_other_ends_and_settings(chat: Path) -> None:
    """The check fails if minigen's ends of a text or its settings differ from transformers'."""
    found = {one.what: one for one in parity.check(chat)}
    assert all(one.agrees for one in found.values()), found
    assert "16 of 16" in found["tokenizer, size"].verdict
    assert found["ends of a text"].minigen == "[300, 302]"
    loaded = huggingface.load(chat)
    reference = transformers.AutoModelForCausalLM.from_pretrained(chat)
    assert loaded.tokenizer is not None
    loaded.tokenizer.ends = frozenset([300])
    reference.generation_config.repetition_penalty = 5.0
    _, ends, written = parity._compare_texts(loaded, reference)
    assert not ends.agrees and not written.agrees
