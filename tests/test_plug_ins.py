"""A package that adds a splitter by an entry point: installed with pip, used by name, named if it is broken."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.helpers import ROOT, UDHR, place_store

PACKAGE = Path(__file__).parent / "plug_in"
PRINT = "import splitters; print(splitters.available())"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return install(PACKAGE, tmp_path_factory.mktemp("site"))


def install(package: Path, site: Path) -> Path:
    """Installs a package with pip into a folder of its own."""
    copy = site.parent / f"{site.name}-source"
    shutil.copytree(package, copy)  # pip leaves its traces beside the source
    command = ["-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(site), str(copy)]
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    return site


def python(site: Path, *arguments: str, **options) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": f"{site}{os.pathsep}{ROOT}"}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, **options)


def test_an_installed_splitter_is_available_and_lawful(site):
    done = python(site, "-c", f"{PRINT}; splitters.check({{'name': 'vowels', 'n': 2, 'align': 'first'}})", check=True)
    assert "'vowels'" in done.stdout
    assert (
        "vowels(n=1, align='last')\n    A boundary at every `n`-th vowel.\n    source: a test\n"
        in python(site, "-m", "aunet_lightning.cli.main", "splitters", check=True).stdout
    )


def test_a_run_uses_it_from_yaml_by_name(site, tmp_path, store_template):
    place_store(store_template, tmp_path / "runs" / "mlflow.db")
    settings = {
        "splitter": {"name": "vowels", "n": 2},
        "upper_splitters": [],
        "data": {"train_files": [str(UDHR / "en.jsonl")], "row_bytes": 32, "batch_rows": 2, "workers": 1},
        "model": {
            "net": {
                "stages": [
                    {"dim": 16, "layers": 1, "head_dim": 8, "window": 8},
                    {"dim": 16, "layers": 1, "head_dim": 8},
                ]
            }
        },
        "trainer": {"accelerator": "cpu", "max_steps": 2},
        "report": {"ngrams": []},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    done = python(site, "-m", "aunet_lightning.cli.main", "fit", "-c", "run.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "runs").glob("*/vowels*")
    assert (folder / "checkpoints" / "last.ckpt").is_file()


BROKEN = {
    "import": ("import a_module_that_is_not_there", "aunet_vowels:Vowels", "No module named 'a_module_that_is_not_there'"),
    "attribute": ("", "aunet_vowels:Consonants", "no attribute 'Consonants'"),
    "class": ("def Vowels(): pass", "aunet_vowels:Vowels", "must be a class that inherits"),
    "method": ("import splitters\nclass Vowels(splitters.Splitter): pass", "aunet_vowels:Vowels", "lacks split, stepper"),
    "signature": (
        "import splitters\nclass Vowels(splitters.Splitter):\n  def split(self): pass\n  def stepper(self): pass",
        "aunet_vowels:Vowels",
        "split(self) must be split(self, data: bytes)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", [*BROKEN, "name taken"])
def test_a_broken_package_is_named(how, site, tmp_path):
    """As pip has installed it, with another entry point or other code."""
    broken = shutil.copytree(site, tmp_path / "site")
    (points,) = broken.glob("aunet_vowels-*.dist-info/entry_points.txt")
    known = points.read_text()
    if how == "name taken":
        points.write_text(known.replace("vowels = ", "whitespace = "))
        words = "'whitespace' is already splitters.rules.whitespace.Whitespace"
    else:
        code, entry, words = BROKEN[how]
        points.write_text(known.replace("aunet_vowels:Vowels", entry))
        if code:
            (broken / "aunet_vowels" / "__init__.py").write_text(code)
    done = python(broken, "-c", PRINT)
    error = done.stderr.splitlines()[-1]
    assert error.startswith("ValueError: the splitter ")
    assert "of package 'aunet-vowels'" in error
    assert "pip uninstall aunet-vowels" in error
    assert words in error
