"""MLflow's scoring server, which `mlflow models serve` runs too, and beside it a route that streams."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PyFuncModel, scoring_server

from aunet_lightning.serving.model import GIVEN, PARAMS


def app_of(model: PyFuncModel) -> FastAPI:
    """Returns the app of a model that `Served` is behind.

    `POST /stream` takes a JSON object with a `prompt` and params beside it, as `/invocations` does, and answers with
    server-sent events: `data: {"text": …}` for each piece as it forms, then `data: [DONE]`. A bad request is refused
    before, with MLflow's status and form.
    """
    app: FastAPI = scoring_server.init(model)

    @app.post("/stream")
    async def stream(request: Request) -> Response:
        context = copy_context()  # MLflow sets variables of it while it streams, and steps may run in several threads

        async def step() -> Any:
            return await asyncio.to_thread(context.run, lambda: next(pieces, None))

        try:
            record, params = _parsed(await request.body())
            pieces: Any = model.predict_stream(record, params=params)
            first = await step()
        except MlflowException as error:
            return Response(error.serialize_as_json(), error.get_http_status_code(), media_type="application/json")
        return StreamingResponse(_events(first, step, pieces), media_type="text/event-stream")

    return app


def _parsed(body: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the record and the params of a request."""
    try:
        given = json.loads(body)
    except ValueError:
        given = None
    if not isinstance(given, dict) or "prompt" not in given:
        said = 'prompt is missing: send JSON such as {"prompt": "All human ", "max_bytes": 100}'
        raise MlflowException.invalid_parameter_value(said)
    known = [*GIVEN, *(param.name for param in PARAMS)]
    if unknown := [name for name in given if name not in known]:
        raise MlflowException.invalid_parameter_value(f"{unknown[0]} is unknown: there are {', '.join(known)}")
    record = {name: given.pop(name) for name in GIVEN if name in given}
    return record, given


async def _events(piece: str | None, step: Callable[[], Awaitable[Any]], pieces: Any) -> AsyncIterator[str]:
    try:
        while piece is not None:
            yield f"data: {json.dumps({'text': piece})}\n\n"
            piece = await step()
        yield "data: [DONE]\n\n"
    finally:
        with suppress(ValueError):  # it is in a step, after which nobody asks for more
            pieces.close()
