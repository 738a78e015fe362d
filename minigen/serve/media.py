"""Documents of a genre as they are written: pictures to draw, tunes to play, and verdicts."""

from __future__ import annotations

import base64
import itertools
import random
from collections import Counter
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from minigen.corpora import genre
from minigen.corpora.pictures import render
from minigen.corpora.tunes import abc_notation, sound, to_abc
from minigen.errors import UserError
from minigen.serve.body import Body, read_body
from minigen.serve.models import Models
from minigen.serve.worker import Worker

MAX_CHARS = 10_000  # of a document; a grammar writes none that has a fifth of them
MAX_COMPLAINTS = 20  # in an answer
MAX_TONES, MAX_SECONDS = 5000, 600  # of a tune that is played
CELL = 4  # pixels along the side of a cell of a picture


@dataclass(frozen=True)
class Media:
    """The answers about documents."""

    models: Models
    worker: Worker

    def routes(self) -> list[Route]:
        """Return the addresses that the page asks."""
        return [
            Route("/api/document", self.document, methods=["POST"]),
            Route("/api/genres", self.genres, methods=["POST"]),
            Route("/api/first_line", self.first_line, methods=["POST"]),
        ]

    async def document(self, request: Request) -> Response:
        """Answer with the verdict on a text, and with its picture or its notes so far."""
        body = await read_body(request)
        text: str = body.text("text")
        if len(text) > MAX_CHARS:
            raise UserError(f"text has {len(text):,} characters; give at most {MAX_CHARS:,}")
        return JSONResponse(await run_in_threadpool(judge, text))

    async def genres(self, request: Request) -> Response:
        """Answer with the genres that a model was trained on, and the words of each first line."""
        found = self._genres_of_model(await read_body(request))
        return JSONResponse(
            {
                "genres": [
                    {
                        "noun": each.NOUN,
                        "fields": {field: [*words] for field, words in each.FIELDS.items()},
                    }
                    for each in found
                ]
            }
        )

    async def first_line(self, request: Request) -> Response:
        """Answer with a first line that states `conditions`; `seed` draws the other fields."""
        body = await read_body(request)
        found = {each.NOUN: each for each in self._genres_of_model(body)}
        noun, conditions = body.text("noun"), body.fields.get("conditions", {})
        if noun not in found:
            raise UserError(f"the model was trained on no {noun!r}; its documents: {[*found]}")
        is_text = isinstance(conditions, dict) and all(
            isinstance(word, str) for word in conditions.values()
        )
        if not is_text:
            raise UserError("conditions is not an object of words")
        rng = random.Random(body.integer("seed", 0, 0, 2**53 - 1))
        return JSONResponse({"text": found[noun].condition(conditions, rng)})

    def _genres_of_model(self, body: Body) -> list[genre.Genre]:
        return genre.genres_of_model(self.models.get(body.text("model", None)).state)


def judge(text: str) -> dict[str, Any]:
    """Return the verdict on a text, and its picture or its notes as far as they are written.

    A text that begins as no document of a genre has the genre None.
    """
    kind = genre.detect_for_saving(text)
    if kind is None:
        return {"genre": None, "verdict": None}
    verdict = asdict(kind.check(text))
    verdict["n_complaints"] = len(verdict["complaints"])
    verdict["complaints"] = verdict["complaints"][:MAX_COMPLAINTS]
    answer: dict[str, Any] = {"genre": kind.NOUN, "verdict": verdict}
    if kind.NOUN == "picture":
        answer["picture"] = picture(text)
    elif kind.NOUN == "tune":
        answer["tune"] = tune(text)
    return answer


def picture(text: str) -> dict[str, Any]:
    """Return the image of a picture so far: its size in pixels, and its pixels in base64.

    `filled` has the number of cells that each row has.
    """
    image = render.pixels(text, CELL)
    _, *rows = text.strip("\n").split("\n")
    filled = [min(len(render.cells_of(row)), render.MAX_CELLS) for row in rows]
    return {
        "width": image.shape[1],
        "height": image.shape[0],
        "cell": CELL,
        "side": render.SIDE,
        "filled": filled[: render.MAX_CELLS],
        "rgb": base64.b64encode(image.tobytes()).decode(),
    }


def tune(text: str) -> dict[str, Any] | None:
    """Return the notes of a tune so far, and the times at which its bars begin.

    Signs that cannot be played are left out. None: no note can be read yet, or the tune is longer
    than MAX_SECONDS.
    """
    line = text[text.rfind("\n") + 1 :]
    if line.count('"') % 2:  # the name of a chord is half written; its letters are no notes
        text = text[: text.rfind('"')]
    try:
        score = abc_notation.parse(to_abc(text), Counter())
    except UserError:
        return None
    whole_note = sound.seconds_per_whole_note(score)
    bars, end = list[float](), Fraction(0)
    for _, bar in score.played():
        bars.append(float(end) * whole_note)
        end += bar.length
        if float(end) * whole_note > MAX_SECONDS:
            return None
    notes = [
        {
            "midi": tone.pitch,
            "frequency": tone.frequency,
            "start": tone.start,
            "seconds": tone.length,
            "loudness": tone.loudness,
            "voice": tone.voice,
        }
        for tone in itertools.islice(sound.tones(score), MAX_TONES)
    ]
    return {
        "title": score.headers["T"],
        "key": score.headers["K"],
        "metre": score.headers["M"],
        "bars": bars,
        "seconds": float(end) * whole_note,
        "notes": sorted(notes, key=lambda note: (note["start"], note["midi"])),
    }
