"""Run an experiment and compare its figure: `python -m minigen experiment no_residual`

    python -m minigen experiment                        # the list, with the figures to expect
    python -m minigen experiment no_residual            # one experiment: about a minute
    python -m minigen experiment no_residual --answer   # the answer to its question

An experiment trains a small model for a fixed number of steps, so that its loss does not depend on
the speed of the machine, and in float32, which each machine has. docs/experiments.md has the table.
"""

from __future__ import annotations

import difflib
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from tyro.conf import Positional

from minigen.cli import parse
from minigen.corpora.command import main as write_corpus
from minigen.errors import UserError
from minigen.evaluation.command import EvaluateConfig, compare_samples, find_texts
from minigen.learn.experiment import (
    DEVIATIONS,
    DISTINCT,
    LOSS,
    VALID,
    Expected,
    Experiment,
    Replacement,
    changed,
    last_loss,
)
from minigen.model import GPT, Block, LayerCache, RMSNorm
from minigen.run.library import TrainedRun, train
from minigen.system.shell import command

# ---- changes of the model ----

_initialise = GPT.initialise


def _replaces_the_stream(
    self: Block,
    x: Tensor,
    cos_sin: tuple[Tensor, Tensor] | None,
    mask: Tensor | None = None,
    cache: LayerCache | None = None,
) -> Tensor:
    x = self.dropout(self.attention(self.attention_norm(x), cos_sin, mask, cache))
    x = self.dropout(self.mlp(self.mlp_norm(x)))
    return x


def _initialise_without_zeros(self: GPT) -> None:
    _initialise(self)  # sets `output` and `down` to zero: without the sums, nothing would pass
    for name, p in self.named_parameters():
        if name.endswith(("output.weight", "down.weight")):
            nn.init.normal_(p, std=0.5 / math.sqrt(p.shape[1]))


def _turns_nothing(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return x


def _norms_nothing(self: RMSNorm, x: Tensor) -> Tensor:
    return x


def _sees_the_future(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, mask, dropout)


def _does_not_scale(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: float = 0.0
) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=mask is None, scale=1.0)


# ---- the experiments ----

STEPS = 600
TALES: dict[str, Any] = {"max_steps": STEPS, "dtype": "float32", "eval_tokens": 20_000}
# A short text would get other settings: these are the ones of a run on all tales.
SHORT = TALES | {"size": "tiny", "vocab_size": 2048, "dropout": 0.0, "weight_decay": 0.1}
SHAKESPEARE = SHORT | {"data": "shakespeare", "eval_tokens": 100_000}  # all validation text

