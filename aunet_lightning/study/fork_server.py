"""Starts cells as processes of this machine, one per device.

A server that has imported everything and rehearsed a cell of each kind (`cli/server.py`) forks the processes, so a cell
trains within seconds. Cells end with the process that started them.
"""

import multiprocessing
import os
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from aunet_lightning.study.cell_process import Main, cell_process, prepare, rank_environment, write
from aunet_lightning.study.grid import Study
from aunet_lightning.study.sizing import Sized
from aunet_lightning.study.starting import Started, Starter, gpus_of, threads_of

SERVER = ["aunet_lightning.cli.server"]  # modules that the server imports before it forks
REHEARSED = "AUNET_REHEARSED"  # the environment variable that names a folder of settings, which the server rehearses


def kinds(cells: Sequence[Sized]) -> list[Sized]:
    """Returns the first of the cells that differ only in language or seed."""
    return [*{(one.cell.splitter, one.cell.stages): one for one in reversed(cells)}.values()]


@contextmanager
def fork_server(cells: Sequence[Sized], study: Study, main: Main) -> Iterator[Starter]:
    """The server of the processes of cells, which starts with the first one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(SERVER)
    with tempfile.TemporaryDirectory() as folder:
        for one in kinds(cells):
            write(Path(folder) / f"{one.cell.name}.yaml", one.settings)
        os.environ[REHEARSED] = folder
        try:
            yield _ForkServer(context, study, main)
        finally:
            del os.environ[REHEARSED]


class _ForkServer(Starter):
    def __init__(self, context: ForkServerContext, study: Study, main: Main) -> None:
        self.context, self.study, self.main = context, study, main

    def start(self, cell: Sized, slot: int) -> Started:
        task = prepare(cell)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        common = {
            "OMP_NUM_THREADS": str(threads_of(cell, self.study)), "CUDA_VISIBLE_DEVICES": gpus_of(slot, self.study)
        }  # fmt: skip
        processes = []
        for rank in range(cell.devices):
            env = common | rank_environment(cell.cell.name, rank, cell.devices, port)
            processes.append(self.context.Process(target=cell_process, args=(task, self.main, rank, env)))
            processes[-1].start()
        return _Processes(processes)


class _Processes(Started):
    def __init__(self, processes: Sequence[ForkServerProcess]) -> None:
        self.processes = processes

    @property
    def sentinels(self) -> list[int]:
        return [process.sentinel for process in self.processes if process.is_alive()]

    @property
    def codes(self) -> list[int] | None:
        codes = [process.exitcode for process in self.processes if process.exitcode is not None]
        return codes if len(codes) == len(self.processes) else None

    def stop(self) -> None:
        for process in self.processes:
            process.terminate()

    def kill(self) -> None:
        for process in self.processes:
            if process.exitcode is None:
                process.kill()
