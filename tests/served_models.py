"""The models that tests serve: runs of the real command line, and one with GPT-2's vocabulary size.

RUNS names them: `tales`, a model of tales with a checkpoint every 20 steps; `letters`, a model
of a text with 65 different characters; `pictures` and `tunes`, which have hardly been trained;
`markup`, which writes MARKUP again and again; and `wide`, a random model with GPT-2's 50,257
tokens.
"""

from __future__ import annotations

import os
import random
import string
from pathlib import Path

from filelock import FileLock
from forks import ROOT, Server
from models import varied_model

from minigen.corpora import pictures, tales, tunes
from minigen.files import checkpoint
from minigen.model import GPTConfig
from minigen.tokenizer import train_tokenizer

RUNS = ("tales", "letters", "pictures", "tunes", "markup", "wide")
SHAPE = "--n_layer 2 --n_head 2 --n_embd 32 --batch_size 8 --eval_tokens 500 --keep_checkpoints"
SHAPE += " --dropout 0.1 --weight_decay 0.1"
FLAGS = {
    "tales": "--vocab_size 512 --block_size 64 --max_steps 60 --eval_interval 20",
    "letters": "--tokenizer char --block_size 32 --max_steps 30 --eval_interval 30",
    "pictures": "--block_size 96 --max_steps 4 --eval_interval 4",
    "tunes": "--block_size 96 --max_steps 4 --eval_interval 4",
    "markup": "--tokenizer char --block_size 64 --max_steps 60 --eval_interval 60",
}
TEXTS = ("letters", "markup")  # trained on a text of the tests, not on a corpus
N_LETTERS = 65  # different characters in the text of `letters`
N_WIDE = 50257  # tokens of GPT-2
# A page that took it for HTML would have the title "broken".
MARKUP = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>"


def make_runs(folder: Path, server: Server) -> Path:
    """Train the models of RUNS, unless another process has; return the folder of the runs.

    Args:
        folder: a folder that all processes of this session of pytest share.
    """
    home = folder / "served"
    with FileLock(folder / "served.lock"):
        if not (home / "out").exists():
            train_all(home, server)
            save_wide(home / "making" / "wide")
            (home / "making").rename(home / "out")
    return home / "out"


def environment(home: Path) -> dict[str, str]:
    """Return the environment in which commands find this project and small corpora."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "MINIGEN_DATA": str(home / "data")}


def train_all(home: Path, server: Server) -> None:
    """Train the models of FLAGS in `home/making` with the command line, all at the same time."""
    for corpus in (tales, pictures, tunes):
        corpus.write(home / "data" / corpus.__name__.split(".")[-1], 60_000, 20_000)
    write_letters(home / "letters.txt")
    (home / "markup.txt").write_text(MARKUP * 80, encoding="utf-8")
    trials = []
    for name, flags in FLAGS.items():
        data = str(home / f"{name}.txt") if name in TEXTS else name
        words = [*SHAPE.split(), *flags.split(), "--data", data]
        words += ["--out_dir", "making", "--name", name]
        trials.append(
            server.start_python(ROOT / "train.py", *words, cwd=home, env=environment(home))
        )
    for trial in trials:
        assert trial.wait(240) == 0, trial.output()


def write_letters(path: Path) -> None:
    """Write a text of N_LETTERS different characters, in words of two to six letters."""
    letters = [*(string.ascii_letters + string.digits + ".?")][: N_LETTERS - 1]
    rng = random.Random(0)
    words = ["".join(rng.choices(letters, k=rng.randint(2, 6))) for _ in range(3000)]
    path.write_text(" ".join([*letters, *words]), encoding="utf-8")


def save_wide(run: Path) -> None:
    """Save a random model with N_WIDE tokens: that many characters but one, and END_OF_TEXT."""
    characters = "".join(map(chr, [*range(32, 127), *range(0xA1, 0xD7A4)]))[: N_WIDE - 1]
    tokenizer = train_tokenizer("char", [characters])
    model = varied_model(GPTConfig.modern(tokenizer.n_vocab, 32, 1, 2, 16))
    checkpoint.save(run, model, tokenizer, {}, {"step": 1, "val_loss": 1.0})