EXPERIMENTS = (
    Experiment(
        "base",
        question="How near does a small model come to the entropy of the tales, 0.1553 bits/byte?",
        think="The loss of a model that knows nothing is 2.24 bits/byte. Which part of the way "
        "did the first fifth of the steps take? Then run it with --seed 2: its samples name one "
        "mood in the first line and another one after it. What has that model not learnt yet?",
        answer="After 600 steps the seeds 0 and 1 are about 2 % above the entropy, which no model "
        "can beat on new text. The first fifth of the steps takes most of the way: which tokens "
        "are frequent, and which follows which. The others learn what is far apart, such as to "
        "take the names from the first line. Seed 2 ends 7 % above: its model takes everything "
        "from the first line but the mood, so nearly each of its tales is wrong. Such a rule is "
        "learnt within a few steps, and when depends on the seed, so a small difference between "
        "two runs says little. With --minutes 2 the loss ends 1.3 % above the entropy.",
        flags=TALES,
    ),
    Experiment(
        "no_mask",
        question="What if a token may see the tokens after it, too?",
        think="The loss is far below the entropy of the text, where no honest model can be. Read "
        "the samples that the run has printed. What has the model learnt?",
        answer="The token to predict is the next one of the input, so the model copies it: the "
        "loss does not show its knowledge. When the model writes there is no next token, and the "
        "samples are nonsense. A loss below the entropy of the text always means that the answer "
        "has leaked. The mask hides the later tokens, so that one pass trains all positions.",
        base="base",
        flags=TALES,
        replacements=(Replacement("minigen.model:attention", _sees_the_future),),
    ),
    Experiment(
        "no_positions",
        question="What if queries and keys are not turned, so that a score knows no distance?",
        think="The loss is higher, and yet nearer to that of the base than to a model that sees "
        "a set of words. From where does the model know anything about the order?",
        answer="The mask is left. The first token sees only itself, the second sees two, so the "
        "mean that a token gathers depends on the number of tokens before it, and the second "
        'block can use that. "The token just before" is hard to find in this way, so the curve '
        "falls late. (test_attention_by_itself_sees_a_set: without the mask, too, nothing of the "
        "order would be left.)",
        base="base",
        flags=TALES,
        replacements=(Replacement("minigen.model:apply_rope", _turns_nothing),),
    ),
    Experiment(
        "no_residual",
        question="What if a block replaces the vectors instead of adding to them?",
        think="There are only two blocks. Through how many matrices must the identity of a token "
        "pass to reach the end, and the gradient to reach the beginning?",
        answer="Each block must carry everything that later ones need through its own matrices, "
        'which begin at random: even "which token is this?" has to be learnt again. In the '
        "base the sum carries it for free. The matrices that start as zeros have to start at "
        "random here, or no gradient would ever pass: zeros are possible only beside a sum.",
        base="base",
        flags=TALES,
        replacements=(
            Replacement("minigen.model:Block.forward", _replaces_the_stream),
            Replacement("minigen.model:GPT.initialise", _initialise_without_zeros),
        ),
    ),
    Experiment(
        "no_norm",
        question="What if no norm scales the vectors, the queries and the keys?",
        think="The first evaluations are far above those of the base, the last one is not. The "
        "first norm after the embedding makes vectors of size 0.2 five times longer: could a "
        "larger start replace it? Why is it harder with 24 blocks?",
        answer="Two blocks can be trained without norms, only later: the vectors are small at "
        "first, so scores are near 0, all keys get the same weight, and attention learns slowly. "
        "Nor does anything keep sizes in bounds. With two blocks the weights can make up for "
        "that; the more blocks multiply the sizes, the harder it is. A norm gives each layer an "
        "input of size 1, whatever the others do.",
        base="base",
        flags=TALES,
        replacements=(Replacement("minigen.model:RMSNorm.forward", _norms_nothing),),
    ),
    Experiment(
        "no_scale",
        question="What if scores are not divided by sqrt(D)?",
        think="Queries and keys are normed, so a score may be 64 here, instead of 8 at most. What "
        "does softmax do with such scores, and what is its gradient where one weight is nearly "
        "1?",
        answer="Softmax gives nearly all weight to one key from the start, and that is rarely the "
        "right one. There its gradient is nearly 0, so the choice is hardly revised, and the "
        "model learns late to copy from the first line: read in the samples which names change. "
        "Divided by sqrt(D), scores have the size 1 for heads of any width "
        "(test_scores_keep_their_size).",
        base="base",
        flags=TALES,
        replacements=(Replacement("minigen.model:attention", _does_not_scale),),
    ),
    Experiment(
        "four_heads",
        question="What if each block has four attention heads instead of two?",
        think="The heads are as wide as before, so the model has a fifth more parameters. What can "
        "four heads look for at once? Compare the seeds, and the time.",
        answer="The loss is about as low as with two heads, and hardly differs from seed to seed: "
        "each of the three runs has found all rules of the tales in time, and of two heads one "
        "run of three has not. More heads are more chances that one of them begins near a useful "
        "pattern. A step takes longer, so in equal time the gain is smaller.",
        base="base",
        flags=TALES | {"n_head": 4},
    ),
    Experiment(
        "one_head",
        question="What if each block has one attention head instead of four?",
        think="A head takes one weighted mean. To write a tale, a token has to look for the token "
        "before it and for words of the first line. Compare the seeds: does each end higher?",
        answer="Two of three runs end higher, and one does not: even one head in each of two "
        "blocks can learn all rules, as the second block can use what the first has gathered. It "
        "takes luck, though; four heads found the rules with each seed. Two runs would have told "
        "you one or the other, which is why a figure has three.",
        base="four_heads",
        flags=TALES | {"n_head": 1},
    ),
    Experiment(
        "gpt2_layers",
        question="What if the layers are those of 2019 (GPT-2) instead of 2025 (Qwen3)?",
        think="Six switches of GPTConfig change at once, and heads are 32 wide instead of 64. "
        "Which of them makes the difference, and how would you find out? Is one learning rate "
        "fair to both?",
        answer="The curve stands still near 0.3 for most of the run, and falls late, with one "
        "seed hardly at all: the model learns late to use earlier tokens. Narrow heads, queries "
        "and keys that are not normed, and a learnt vector for each position can each be a "
        "reason; only one change at a time would tell. The steps are faster, and the parameters "
        "fewer, as the embedding is lm_head, too.",
        base="base",
        flags=TALES | {"architecture": "gpt2"},
    ),
    Experiment(
        "adamw",
        question="What if AdamW trains the matrices, too, instead of Muon?",
        think="Is it fair to compare two optimisers at one learning rate? Try 0.003 and 0.03. What "
        "does a step of Muon cost in time?",
        answer="AdamW treats each weight by itself, and its steps follow the few directions that "
        "every batch asks for. Muon makes all directions of a matrix equally large, so rare ones "
        "are learnt as fast. In the middle of the run AdamW is far above; at the end the best of "
        "three seeds is as good as Muon's, and the others have not found each rule yet. One rate "
        "is fair to both only if it suits both, so try several.",
        base="base",
        flags=TALES | {"optimizer": "adamw"},
    ),
    Experiment(
        "rate_times_ten",
        question="What if the learning rate is ten times higher, 0.1 instead of 0.01?",
        think="Compare the loss at each evaluation with that of the base. What happens as the "
        "rate falls at the end? And a rate ten times lower: try --learning_rate 0.001 in the "
        "command above.",
        answer="The loss is above that of the base at each evaluation: each step overshoots, and "
        "the weights circle far around the best ones. As the rate falls, they settle, and the "
        "loss falls too, but the run is over before it is low. Seeds differ more than those of "
        "the base: it depends on chance which rules are found in the end. Nothing explodes: "
        "gradients are clipped, queries and keys are normed, and a step has about the same size "
        "whatever the gradient is.",
        base="base",
        flags=TALES | {"learning_rate": 0.1},
    ),
    Experiment(
        "high_rate",
        question="What if AdamW has a learning rate three times higher, 0.03?",
        think="Compare with rate_times_ten, where Muon has a rate of 0.1. Which of the two "
        "optimisers forgives more, and why?",
        answer="It ends about where Muon does at 0.1: AdamW bears a third of that rate. A step of "
        "AdamW moves each weight by up to about the learning rate, and where gradients agree, "
        "many weights move together in the few directions that all batches ask for. Muon makes "
        "every direction of a matrix equally large, and none of them much too large.",
        base="adamw",
        flags=TALES | {"optimizer": "adamw", "learning_rate": 0.03},
    ),
    Experiment(
        "no_warmup",
        question="What if AdamW begins at that rate at once, without a warm-up?",
        think="Only 20 of 600 steps are different. When do the curves part, and can the run make "
        "up for it? Try it with the rate 0.01, and with Muon.",
        answer="At first AdamW divides by averages of a few gradients, and a full step along them "
        "is a step at random: it spoils weights that the run then has to repair. Each of the "
        "three runs without a warm-up ends above each of the three with one. At the rate 0.01 "
        "the first steps are small enough: a run without a warm-up ended at 0.1684, among those "
        "with one.",
        base="high_rate",
        flags=TALES | {"optimizer": "adamw", "learning_rate": 0.03, "warmup_steps": 0},
    ),
    Experiment(
        "tenth_of_the_text",
        question="What if the model trains on a tenth of the tales?",
        think="The run takes as many steps as the base, so it reads each tale ten times as often. "
        "Compare the training loss with the validation loss. What would a longer run do?",
        answer="Up to step 240 the loss is nearly that of the base. From there the training loss "
        "falls far below, and the validation loss rises: the model learns these 230 tales by "
        "heart, and that helps with no other. A longer run would be worse, and more text helps "
        "most. For so short a text, train.py would choose a higher --weight_decay.",
        base="base",
        flags=SHORT,
        n_tales=230,
    ),
    Experiment(
        "short_text",
        question="What does a model learn from 80 tales that it reads again and again?",
        think="When is the validation loss lowest, and what does the training loss do from there?",
        answer="At the first evaluation, after 8 passes over the text, the loss is lowest. Then "
        "it rises to almost twice of that, while the training loss falls to nearly 0: the model "
        "knows the 80 tales by heart, and finds new ones ever more surprising. The last "
        "checkpoint is the worst, so train.py keeps the best one, too.",
        flags=SHORT,
        n_tales=80,
    ),
    Experiment(
        "dropout",
        question="Does dropout help on 80 tales?",
        think="Compare both losses at each evaluation with those of short_text. How does "
        "dropout change the training loss, and why? Where would you stop?",
        answer="It helps much. Numbers that are zeroed at random make it hard to recognise a "
        "tale, and a rule that holds in all tales is of more use: the training loss stays "
        "higher, the validation loss rises later and less, and even its lowest point is lower. "
        "It does not replace text: a tenth of the tales, without dropout, is better. And where a "
        "text is read only a few times, dropout only slows the learning.",
        base="short_text",
        flags=SHORT | {"dropout": 0.2},
        n_tales=80,
    ),
    Experiment(
        "vocabulary_2048",
        question="How well does the same small model predict Shakespeare, with 2,048 tokens?",
        think="bzip2, which only finds repetitions, needs 2.27 bits/byte. Read the samples: does "
        "the model know words, lines, persons?",
        answer="After 600 steps of 1,024 tokens the model has read each part of the text about "
        "twice, and predicts it about as well as bzip2. It knows words and the form of a play, "
        "and hardly what is said. A longer run and a larger model help: --minutes 2 without "
        "--size and --max_steps ends near 2.1 bits/byte.",
        flags=SHAKESPEARE,
    ),
    Experiment(
        "vocabulary_300",
        question="What if the vocabulary has 300 tokens: the bytes and 43 merges?",
        think="A step has 1,024 tokens with any vocabulary. How many bytes of text are that "
        "here, and how many words does a context of 256 tokens hold? Compare the losses in "
        "nats/token, too.",
        answer="The loss per token is lower, 2.3 instead of 4.0 nats, as a token is short and "
        "easy to guess; bits per byte are higher. A token is 1.4 bytes instead of 2.6 here, so "
        "the same steps read half the text, and the context holds half the words. A step is "
        "faster, as lm_head has fewer rows. A fair comparison needs equal time, or equal text: "
        "how many steps would that be?",
        base="vocabulary_2048",
        flags=SHAKESPEARE | {"vocab_size": 300},
    ),
    Experiment(
        "vocabulary_8000",
        question="What if the vocabulary has 8,000 tokens?",
        think="Compare the steps per second. How often does a text of 285,000 tokens have a "
        "token, on average, if there are 8,000?",
        answer="Longer tokens let the same steps read more text, so the loss is about as low. But "
        "a step takes twice as long, as lm_head multiplies with 8,000 rows, and a token occurs "
        "36 times on average, most of them less: too seldom to be learnt well. In the same time, "
        "twice the steps with 2,048 tokens may be better. The best vocabulary grows with the "
        "text and with the model.",
        base="vocabulary_2048",
        flags=SHAKESPEARE | {"vocab_size": 8000},
    ),
    Experiment(
        "temperature",
        question="At which temperature does a model write tales that are both right and new?",
        think="Each row is the same model. Why do valid tales become fewer, and distinct triples "
        "of words more? Which temperature would you take for tales, and which for sums?",
        answer="A temperature T makes p into p^(1/T), divided by the sum: below 1 the probable "
        "tokens gain, above 1 the improbable ones, among them many that the grammar forbids. A "
        "tale has about 185 tokens, so one mistake in 200 tokens spoils most tales. At 0.2 "
        "nearly all chance is gone: more tales are right, and they repeat each other. sample.py "
        "has 0.8, and also cuts improbable tokens (--min_p 0.1), which this experiment switches "
        "off. After 600 steps instead of 1,200, 3 of 100 tales of seed 2 were right at 0.2, as "
        "it had not yet learnt to take the mood from the first line: no temperature mends that.",
        flags=TALES | {"max_steps": 1200},  # after 600, some seeds break one rule in each tale
        temperatures=(0.2, 0.8, 1.0, 1.5),
    ),
)
BY_NAME = {each.name: each for each in EXPERIMENTS}

