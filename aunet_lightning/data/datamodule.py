"""ByteDataModule: text in many languages as packed batches, split by the run's splitters in the workers."""

from functools import cached_property
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn

from aunet_lightning.data.checks import (
    check_keys,
    check_mixed,
    check_options,
    check_stream,
    check_targets,
    warn_of_files,
    warn_of_known,
    warn_of_none_held_out,
    why_none,
)
from aunet_lightning.data.corpus import Corpus, prepare
from aunet_lightning.data.documents import Report
from aunet_lightning.data.loader import EpochLoader, ResumableLoader
from aunet_lightning.data.mixture import Amount, MixConfig, Portion, amounts, interleaved, portions
from aunet_lightning.data.order import InTurn, Order, Rows, shuffled
from aunet_lightning.data.packing import REFERENCE, PackedBatches
from aunet_lightning.data.progress import each_file
from aunet_lightning.data.skipped import check_skipped
from aunet_lightning.data.sources import LANGUAGE_KEY, Entry, Source, expand
from aunet_lightning.data.streaming import Stream, StreamedBatches, StreamLoader, kept_sample, stream_of
from aunet_lightning.data.token_ids import Ids, ids_of, trained
from aunet_lightning.data.words import WordMarks, word_teacher
from aunet_lightning.effects import Effect, effects
from aunet_lightning.paths import default_cache, user_path
from aunet_lightning.reader.levels import AROUND
from aunet_lightning.reader.reader import Reader, Rule, reader_of
from aunet_lightning.reader.tokens import Tokenizer, TokenizerSpec
from splitters import DEFAULT, Splitter
from splitters.laws.check import check_foreign, check_form
from splitters.registry import resolve

Files = list[Entry] | str


