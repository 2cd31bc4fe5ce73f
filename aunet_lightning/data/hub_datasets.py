"""Datasets of Hugging Face, read by its package `datasets` as a stream: those of its hub, and folders laid out so."""

import hashlib
import importlib.util
import json
import re
from collections.abc import Hashable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from aunet_lightning.data.arrow_files import ROWS, Columns, Parquet
from aunet_lightning.data.contents import stamp
from aunet_lightning.data.matching import SPLITS, TABLE
from aunet_lightning.data.places import File, Place, file_digest
from aunet_lightning.data.remote import RemoteFile, reached
from aunet_lightning.paths import is_remote, user_path

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
MISSING = "pip install 'aunet-lightning[datasets]'"


@dataclass(frozen=True)
class HubDataset(Place):
    """A split of a dataset.

    path: OWNER/NAME on the hub, or a folder
    config, split: None: the only one
    commit: of the hub's dataset, by its hash; None: of a folder
    downloads: as of `opened`
    """

    path: str
    config: str | None = None
    split: str | None = None
    commit: str | None = None
    downloads: Path | None = field(default=None, compare=False)

    def __str__(self) -> str:
        at = f"@{self.commit[:12]}" if self.commit else ""
        return " ".join(part for part in (self.path + at, self.config, self.split) if part)

    @property
    def name(self) -> str:
        return Path(self.path).name

    @property
    def language(self) -> str:
        return self.config or ""

    @property
    def key(self) -> Hashable:
        return self

    def contents(self, cache: Path) -> str:
        held = [self.commit] if self.commit else [[inside, file_digest(file, cache)] for inside, file in self._files()]
        return hashlib.sha256(json.dumps([self.config, self.split, *held]).encode()).hexdigest()

    def stamp(self) -> object:
        return [] if self.commit else [[inside, *stamp(file)] for inside, file in self._files()]

    def opened(self, downloads: Path | None = None) -> AbstractContextManager["HubDataset"]:
        return nullcontext(replace(self, downloads=downloads))

    def builder(self) -> tuple[Any, str, list[str]]:
        """Returns what `datasets` reads it with, its split, and the paths or URLs of the split's files.

        Raises ValueError where it cannot be read, has no such split, or has several and none is named.
        """
        import datasets

        with self.reached():
            builder = datasets.load_dataset_builder(self.path, self.config, revision=self.commit)
        files = {str(split): list(map(str, files)) for split, files in builder.config.data_files.items()}
        if self.split is None and len(files) > 1:
            raise ValueError(f"{self} has the splits {', '.join(files)}: name one, split: {min(files)}")
        split = self.split or min(files)
        if split not in files:
            raise ValueError(f"{self} has no split {split!r}: it has {', '.join(files)}")
        return builder, split, files[split]

    def reached(self) -> AbstractContextManager[None]:
        return reached(str(self)) if self.commit else reached(str(self), "is the folder laid out as on the hub?")

    def _files(self) -> list[tuple[str, Path]]:
        """Returns the files of a folder with their paths inside, in order."""
        root = Path(self.path)
        inside = sorted(file.relative_to(root) for file in root.rglob("*") if file.is_file())
        return [(str(file), root / file) for file in inside if not any(part.startswith(".") for part in file.parts)]


class Datasets(Columns):
    """A row is a document."""

    name, options = "datasets", ("config", "split", "revision")

    @classmethod
    def place(cls, path: str, what: str, options: Mapping[str, str]) -> HubDataset:
        """Raises ValueError for a path that is neither a folder nor a name on the hub, and where the hub has no such
        dataset or cannot be reached."""
        if importlib.util.find_spec("datasets") is None:
            raise ValueError(f"{what}: {path}: format datasets needs the package datasets: {MISSING}")
        config, split, revision = map(options.get, cls.options)
        if (folder := user_path(path, what)).is_dir():
            if revision is not None:
                raise ValueError(f"{what}: {path} is a folder, which has no revisions: leave out revision")
            if any((folder / saved).exists() for saved in (SPLITS, TABLE)):
                raise ValueError(f"{what}: save_to_disk wrote the folder {path}, which is read without a format")
            return HubDataset(str(folder.resolve()), config, split)
        if not HUB_NAME.fullmatch(path):
            raise ValueError(f"{what}: {path!r} is neither a folder nor the name of a dataset of the hub, OWNER/NAME")
        from huggingface_hub import HfApi

        with reached(f"{what}: the dataset {path}"):
            return HubDataset(path, config, split, HfApi().dataset_info(path, revision=revision).sha)

    def batches(self, path: Any) -> Iterator[tuple[list[str], Any]]:
        builder, split, files = path.builder()
        if all(file.endswith(".parquet") for file in files):  # `datasets` reads ahead to the end of such a file
            parquet = Parquet(self.text_key, self.language_key)
            for file in files:
                place = RemoteFile(file) if is_remote(file) else File(Path(file))
                with place.opened(path.downloads) as copy, parquet.read_whole(copy):
                    yield from parquet.batches(copy)
            return
        with path.reached():
            stream = builder.as_streaming_dataset(split=split).with_format("arrow")
        batches = stream.iter(ROWS)  # all of them in each worker: `iter(stream)` would deal them to workers
        while True:
            with path.reached():
                table = next(batches, None)
            if table is None:
                return
            yield table.column_names, table
