"""Fits rows of a study to the rates that it asks for, on its training text, and remembers what was found."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from aunet_lightning.data.datamodule import ByteDataModule
from aunet_lightning.paths import replace_text
from aunet_lightning.reader.bpe import train_bpe
from aunet_lightning.reader.rates import MOST_TOKENS, TOLERANCE, NoKnob, fit_rate, fit_tokens, flow
from aunet_lightning.study.grid import Study, files_of
from aunet_lightning.study.settings import Settings
from aunet_lightning.study.study_folder import StudyFolder
from splitters.registry import class_of, name_and_options

FAR = 0.25  # relative error from which a row is left out at a rate


class _Fitted(NamedTuple):
    """What was found for a row at a rate."""

    over: Settings  # over the row's settings; empty for one that keeps its own rate
    rate: float  # on training text


class Fitter:
    """Fits settings to rates; each is searched once per language, also of a study that is continued."""

    def __init__(self, study: Study) -> None:
        self.study, self.files = study, StudyFolder(study.folder)
        self.found: dict[str, _Fitted] = {}
        self.notes: list[str] = []
        self._texts: dict[str, list[bytes]] = {}
        self._trained: dict[str, str] = {}  # vocabularies, of which smaller ones are the first entries
        if self.files.rates.exists():
            known = json.loads(self.files.rates.read_text(encoding="utf-8"))
            self.found = {key: _Fitted(one["over"], one["rate"]) for key, one in known.items()}

    def __call__(self, language: str, settings: Settings, wanted: float) -> Settings | None:
        """Returns what to set over a row's settings, None where it has no knob, or comes nowhere near the rate."""
        spec = settings.get("splitter")
        what = f"{language}: {flow(spec if spec is not None else settings.get('tokenizer'))}"
        key = f"{what} at {wanted:g} bytes per unit"
        if key not in self.found:
            self.found[key] = self._fit(language, settings, wanted)
            self._keep()
        over, rate = self.found[key]
        off = rate / wanted - 1
        if over and abs(off) > TOLERANCE:
            left = ", so it is left out" if abs(off) > FAR else ""
            self.notes.append(f"{key}: the nearest is {rate:.2f} ({off:+.0%}){left}")
        return over if over and abs(off) <= FAR else None

    def _fit(self, language: str, settings: Settings, wanted: float) -> _Fitted:
        texts = self._read(language, settings.get("data", {}))
        spec, tokenizer = settings.get("splitter"), settings.get("tokenizer")
        if spec is None:
            if not isinstance(tokenizer, Mapping):  # flat bytes, or a vocabulary of its own
                return _Fitted({}, 1.0)
            size, rate = fit_tokens(texts, wanted, self._vocabulary(language, texts))
            return _Fitted({"tokenizer": {**tokenizer, "vocab_size": size}}, rate)
        digest = hashlib.sha256(flow(spec).encode()).hexdigest()[:8]
        out = self.files.vocabularies / f"{language}-{wanted:g}-{digest}.json"
        try:
            walks = (knob := class_of(name_and_options("splitter", spec)[0]).knob) is not None and knob.entries
            fitted = fit_rate(spec, texts, wanted, out, self._vocabulary(language, texts) if walks else None)
        except NoKnob as none:
            return _Fitted({}, none.rate)
        return _Fitted({"splitter": fitted.spec}, fitted.rate)

    def _vocabulary(self, language: str, texts: list[bytes]) -> str:
        """A BPE vocabulary of a language, of which smaller ones are the first entries."""
        if language not in self._trained:
            self._trained[language] = train_bpe(texts, MOST_TOKENS)
        return self._trained[language]

    def _read(self, language: str, data: Mapping[str, Any]) -> list[bytes]:
        """Returns the documents that cells of a language train on."""
        if language not in self._texts:
            files = {f"{part}_files": files_of(self.study, part, language) for part in ("train", "val")}
            module = ByteDataModule(**{**data, **files})
            module.prepare_data()
            module.setup()
            corpus = module.corpora["train"]
            self._texts[language] = [bytes(corpus.text(d)) for d in module.documents["train"]]
        return self._texts[language]

    def _keep(self) -> None:
        self.files.path.mkdir(parents=True, exist_ok=True)
        known: dict[str, Any] = {key: one._asdict() for key, one in self.found.items()}
        replace_text(self.files.rates, json.dumps(known, indent=1, ensure_ascii=False))
