"""The web application: the addresses of the page, of its numbers, and of the API."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from minigen.errors import UserError
from minigen.serve import answers, page_files
from minigen.serve.chat import Chat
from minigen.serve.completions import Completions
from minigen.serve.inspection import Inspection
from minigen.serve.media import Media
from minigen.serve.models import Models
from minigen.serve.playground import Playground
from minigen.serve.surprise import Surprise
from minigen.serve.training import Training
from minigen.serve.worker import Busy, Worker


def application(models: Models, worker: Worker) -> Starlette:
    """Return the application that answers with these models."""
    completions = Completions(models, worker)
    app = Starlette(
        routes=[
            *Playground(models, worker).routes(),
            *Inspection(models, worker).routes(),
            *Surprise(models, worker).routes(),
            *completions.routes(),
            *Chat(completions).routes(),
            *Training(models, worker).routes(),
            *Media(models, worker).routes(),
            *page_files.routes(),
        ],
        exception_handlers={
            UserError: answers.wrong_request,
            Busy: answers.busy,
            HTTPException: answers.no_such_address,
            Exception: answers.broken,
        },
    )
    app.router.redirect_slashes = False  # each thing has one address
    return app
