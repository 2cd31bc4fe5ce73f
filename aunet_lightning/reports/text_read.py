"""The text of a run: a table before it trains, and with a mix how much of each language it has read."""

from lightning.pytorch import Callback, LightningModule, Trainer

from aunet_lightning.data.datamodule import ByteDataModule
from aunet_lightning.reports.table import aligned
from aunet_lightning.tracking.names import metric_name
from aunet_lightning.training.access import data_of, say

MOST = 40  # lines of the table


def text_table(data: ByteDataModule) -> list[str]:
    """Returns lines of text: documents and bytes of each language, and what an epoch reads of it.

    Of a stream: the files of each language (or entry), their size on the disk, and their share of what is read.
    """
    if data.stream is not None:
        groups = sorted(data.stream.groups, key=lambda group: -group.share)
        rows: list[tuple[str, ...]] = [("streamed", "files", "bytes on disk", "read")]
        for group in groups[:MOST]:
            stored = [source.place.size for source in group.sources]
            on_disk = "unknown" if None in stored else f"{sum(size or 0 for size in stored):,}"
            rows.append((group.name, f"{len(group.sources):,}", on_disk, f"{group.share:.1%}"))
        return [*aligned(rows, left=("streamed",)), *_more(len(groups))]
    mixed = data.portions is not None
    sizes = data.amounts("train")
    total, read = sum(size.bytes for size in sizes.values()), sum(size.read for size in sizes.values())
    rows = [("language", "documents", "bytes", "share", *(("read", "times an epoch") if mixed else ()))]
    for language, size in sorted(sizes.items(), key=lambda item: -item[1].bytes)[:MOST]:
        more = (f"{size.read / read:.1%}", f"{size.read / max(size.bytes, 1):.3g}") if mixed else ()
        rows.append((language, f"{size.documents:,}", f"{size.bytes:,}", f"{size.bytes / max(total, 1):.1%}", *more))
    return [*aligned(rows, left=("language",)), *_more(len(sizes))]


def _more(n: int) -> list[str]:
    return [f"and {n - MOST} more"] if n > MOST else []


class TextRead(Callback):
    """Shows the training text before a run, and logs what was read of each language where there is a mix."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        say(*text_table(data_of(trainer)))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = data_of(trainer)
        if trainer.sanity_checking or data.shares is None:
            return
        if data.stream is not None:
            pl_module.log("data/skipped_lines", float(sum(data.skipped.values())))
        sizes = data.amounts("train") if data.stream is None else {}
        for language, n_bytes in data.read().items():
            name = metric_name(language)
            pl_module.log(f"train/bytes_{name}", float(n_bytes))
            if language in sizes:
                pl_module.log(f"train/times_read_{name}", n_bytes / max(sizes[language].bytes, 1))