# The figures of the seeds 0, 1 and 2, by experiment.
FIGURES: dict[str, dict[str, Expected]] = {
    "base": {LOSS: Expected((0.1586, 0.1589, 0.1665))},
    "no_mask": {LOSS: Expected((0.0011, 0.0011, 0.0017))},
    "no_positions": {LOSS: Expected((0.1719, 0.1732, 0.1735))},
    "no_residual": {LOSS: Expected((0.2761, 0.2481, 0.2656))},
    "no_norm": {LOSS: Expected((0.1681, 0.1849, 0.1722))},
    "no_scale": {LOSS: Expected((0.1994, 0.2153, 0.1993))},
    "four_heads": {LOSS: Expected((0.1581, 0.1584, 0.1586))},
    "one_head": {LOSS: Expected((0.1661, 0.1690, 0.1589))},
    "gpt2_layers": {LOSS: Expected((0.2017, 0.2347, 0.2766))},
    "adamw": {LOSS: Expected((0.1608, 0.1784, 0.1821))},
    "rate_times_ten": {LOSS: Expected((0.1889, 0.2035, 0.2450))},
    "high_rate": {LOSS: Expected((0.2461, 0.2450, 0.2056))},
    "no_warmup": {LOSS: Expected((0.2659, 0.2508, 0.2605))},
    "tenth_of_the_text": {LOSS: Expected((0.2438, 0.2400, 0.2435))},
    "short_text": {LOSS: Expected((0.5890, 0.5923, 0.6106))},
    "dropout": {LOSS: Expected((0.3057, 0.3105, 0.3062))},
    "vocabulary_2048": {LOSS: Expected((2.2319, 2.2506, 2.2324))},
    "vocabulary_300": {LOSS: Expected((2.4438, 2.4530, 2.4244))},
    "vocabulary_8000": {LOSS: Expected((2.2217, 2.2192, 2.2428))},
    "temperature": {
        f"{VALID} at 0.2": Expected((1.0000, 1.0000, 1.0000), 2),
        f"{DISTINCT} at 0.2": Expected((0.3357, 0.3641, 0.3495), 2),
        f"{VALID} at 0.8": Expected((0.8500, 0.9100, 0.9100), 2),
        f"{DISTINCT} at 0.8": Expected((0.4137, 0.4157, 0.4151), 2),
        f"{VALID} at 1": Expected((0.5600, 0.5300, 0.5200), 2),
        f"{DISTINCT} at 1": Expected((0.4240, 0.4212, 0.4216), 2),
        f"{VALID} at 1.5": Expected((0.0000, 0.0000, 0.0000), 2),
        f"{DISTINCT} at 1.5": Expected((0.5253, 0.5264, 0.4911), 2),
    },
}

