"""Text streamed from large files: how fast batches come, and the memory of the process and of its largest worker.

    python -m benchmarks.streaming FILE… [--gigabytes 2] [--workers 2] [--buffer 64e6]

The files' lines are repeated to so many gigabytes in a temporary folder. Prints a JSON line every 4000 batches.
"""

import argparse
import gzip
import json
import tempfile
import time
from multiprocessing import active_children
from pathlib import Path

from aunet_lightning import ByteDataModule

PAGE, EVERY = 4096, 4000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="JSON lines, perhaps compressed by gzip")
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--buffer", type=float, default=64e6)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wanted = options.gigabytes * 1e9
        files = _repeated([_lines(path) for path in options.files], Path(folder), wanted)
        data = ByteDataModule(
            files, workers=options.workers, row_bytes=4096, batch_rows=8, shuffle_buffer_bytes=options.buffer,
            cache_dir=folder,
        )  # fmt: skip
        data.setup()
        loader = data.train_dataloader()
        begin, read = time.perf_counter(), 0
        for number, batch in enumerate(loader, 1):
            read += int(batch["sizes"].sum())
            if number % EVERY == 0:
                seconds = time.perf_counter() - begin
                print(
                    json.dumps({
                        "bytes": read, "bytes_per_second": round(read / seconds), "memory": _memory("self"),
                        "memory_of_a_worker": max((_memory(str(one.pid)) for one in active_children()), default=0),
                    }),
                    flush=True,
                )  # fmt: skip
            if read > wanted:
                break
        loader.close()


def _lines(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def _repeated(texts: list[bytes], folder: Path, wanted: float) -> list[str | dict[str, str | float]]:
    """Writes each text so often that all have the wanted size; returns the files."""
    found: list[str | dict[str, str | float]] = []
    for number, text in enumerate(texts):
        path = folder / f"{number}.jsonl"
        with path.open("wb") as file:
            for _ in range(max(round(wanted / len(texts) / len(text)), 1)):
                file.write(text)
        found.append(str(path))
    return found


def _memory(process: str) -> int:
    """The resident bytes of a process."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE


if __name__ == "__main__":
    main()
