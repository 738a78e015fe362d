"""Text to tokens to batches, in little memory, however long the text is.

This folder contains code; the texts lie in data/, beside minigen/.

The lesson is three files, each of which begins with its idea in a few naive lines:

    text.py        text       --split_documents-->  documents    `naive_documents`
    tokens.py      documents  --encode-->           token ids    `naive_tokens`
    batches.py     token ids  --windows, sliding--> batches      `naive_windows`, `naive_sliding`

Three files teach a model to answer, instead of to continue a text:

    pair_lines.py  JSON Lines  --parts_of-->    prompts and answers
    template.py    messages    --render-->      prompts and answers
    pairs.py       prompts and answers  -->     batches             `naive_batch`

One lets a model forget less of an old text while it learns a new one:

    mixture.py     two texts            -->     batches

The other files may be skipped. They let a text be larger than memory, tokenise it only once, and
notice mistakes:

    json_lines.py    a file that holds a document in each line
    parquet.py       the same in the tables of many data sets
    token_files.py   token ids that another program has written
    text_range.py    which characters of which files are read: to train on, and to validate on
    vocabulary.py    a tokenizer is trained on a sample of a text
    shards.py        token ids are written to files, and writing continues after an interruption
    token_stream.py  token ids are read from these files
    cache.py         `prepare` does all of this for a corpus, or returns an earlier result
    notes.py         notes on a text that may be read in another way than its owner means it
"""

from minigen.data.cache import prepare, tokens_of_files, write_tokens
from minigen.data.mixture import Mixture
from minigen.data.notes import notes_on_text, opening
from minigen.data.pair_lines import are_pairs
from minigen.data.pairs import Pairs, prepare_pairs
from minigen.data.text_range import scan
from minigen.data.token_stream import TokenStream

__all__ = [
    "Mixture",
    "Pairs",
    "TokenStream",
    "are_pairs",
    "notes_on_text",
    "opening",
    "prepare",
    "prepare_pairs",
    "scan",
    "tokens_of_files",
    "write_tokens",
]