N_VAL_TALES = 200  # of the text that a run on a short text is validated on
N_SAMPLES = 100  # tales that a model writes at each temperature


@dataclass(frozen=True)
class ExperimentConfig:
    """Train a small model with one change, and compare its figure with the expected one.

    Without a name, the command lists all experiments.
    """

    name: Positional[str | None] = None  # the experiment (default: list all)
    answer: bool = False  # print the answer to the experiment's question, and train nothing
    seed: int = 0  # start of all random numbers; the expected figures are of 0, 1 and 2
    # a text of your own, for which no figure is expected (default: that of the experiment)
    data: tuple[str, ...] = ()
    max_steps: int | None = None  # number of steps (default: that of the experiment)
    out_dir: str = "out/experiments"  # the folder of the runs
    threads: int | None = None  # CPU threads (default: one for each core that is free)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command with the arguments `argv`; None: with the arguments of the process."""
    config = parse(ExperimentConfig, argv)
    if config.name is None:
        print(listing())
        return
    experiment = find(config.name)
    print(paragraph(f"{experiment.name}: {experiment.question}"))
    if config.answer:
        print("\n" + paragraph(experiment.answer))
        return
    flags = flags_of(experiment, config)
    print(description(experiment, flags, config), flush=True)  # before the lines of the run
    figures = measure(experiment, flags, config)
    print("\n" + "\n".join(comparison(experiment, figures, is_comparable(config))))
    print("\n" + paragraph(f"Think: {experiment.think}"))
    answer = command("experiment", experiment.name, "--answer")
    print(f"The answer: {answer}")