@effects(skipped_limit=Effect.NONE, workers=Effect.NONE, cache_dir=Effect.NONE, parallel_files=Effect.NONE)
class ByteDataModule(LightningDataModule):
    """Documents from files, packed into rows of bytes with BOS and EOS.

    Args:
        train_files: files of text, as paths, globs, folders, URLs or {path: …, lang: …, format: …, weight: …,
            text_key: …, language_key: …}; the format (jsonl, json, text, text_lines, text_paragraphs, csv, tsv,
            tsv_unquoted, tsv_parallel, parquet, arrow, datasets with config, split and revision, or module:Class) is by
            default that of the file's name, else jsonl; those of text may be compressed (.gz, .bz2, .xz, .zst);
            {language} in a glob names the language
        val_files: the same for validation; null: hold out of the training files, see holdout_every
        test_files: the same for test and predict; null: the validation documents
        parallel_files: text that says the same in each language; documents correspond by id (or line; or rows of
            format: tsv_parallel, which has a column per language). Validations log its bits relative to English
        holdout_every: without val_files, every n-th document of each language in each training file is
            validated on and never trained on; of files that are a document each (text), every n-th file
        languages: only documents in these languages; null: all
        shuffle_buffer_bytes: read training files as a stream; documents are shuffled in buffers of so many bytes (each
            worker holds two), and there is no copy and no end. null: an epoch shuffles flat copies of all files
        mix: shares of languages in training; or entries of train_files have a weight. null: every document once an
            epoch
        text_key: the key or column of the text
        language_key: the key or column of the language; documents without it have the file's lang, or the name of the
            file or the folder
        skipped_limit: the share of lines or documents that may be unusable; in a part's files, where they are more
            than 10. Above it a run stops before training, on a stream while it reads. Empty ones do not count. null: no
            limit
        splitter: the rule from bytes to stage 2: a name, or {name: …, option: …}; null for a model of one stage
        upper_splitters: one rule per further stage, among the units below it
        tokenizer: for the BPE baseline, which reads tokens in place of bytes (splitter: null): {vocab_size: n} trains
            a vocabulary on the training documents (with merges: parity, one that is fair to each of their languages),
            a path names a tokenizers JSON; null: bytes
        rows: stream: documents one after the other, cut where a row ends; documents: as many whole ones as fit into a
            row, and longer ones cut between characters
        row_bytes: bytes that a row reads (L); with a tokenizer, tokens of about so many bytes of the training text
        context_bytes: bytes read before a row; those of its document, likewise, which it does not predict
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
        parallel_files: Files | None = None,
        holdout_every: int | None = None,
        languages: list[str] | None = None,
        shuffle_buffer_bytes: float | None = None,
        mix: MixConfig | None = None,
        text_key: str = "text",
        language_key: str = LANGUAGE_KEY,
        skipped_limit: float | None = 0.01,
        splitter: Rule | None = DEFAULT,
        upper_splitters: list[Rule] | None = None,
        tokenizer: TokenizerSpec | None = None,
        rows: Rows = "stream",
        row_bytes: int = 1024,
        context_bytes: int = 0,
        batch_rows: int = 16,
        seed: int = 0,
        workers: int = 2,
        cache_dir: str | None = None,
    ) -> None:
        super().__init__()
        check_options(
            row_bytes=row_bytes, context_bytes=context_bytes, batch_rows=batch_rows, workers=workers, seed=seed,
            holdout_every=holdout_every, shuffle_buffer_bytes=shuffle_buffer_bytes, skipped_limit=skipped_limit,
            languages=languages,
        )  # fmt: skip
        self.reader = reader_of(splitter, upper_splitters, tokenizer)
        self.teachers = self.reader.stack.teachers
        self.files: dict[str, Files | None] = {
            "train": train_files, "val": val_files, "test": test_files, "parallel": parallel_files
        }  # fmt: skip
        self.holdout_every, self.languages, self.skipped_limit = holdout_every, languages, skipped_limit
        self.shuffle_buffer_bytes = shuffle_buffer_bytes
        self.mix = MixConfig(**mix) if isinstance(mix, dict) else mix
        self.keys = {"text_key": text_key, "language_key": language_key}
        self.rows: Rows = rows
        self.row_bytes, self.context_bytes, self.batch_rows = row_bytes, context_bytes, batch_rows
        self.seed, self.workers = seed, workers
        self.cache = user_path(cache_dir, "data.cache_dir") if cache_dir is not None else default_cache()
        self.keeps_whole = False  # whether held-out text is packed so that no document depends on its neighbours
        self.corpora: dict[str, Corpus] = {}
        self._words: dict[str, WordMarks] = {}  # by part
        self.documents: dict[str, np.ndarray] = {}
        self.stream: Stream | None = None  # of the training text; corpora["train"] is then its first buffer
        self.portions: list[Portion] | None = None  # of the training text; None: every document once an epoch
        self._training_order: Order | None = None
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
            for source in each_file(self._sources(part) if not self._streams(part) else []):
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
        of_parts = {part: self._sources(part) for part in self.files}
        for part, sources in of_parts.items():
            if sources and not self._streams(part):
                folders = [prepare(source, self.cache) for source in sources]
                paths, joined = [source.path for source in sources], [source.is_document for source in sources]
                self.corpora[part] = corpus = Corpus(folders, paths, joined)
                check_keys(part, sources, corpus.reports)
                check_skipped(part, corpus, self.skipped_limit)
                warn_of_files(part, sources, corpus)
        if self._streams("train"):
            self._open_stream(of_parts["train"])
        wanted = dict.fromkeys(self.files, self.languages) | {"parallel": None}  # which may be never seen in training
        self.documents = {part: corpus.of_languages(wanted[part]) for part, corpus in self.corpora.items()}
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
                n = self.holdout_every if part == "val" and self.files["val"] is None else None
                raise ValueError(f"data: no document is left for {part}: {why_none(self.corpora[part], n)}")
        self.portions = self._mixed(of_parts["train"])
        if "train" in self.corpora:
            self._check_training()
        self.reader.fit(self._trained)
        for corpus in self.corpora.values():
            ids_of(corpus, self.reader)  # text that a vocabulary loses is reported now

    def _streams(self, part: str) -> bool:
        return part == "train" and self.shuffle_buffer_bytes is not None and bool(self.files["train"])

    def _open_stream(self, sources: list[Source]) -> None:
        check_stream(self.holdout_every)
        held_out = [corpus.hashes for corpus in self.corpora.values()]
        self.stream = stream_of(
            sources, self.mix, self.languages, self.seed, float(self.shuffle_buffer_bytes or 0),
            np.unique(np.concatenate([*held_out, np.zeros(0, np.uint64)])), self.skipped_limit,
        )  # fmt: skip
        self.corpora["train"] = Corpus([kept_sample(self.stream, self.cache)])

    def _check_training(self) -> None:
        corpus = self.corpora["train"]
        present = [corpus.language_names[i] for i in np.unique(corpus.languages[self.documents["train"]])]
        check_targets(self.reader, present if self.stream is None else self.stream.names)
        given = [part for part in self.corpora if part == "val" or (part != "train" and self.files[part] is not None)]
        warn_of_known(given, self.corpora, self.documents)
        if self.files["val"] is None and "val" in self.corpora and self.holdout_every:
            warn_of_none_held_out(corpus, self.documents, self.holdout_every)

    def _mixed(self, sources: list[Source]) -> list[Portion] | None:
        is_plain = self.mix is None and all(source.weight is None for source in sources)
        if "train" not in self.corpora or self.stream is not None or is_plain:
            return None
        check_mixed(self.rows)
        return portions(self.mix or MixConfig(), self.corpora["train"], self.documents["train"], sources)

    @property
    def packing(self) -> dict[str, Any]:
        """What else the place in the training data depends on."""
        place: dict[str, Any] = {
            "data.row_bytes": self.row_bytes, "data.context_bytes": self.context_bytes,
            "data.batch_rows": self.batch_rows, "seed_everything": self.seed,
        }  # fmt: skip
        if self.stream is not None:
            place["data.shuffle_buffer_bytes"] = self.stream.buffer_bytes
        return place | {"data.mix": self.shares}

    @property
    def shares(self) -> dict[str, float] | None:
        """The share of each language, or entry of files, in the training text that is read; None where all is read."""
        if self.stream is not None:
            return {group.name: group.share for group in self.stream.groups}
        total = sum(portion.read for portion in self.portions or ())
        return {portion.name: portion.read / total for portion in self.portions} if self.portions else None

    @cached_property
    def digests(self) -> dict[str, str]:
        """A digest of the documents of train and val, where they are: what a run's numbers depend on."""
        found: dict[str, str] = {
            part: self.corpora[part].digest(self.documents[part]) for part in ("train", "val") if part in self.corpora
        }
        if self.stream is not None:
            found["train"] = self.stream.digest(found["train"])
        return found

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
        """Ids that a row reads, without its context."""
        return max(round(self.row_bytes / self.bytes_per_id), 1)

    @property
    def context_ids(self) -> int:
        """Ids of a context, at most."""
        return max(round(self.context_bytes / self.bytes_per_id), 1) if self.context_bytes else 0

    @property
    def longest_row_ids(self) -> int:
        """Ids that a row reads with its context, at most."""
        return self.row_ids + self.context_ids

    @cached_property
    def _reference(self) -> Splitter:
        """The rule that a run's units are compared with."""
        rule = resolve(DEFAULT)
        assert isinstance(rule, Splitter)
        return rule

    @property
    def skipped(self) -> dict[str, int]:
        """Lines that hold no usable document, by reason, over all files (of a stream: so far)."""
        total = self._train_loader.report if isinstance(self._train_loader, StreamLoader) else Report()
        for corpus in {id(corpus): corpus for corpus in self.corpora.values()}.values():
            total.add(corpus.report)
        return total.skipped

    def language_names(self, part: str) -> list[str]:
        """Returns the languages that `languages` in the part's batches index."""
        return [*self.stream.names] if part == "train" and self.stream else self.corpora[part].language_names

    def amounts(self, part: str) -> dict[str, Amount]:
        """Returns the text of each language of a part, and what an epoch reads of it."""
        return amounts(self.corpora[part], self.documents[part], self.portions if part == "train" else None)

    def read(self) -> dict[str, int]:
        """Returns the bytes of each language that this run's training has read, over all ranks and epochs."""
        read = self._train_loader.drawn() if self._train_loader is not None else np.zeros(0)
        return {name: int(n) for name, n in zip(self.language_names("train"), read, strict=False) if n}

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
        reader = reader or self.reader
        ids = ids_of(self.corpora[part], reader)
        return PackedBatches(
            self.corpora[part], ids, self._order(part, ids, reader), reader, self.row_ids, self.batch_rows,
            *self._place, marks, self._words_of(part) if compared else None, self.context_ids,
        )  # fmt: skip

    @property
    def _place(self) -> tuple[int, int]:
        """The rank and the number of ranks."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def _order(self, part: str, ids: Ids, reader: Reader) -> Order:
        sizes = ids.lengths + AROUND
        if part != "train":
            return InTurn(self.documents[part], sizes, self.row_ids, whole=self.keeps_whole)
        if self._training_order is None:  # fitting rows takes seconds, and costs, length and loader ask
            self._training_order = (
                interleaved(self.portions, sizes, self.row_ids, self.batch_rows, self.seed) if self.portions is not None
                else shuffled(self.rows, ids, self.documents[part], self.row_ids, self.seed, reader.tokenizer is None)
            )  # fmt: skip
        return self._training_order

    def _words_of(self, part: str) -> WordMarks | None:
        """Returns the marks of words in held-out text; None where the package that finds them is missing."""
        if part not in self._words and (teacher := word_teacher()) is not None:
            self._words[part] = WordMarks(self.corpora[part], self.documents[part], teacher)
        return self._words.get(part)

    def train_dataloader(self) -> ResumableLoader:
        self._train_loader = self._loader()
        if self._resume is not None:
            self._train_loader.load_state_dict(self._resume)
            self._resume = None
        return self._train_loader

    def _loader(self) -> ResumableLoader:
        if self.stream is None:
            return EpochLoader(self.batches("train"), self.workers)
        streamed = StreamedBatches(
            self.stream, self.reader, self.rows, self.row_ids, self.batch_rows, *self._place,
            self.batches("train").marks, self.context_ids,
        )  # fmt: skip
        return StreamLoader(streamed, self.workers)

    def state_dict(self) -> dict[str, Any]:
        """The place in the training data. (Lightning keeps the loader's state too, but does not restore it in a run
        that was once resumed at the end of an epoch.)"""
        return self._train_loader.state_dict() if self._train_loader is not None else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._resume = state_dict or None

    def val_dataloader(self) -> ResumableLoader | list[ResumableLoader]:
        return EpochLoader(self.batches("val"), 0, repeat_epoch=True) if "val" in self.corpora else []

    def test_dataloader(self) -> ResumableLoader:
        if self.files["test"] is None:
            rank_zero_warn("data.test_files is not set: testing on the validation documents")
        return EpochLoader(self.batches("test"), 0, repeat_epoch=True)

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
