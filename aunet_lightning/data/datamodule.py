"""ByteDataModule: text in many languages as packed batches, split by the run's splitters in the workers."""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn

from aunet_lightning.data.corpus import Corpus, prepare
from aunet_lightning.data.documents import Report, bare_name, stem
from aunet_lightning.data.loader import ResumableLoader
from aunet_lightning.data.packing import REFERENCE, PackedBatches
from aunet_lightning.data.places import Place
from aunet_lightning.data.sources import Source, expand
from aunet_lightning.data.token_ids import ids_of, trained
from aunet_lightning.data.words import WordMarks, word_teacher
from aunet_lightning.effects import Effect, effects
from aunet_lightning.paths import default_cache, user_path
from aunet_lightning.reader.reader import Reader, Rule, reader_of
from aunet_lightning.reader.tokens import Tokenizer, TokenizerSpec
from splitters import DEFAULT, Splitter
from splitters.laws.check import check_foreign, check_form
from splitters.registry import resolve

LANGUAGE_KEY = "lang"
Files = list[str | dict[str, str]] | str


@effects(workers=Effect.NONE, cache_dir=Effect.NONE)
class ByteDataModule(LightningDataModule):
    """Documents from files, packed into rows of bytes with BOS and EOS.

    Args:
        train_files: files of text, as paths, globs, folders, URLs or {path: …, lang: …, format: …, text_key: …,
            language_key: …}; the format (jsonl, json, text, text_lines, text_paragraphs, csv, tsv, tsv_unquoted,
            parquet, arrow, datasets with config, split and revision, or module:Class) is by default that of the
            file's name, else jsonl; those of text may be compressed (.gz, .bz2, .xz, .zst); {language} in a glob names
            the language
        val_files: the same for validation; null: hold out of the training files, see holdout_every
        test_files: the same for test and predict; null: the validation documents
        holdout_every: without val_files, every n-th document of each language in each training file is
            validated on and never trained on; of files that are a document each (text), every n-th file
        languages: only documents in these languages; null: all
        text_key: the key or column of the text
        language_key: the key or column of the language; documents without it have the file's lang, or the name of the
            file or the folder
        splitter: the rule from bytes to stage 2: a name, or {name: …, option: …}; null for a model of one stage
        upper_splitters: one rule per further stage, among the units below it
        tokenizer: for the BPE baseline, which reads tokens in place of bytes (splitter: null): {vocab_size: n} trains
            a vocabulary on the training documents (with merges: parity, one that is fair to each of their languages),
            a path names a tokenizers JSON; null: bytes
        row_bytes: bytes that a row reads (L); with a tokenizer, tokens of about so many bytes of the training text
        batch_rows: rows of a batch over all devices (B); each of n devices reads every n-th
        seed: of the order of documents
        workers: processes that split and pack; 0: none but the main one
        cache_dir: where flat copies of the files are kept; null: $AUNET_CACHE, or the user's cache folder
    """

    def __init__(
        self,
        train_files: Files | None = None,
        val_files: Files | None = None,
        test_files: Files | None = None,
        holdout_every: int | None = None,
        languages: list[str] | None = None,
        text_key: str = "text",
        language_key: str = LANGUAGE_KEY,
        splitter: Rule | None = DEFAULT,
        upper_splitters: list[Rule] | None = None,
        tokenizer: TokenizerSpec | None = None,
        row_bytes: int = 1024,
        batch_rows: int = 16,
        seed: int = 0,
        workers: int = 2,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("row_bytes", row_bytes, 1), ("batch_rows", batch_rows, 1), ("workers", workers, 0), ("seed", seed, 0)
        ):  # fmt: skip
            if value < least:
                raise ValueError(f"data.{name} is {value}, it must be {least} or more")
        if holdout_every is not None and holdout_every < 2:
            raise ValueError(f"data.holdout_every is {holdout_every}, it must be 2 or more (10 holds out a tenth)")
        if languages == []:
            raise ValueError("data.languages is empty: name at least one, or null for all")
        self.reader = reader_of(splitter, upper_splitters, tokenizer)
        self.teachers = self.reader.stack.teachers
        self.files: dict[str, Files | None] = {"train": train_files, "val": val_files, "test": test_files}
        self.holdout_every, self.languages = holdout_every, languages
        self.keys = {"text_key": text_key, "language_key": language_key}
        self.row_bytes, self.batch_rows, self.seed, self.workers = row_bytes, batch_rows, seed, workers
        self.cache = user_path(cache_dir, "data.cache_dir") if cache_dir is not None else default_cache()
        self.keeps_whole = False  # whether held-out text is packed so that no document depends on its neighbours
        self.corpora: dict[str, Corpus] = {}
        self._words: dict[str, WordMarks] = {}  # by part
        self.documents: dict[str, np.ndarray] = {}
        self._train_loader: ResumableLoader | None = None
        self._resume: dict[str, Any] | None = None  # where a checkpoint's run was in the training data

    def prepare_data(self) -> None:
        """Once per node: tries the laws on splitters that are not built in, and writes flat copies of new files."""
        if self.corpora:  # set up already, by the command line before the trainer
            return
        check_foreign(self.reader.stack)
        for teacher in self.teachers.values():
            check_form(teacher)
        for part in self.files:
            for source in self._sources(part):
                folder = prepare(source, self.cache)
                all_ = (*self.reader.stack.rules, *self.teachers.values())
                rules = [rule for rule in all_ if isinstance(rule, Splitter) and rule.needs_model()]
                corpus = Corpus([folder] if rules else [])
                for rule in rules:
                    rule.prepare(folder, [corpus.text(d) for d in range(len(corpus))])

    def setup(self, stage: str | None = None) -> None:
        """Opens the documents and deals them to train, val and test. `stage` makes no difference."""
        if self.corpora:
            return
        for part in self.files:
            if sources := self._sources(part):
                folders = [prepare(source, self.cache) for source in sources]
                paths, joined = [source.path for source in sources], [source.is_document for source in sources]
                self.corpora[part] = Corpus(folders, paths, joined)
                self._check_lines(part, sources)
        self.documents = {part: self._select(corpus) for part, corpus in self.corpora.items()}
        if "val" not in self.corpora and "train" in self.corpora and self.holdout_every:
            documents, places = self.documents["train"], self.corpora["train"].places
            held_out = places[documents] % self.holdout_every == self.holdout_every - 1
            self.corpora["val"] = self.corpora["train"]
            self.documents |= {"train": documents[~held_out], "val": documents[held_out]}
        elif "val" in self.corpora and self.holdout_every:
            rank_zero_warn("data.holdout_every is ignored because data.val_files is set")
        if "test" not in self.corpora and "val" in self.corpora:
            self.corpora["test"], self.documents["test"] = self.corpora["val"], self.documents["val"]
        for part, documents in self.documents.items():
            if not len(documents):
                raise ValueError(f"data: no document is left for {part}: {self._why_none(part)}")
        self._check_targets()
        self._check_parts()
        self.reader.fit(self._trained)
        for corpus in self.corpora.values():
            ids_of(corpus, self.reader)  # text that a vocabulary loses is reported now

    def _check_lines(self, part: str, sources: Sequence[Source]) -> None:
        """Says what lines were skipped and what they may hold that was not meant. Raises ValueError where a key that
        is asked for is in no line."""
        corpus = self.corpora[part]
        report = corpus.report
        for text_key, language_key in dict.fromkeys((source.text_key, source.language_key) for source in sources):
            alike = Report()
            for source, of_file in zip(sources, corpus.reports, strict=True):
                if (source.text_key, source.language_key) == (text_key, language_key):
                    alike.add(of_file)
            missing = None if alike.documents else alike.has_no(text_key, "data.text_key")
            if missing is None and language_key != LANGUAGE_KEY:
                missing = alike.has_no(language_key, "data.language_key")
            if missing:
                raise ValueError(f"data.{part}_files: {missing}")
        if warning := report.warning():
            rank_zero_warn(f"{part} files: {warning}")
        sharing: dict[str, list[Path | Place]] = {}
        for source, of_file in zip(sources, corpus.reports, strict=True):
            if of_file.unnamed and not source.named and source.language == stem(source.path):
                sharing.setdefault(source.language, []).append(source.path)
        for language, paths in sharing.items():
            if len({bare_name(path) for path in paths}) > 1:
                rank_zero_warn(
                    f"{part} files: {', '.join(path.name for path in paths[:4])} share the language {language!r}, "
                    "which their names begin with, as their lines name none: where they differ, name it, "
                    f"{{path: {paths[0].name}, lang: …}}"
                )
        for digest, count in Counter(corpus.digests).items():
            if count > 1 and report.documents:
                same = [str(path) for path, one in zip(corpus.paths, corpus.digests, strict=True) if one == digest]
                rank_zero_warn(f"{part} files: {' and '.join(same)} hold the same documents, which count {count} times")

    def _check_targets(self) -> None:
        """Raises ValueError where a learned splitter has no target for the text of a language."""
        for rule in self.reader.stack.learned.values() if "train" in self.corpora else ():
            corpus = self.corpora["train"]
            names = {corpus.language_names[i] for i in np.unique(corpus.languages[self.documents["train"]])}
            if rule.bytes_per_unit is None and rule.by_language and (without := sorted(names - {*rule.by_language})):
                raise ValueError(
                    f"bytes_per_unit of {type(rule).__name__.lower()} has no length for text in {', '.join(without)}: "
                    f"add it, or default: 6. It has {', '.join(rule.by_language)}"
                )

    def _check_parts(self) -> None:
        """Warns of held-out text that is trained on too, and of languages that none is held out of."""
        if "train" not in self.corpora:
            return
        known = self.corpora["train"].hashes[self.documents["train"]]
        given = [part for part in ("val", "test") if part == "val" or self.files["test"] is not None]
        for part in (part for part in given if part in self.corpora):
            corpus, documents = self.corpora[part], self.documents[part]
            again = documents[np.isin(corpus.hashes[documents], known)]
            if len(again):
                share = corpus.lengths[again].sum() / max(corpus.lengths[documents].sum(), 1)
                rank_zero_warn(
                    f"{share:.1%} of the {part} text ({len(again)} of {len(documents)} documents) is in the training "
                    f"text too, so its bits are too low: the first is {corpus.name(int(again[0]))}"
                )
        if self.files["val"] is None and "val" in self.corpora:
            names = self.corpora["train"].language_names
            used = {
                part: set(np.unique(self.corpora["train"].languages[self.documents[part]])) for part in ("train", "val")
            }
            if without := sorted(names[language] for language in used["train"] - used["val"]):
                rank_zero_warn(
                    f"no document of {', '.join(without)} is held out: no file has data.holdout_every "
                    f"({self.holdout_every}) documents of it"
                )

    @property
    def packing(self) -> dict[str, int]:
        """What else the place in the training data depends on."""
        return {"data.row_bytes": self.row_bytes, "data.batch_rows": self.batch_rows, "seed_everything": self.seed}

    @cached_property
    def digests(self) -> dict[str, str]:
        """A digest of the documents of train and val, where they are: what a run's numbers depend on."""
        return {
            part: self.corpora[part].digest(self.documents[part]) for part in ("train", "val") if part in self.corpora
        }

    def _trained(self, vocab_size: int, merges: str) -> Tokenizer:
        if "train" not in self.corpora:
            raise ValueError("tokenizer: a vocabulary is trained on data.train_files: name them, or name a JSON")
        return trained(self.corpora["train"], self.documents["train"], vocab_size, self.cache, merges)

    @property
    def bytes_per_id(self) -> float:
        """Bytes of training text ÷ its ids: 1 where bytes are read."""
        if "train" not in self.corpora:
            return 1.0
        corpus, documents = self.corpora["train"], self.documents["train"]
        return float(corpus.lengths[documents].sum() / max(ids_of(corpus, self.reader).lengths[documents].sum(), 1))

    @cached_property
    def row_ids(self) -> int:
        """Ids that a row reads."""
        return max(round(self.row_bytes / self.bytes_per_id), 1)

    @cached_property
    def _reference(self) -> Splitter:
        """The rule that a run's units are compared with."""
        rule = resolve(DEFAULT)
        assert isinstance(rule, Splitter)
        return rule

    @property
    def skipped(self) -> dict[str, int]:
        """Lines that hold no usable document, by reason, over all files."""
        total = Report()
        for corpus in {id(corpus): corpus for corpus in self.corpora.values()}.values():
            total.add(corpus.report)
        return total.skipped

    def language_names(self, part: str) -> list[str]:
        """Returns the languages that `languages` in the part's batches index."""
        return self.corpora[part].language_names

    def texts(self, part: str) -> list[tuple[str, bytes]]:
        """Returns (language, text) of every document of a part, in file order."""
        corpus = self.corpora[part]
        return [(corpus.language(int(d)), corpus.text(int(d)).tobytes()) for d in self.documents[part]]

    def first_texts(self, part: str, each: int = 1) -> list[tuple[str, bytes]]:
        """Returns (language, text) of the first `each` documents of each language, however large the part is."""
        corpus, documents = self.corpora[part], self.documents[part]
        languages = corpus.languages[documents]
        first = [documents[languages == language][:each] for language in np.unique(languages)]
        return [(corpus.language(int(d)), corpus.text(int(d)).tobytes()) for d in np.concatenate(first)]

    def batches(self, part: str, reader: Reader | None = None) -> PackedBatches:
        """Returns the part's batches for this rank, read by `reader` (None: the run's); only training shuffles."""
        if part not in self.corpora:
            remedy = "name data.val_files, or data.holdout_every" if part != "train" else "name data.train_files"
            raise ValueError(f"data: there are no {part} files: {remedy}")
        compared = part != "train" and self.reader.stack.depth > 0
        marks = self.teachers | ({REFERENCE: self._reference} if compared else {})
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)
        return PackedBatches(
            self.corpora[part], self.documents[part], reader or self.reader,
            self.row_ids, self.batch_rows, self.seed if part == "train" else None, rank, world, marks,
            self.keeps_whole and part != "train", self._words_of(part) if compared else None,
        )  # fmt: skip

    def _words_of(self, part: str) -> WordMarks | None:
        """Returns the marks of words in held-out text; None where the package that finds them is missing."""
        if part not in self._words and (teacher := word_teacher()) is not None:
            self._words[part] = WordMarks(self.corpora[part], self.documents[part], teacher)
        return self._words.get(part)

    def train_dataloader(self) -> ResumableLoader:
        self._train_loader = ResumableLoader(self.batches("train"), self.workers)
        if self._resume is not None:
            self._train_loader.load_state_dict(self._resume)
            self._resume = None
        return self._train_loader

    def state_dict(self) -> dict[str, Any]:
        """The place in the training data. (Lightning keeps the loader's state too, but does not restore it in a run
        that was once resumed at the end of an epoch.)"""
        return self._train_loader.state_dict() if self._train_loader is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._resume = state_dict or None

    def val_dataloader(self) -> ResumableLoader | list[ResumableLoader]:
        return ResumableLoader(self.batches("val"), 0, repeat_epoch=True) if "val" in self.corpora else []

    def test_dataloader(self) -> ResumableLoader:
        if self.files["test"] is None:
            rank_zero_warn("data.test_files is not set: testing on the validation documents")
        return ResumableLoader(self.batches("test"), 0, repeat_epoch=True)

    def predict_dataloader(self) -> ResumableLoader:
        return self.test_dataloader()

    def teardown(self, stage: str) -> None:
        """Ends the workers."""
        if self._train_loader is not None:
            self._train_loader.close()

    def on_exception(self, exception: BaseException) -> None:
        self.teardown("")

    def _sources(self, part: str) -> list[Source]:
        return expand(self.files[part] or [], f"data.{part}_files", self.cache, **self.keys)

    def _select(self, corpus: Corpus) -> np.ndarray:
        if self.languages is None:
            return np.arange(len(corpus))
        if unknown := set(self.languages) - set(corpus.language_names):
            raise ValueError(
                f"data.languages: {', '.join(sorted(unknown))} not in the files; "
                f"they hold {', '.join(corpus.language_names)}"
            )
        wanted = [corpus.language_names.index(name) for name in self.languages]
        return np.flatnonzero(np.isin(corpus.languages, wanted))

    def _why_none(self, part: str) -> str:
        if part == "val" and self.files["val"] is None:
            return (
                f"no file has {self.holdout_every} documents of a language; lower data.holdout_every or name "
                "data.val_files"
            )
        return self.corpora[part].report.warning() or "the files are empty"