def find(name: str) -> Experiment:
    """Return the experiment of a name. Raises `UserError` for an unknown one."""
    if name in BY_NAME:
        return BY_NAME[name]
    near = difflib.get_close_matches(name, BY_NAME, n=1)
    mend = f"did you mean {near[0]}?" if near else f"the experiments are {', '.join(BY_NAME)}"
    raise UserError(f"there is no experiment {name!r}; {mend}")


def paragraph(text: str) -> str:
    """Return a text in lines of at most 80 characters."""
    return textwrap.fill(text, 80, break_on_hyphens=False)


def listing() -> str:
    """Return the list of experiments: the name, the figures to expect, the question."""
    lines = ["Each experiment takes about a minute: python -m minigen experiment NAME"]
    for each in EXPERIMENTS:
        expected = "; ".join(f"{name} {one}" for name, one in FIGURES[each.name].items())
        lines += ["", each.name, paragraph(each.question), paragraph(f"expect: {expected}")]
    return "\n".join(lines)


# ---- the run ----


def flags_of(experiment: Experiment, config: ExperimentConfig) -> dict[str, Any]:
    """Return the flags of train.py for a run of the experiment."""
    flags = {**experiment.flags, "seed": config.seed}
    flags |= {"out_dir": config.out_dir, "name": experiment.name}
    if config.data:
        flags["data"] = config.data
    elif experiment.n_tales is not None:
        data, val_data = (text_path(experiment, split, config) for split in ("train", "val"))
        flags |= {"data": data, "val_data": val_data, "separator": r"\n\n"}
    for name in ("max_steps", "threads"):
        if getattr(config, name) is not None:
            flags[name] = getattr(config, name)
    return flags


