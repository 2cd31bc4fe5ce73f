"""The model that MLflow loads and serves: a record's `prompt` is continued, or its `text` is scored."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import pandas as pd
import torch
from mlflow.environment_variables import MLFLOW_DEFAULT_PREDICTION_DEVICE
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.pyfunc import PythonModel
from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

from aunet_lightning.checkpoints.load import load_with_contents
from aunet_lightning.generation import Piece, Request, Sampling, stream
from aunet_lightning.generation.sampling import BYTES
from aunet_lightning.numbers import Range, check, show
from aunet_lightning.scoring import ROW, Continuation, score

T = TypeVar("T")

SAMPLES = Range(least=1, most=10_000)
GIVEN = ("prompt", "text", "context")  # columns of the input
CONTINUED = {"text": "string", "finish": "string", "removed": "double", "sample": "long"}
SCORED = {"bytes": "long", "bits": "double", "bpb": "double", "greedy": "boolean", "unread": "long"}
DEFAULTS = Sampling()
PARAMS = (
    ParamSpec("max_bytes", "long", DEFAULTS.max_bytes),
    ParamSpec("max_units", "long", DEFAULTS.max_units),
    ParamSpec("temperature", "double", DEFAULTS.temperature),
    ParamSpec("top_k", "long", DEFAULTS.top_k),
    ParamSpec("top_p", "double", DEFAULTS.top_p),
    ParamSpec("min_p", "double", DEFAULTS.min_p),
    ParamSpec("repetition_penalty", "double", DEFAULTS.repetition_penalty),
    ParamSpec("stop", "string", [], (-1,)),
    ParamSpec("valid_utf8", "boolean", DEFAULTS.valid_utf8),
    ParamSpec("seed", "long", 0),
    ParamSpec("samples", "long", 1),
    ParamSpec("per_byte", "boolean", False),
)
SIGNATURE = ModelSignature(
    Schema([ColSpec("string", name, required=False) for name in GIVEN]),
    Schema([ColSpec(kind, name, required=False) for name, kind in (CONTINUED | SCORED).items()]),
    ParamSchema([*PARAMS]),
)
EXAMPLE = (pd.DataFrame({"prompt": ["All human "]}), {"max_bytes": 50})


class Served(PythonModel):
    """The model of a folder that `aunet export` wrote. Requests may come from several threads.

    A record with a `prompt` is continued as `generation.texts` does, with the params that `Sampling` and `Request` name
    and `samples`, the number of texts of each prompt; one with a `text`, which a `context` may come before, is scored
    as `scoring.score` does in rows as in training, with the param `per_byte`, whether lists of each byte's bits and
    levels are wanted. Errors are MLflow's, of the code INVALID_PARAMETER_VALUE, and name the field.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._lock = folder, Lock()

    def load_context(self, context: Any) -> None:
        """Loads the model onto $MLFLOW_DEFAULT_PREDICTION_DEVICE, or a GPU where there is one."""
        usual = "cuda" if torch.cuda.is_available() else "cpu"
        net, self._reader, contents = load_with_contents(self._folder)
        self._net = net.to(MLFLOW_DEFAULT_PREDICTION_DEVICE.get() or usual)
        self._row_ids = contents.row_ids or ROW

    def predict(self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Returns a record per text: of prompts with the columns CONTINUED (the texts of a prompt one after the other),
        of texts with SCORED, and the lists `surprisal` and `levels` where they are asked for."""
        with _refusing():
            given, records = _with_defaults(params), _records(model_input.to_dict("records"))
        return self._continued(records, given) if "prompt" in records[0] else self._scored(records, given["per_byte"])

    def predict_stream(
        self, context: Any, model_input: Mapping[str, Any], params: dict[str, Any] | None = None
    ) -> Iterator[str]:
        """Yields what follows the prompt of a record, in pieces of whole characters, as it forms."""
        with _refusing():
            given, (record,) = _with_defaults(params), _records([model_input])
            if "prompt" not in record:
                raise ValueError("text: scores are not streamed; a prompt is")
            if given["samples"] != 1:
                raise ValueError(f"samples is {show(given['samples'])}: a stream has one text")
            pieces = self._stream([record], given)
        return (_text(piece.text) for piece in pieces if piece.text)

    def _continued(self, records: Sequence[Mapping[str, str]], given: Mapping[str, Any]) -> pd.DataFrame:
        with _refusing():
            pieces = self._stream(records, given)
        done = {piece.number: piece.done for piece in pieces if piece.done is not None}
        found = [done[number] for number in range(len(done))]
        columns = {
            "text": pd.Series([_text(one.text) for one in found], dtype=object),  # which may be no UTF-8
            "finish": [one.finish for one in found],
            "removed": [one.removed for one in found],
            "sample": [one.request.sample for one in found],
        }
        return pd.DataFrame(columns)

    def _stream(self, records: Sequence[Mapping[str, str]], given: Mapping[str, Any]) -> Iterator[Piece]:
        check("max_bytes", given["max_bytes"], BYTES)
        check("max_units", given["max_units"], Range(least=1))
        check("samples", given["samples"], SAMPLES)
        if given["max_units"] is not None and self._reader.depth == 0:
            raise ValueError("max_units: the model reads bytes alone, in no units: leave it out, or give max_bytes")
        stop = tuple((text or "").encode() for text in given["stop"])
        sampling = Sampling(**{field.name: given[field.name] for field in fields(Sampling)} | {"stop": stop})
        requests = [
            Request(record["prompt"].encode(), given["seed"], sample)
            for record in records
            for sample in range(given["samples"])
        ]
        return self._alone(stream(self._net, self._reader, requests, sampling))

    def _scored(self, records: Sequence[Mapping[str, str]], per_byte: bool) -> pd.DataFrame:
        documents = [Continuation(record.get("context", "").encode(), record["text"].encode()) for record in records]
        rows = []
        for one in self._alone(score(self._net, self._reader, documents, self._row_ids)):
            row: dict[str, Any] = {"bytes": len(one.surprisal), "bits": one.bits, "bpb": one.bpb}
            row |= {"greedy": bool(one.greedy.all()), "unread": one.unread}
            if per_byte:
                row |= {"surprisal": one.surprisal.tolist(), "levels": one.levels.tolist()}
            rows.append(row)
        return pd.DataFrame(rows)

    def _alone(self, steps: Iterator[T]) -> Iterator[T]:
        """Yields what steps give, each made while no other thread makes one: threads take turns."""
        while True:
            with self._lock:
                step = next(steps, None)
            if step is None:
                return
            yield step


@contextmanager
def _refusing() -> Iterator[None]:
    """A context whose ValueErrors are the fault of a request."""
    try:
        yield
    except ValueError as error:
        raise MlflowException.invalid_parameter_value(str(error)) from None


def _with_defaults(params: Mapping[str, Any] | None) -> dict[str, Any]:
    given = {name: value for name, value in (params or {}).items() if value is not None}
    return {param.name: param.default for param in PARAMS} | given


def _records(given: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Returns records with what they have of GIVEN. Raises ValueError unless all have a prompt, or all a text."""
    if not given:
        raise ValueError("there is no record with a `prompt` to continue, or a `text` to score")
    records = [{name: record[name] for name in GIVEN if _is_there(record.get(name))} for record in given]
    for number, record in enumerate(records):
        for name, value in record.items():
            if not isinstance(value, str):
                raise ValueError(f"{name} of record {number} is {show(value)}, it must be a string")
        if ("prompt" in record) == ("text" in record):
            has = "both" if "prompt" in record else "neither"
            raise ValueError(f"record {number} has {has}: give a `prompt` to continue, or a `text` to score")
        if ("prompt" in record) != ("prompt" in records[0]):
            wanted = f"record {number} is to be {_to_be(record)}, record 0 {_to_be(records[0])}"
            raise ValueError(f"{wanted}: give them in requests of their own")
        if record.get("text") == "":
            raise ValueError(f"text of record {number} is empty: there is nothing to score")
        if "context" in record and "text" not in record:
            raise ValueError(f"context of record {number} has no `text`, which is scored given it")
    return records


def _to_be(record: Mapping[str, str]) -> str:
    return "continued (`prompt`)" if "prompt" in record else "scored (`text`)"


def _is_there(value: Any) -> bool:
    """Whether a cell has a value: pandas fills those without one with NaN."""
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def _text(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")