def text_path(experiment: Experiment, split: str, config: ExperimentConfig) -> str:
    """Return the path of a short text of tales, to train on or to validate on."""
    count = experiment.n_tales if split == "train" else N_VAL_TALES
    return str(Path(config.out_dir, f"{split}-{count}-tales.txt"))


def text_commands(experiment: Experiment, config: ExperimentConfig) -> list[list[str]]:
    """Return the words of the commands `corpus` that write the text of an experiment."""
    if experiment.n_tales is None or config.data:
        return []
    return [
        ["tales", "--count", str(count), "--split", split,
         "--save", text_path(experiment, split, config)]
        for split, count in (("train", experiment.n_tales), ("val", N_VAL_TALES))
    ]  # fmt: skip


def as_words(flags: Mapping[str, Any]) -> list[str]:
    """Return flags as the words of a command line."""
    words = list[str]()
    for name, value in flags.items():
        values = value if isinstance(value, tuple) else (value,)
        words += [f"--{name}", *map(str, values)]
    return words


def description(experiment: Experiment, flags: Mapping[str, Any], config: ExperimentConfig) -> str:
    """Return the code that an experiment changes, and the commands that it is."""
    lines = []
    for each in experiment.replacements:
        before, after = each.sources()
        lines += ["", f"Instead of {each.target.partition(':')[2]} in {each.file}:", "", before]
        lines += ["", "this run, and no other, computes:", "", after]
    train_command = command("train", *as_words(flags))
    commands = [command("corpus", *words) for words in text_commands(experiment, config)]
    if experiment.replacements:
        lines += ["", f"Otherwise it is: {train_command}"]
        lines += ["Its weights are not saved, as no other command would know of the change."]
    else:
        lines += ["", "The experiment is this, to copy:", "", *commands, train_command]
        lines += [command("evaluate", str(flags["name"]), *as_words(judging(t, flags)))
                  for t in experiment.temperatures]  # fmt: skip
    return "\n".join([*lines, ""])


def judging(temperature: float, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flags of `evaluate` that judge tales which a run writes at a temperature."""
    return {
        "out_dir": flags["out_dir"], "temperature": temperature, "min_p": 0.0, "count": N_SAMPLES,
    }  # fmt: skip


def measure(
    experiment: Experiment, flags: Mapping[str, Any], config: ExperimentConfig
) -> dict[str, float]:
    """Do an experiment, and return its figures by name. Ctrl-C ends the process."""
    Path(config.out_dir).mkdir(parents=True, exist_ok=True)
    for words in text_commands(experiment, config):
        write_corpus(words)
    with changed(experiment.replacements):
        run = train(**flags)
    if run.interrupted:
        raise SystemExit(130)
    if experiment.temperatures:
        return shares(run, experiment.temperatures, flags)
    return {LOSS: last_loss(run.metrics)}


def shares(
    run: TrainedRun, temperatures: Sequence[float], flags: Mapping[str, Any]
) -> dict[str, float]:
    """Return how many of a run's tales obey the grammar at each temperature, and how they vary."""
    figures, texts = dict[str, float](), None
    for each in temperatures:
        words = as_words(judging(each, flags))
        config = parse(EvaluateConfig, [str(run.folder), *words], words="run")
        texts = texts or find_texts(config, run.engine)._replace(training=None)  # seeks no copies
        samples = compare_samples(config, run.engine, texts).samples
        assert samples.genre is not None and samples.repetition.distinct_3 is not None
        figures[f"{VALID} at {each:g}"] = samples.genre.valid
        figures[f"{DISTINCT} at {each:g}"] = samples.repetition.distinct_3
    return figures


# ---- the comparison ----


def is_comparable(config: ExperimentConfig) -> bool:
    """Return whether a run has the text and the steps of the runs whose figures are expected."""
    return not config.data and config.max_steps is None


def comparison(experiment: Experiment, figures: Mapping[str, float], comparable: bool) -> list[str]:
    """Return a table of the figures of a run beside those to expect."""
    rows = [("", "figure", "this run", "expected", "")]
    if experiment.base is not None:
        of_base = FIGURES[experiment.base]
        rows += [(experiment.base, name, "", str(one), "") for name, one in of_base.items()]
    for name, figure in figures.items():
        one = FIGURES[experiment.name][name]
        verdict = "as expected" if one.covers(figure) else "not as expected"
        shown = one.shown(figure)
        rows.append((experiment.name, name, shown, str(one), verdict if comparable else ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    if comparable:
        note = (
            "Expected: the mean of three seeds (the lowest to the highest). A figure within "
            f"{DEVIATIONS} standard deviations of the mean is as expected: 95 of 100 runs are."
        )
    else:
        note = "The expected figures are of another text or number of steps, so they do not apply."
    return [*lines, paragraph(note)]
