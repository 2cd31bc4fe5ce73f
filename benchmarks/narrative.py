"""Fetches narrative text, aligned in English, Japanese and Chinese, for experiments/compare/answer-narrative.yaml: the
dialogue and stories of five campaigns of Battle for Wesnoth 1.16 (GPL 2 or later), from packages of Debian 12.

python -m benchmarks.narrative [--out runs/narrative]

A document is a scenario: its messages in the order of its file, those that all three languages have. No copy is in
this repository, and none of it is in the training text of studies.
"""

import argparse
import gettext
import io
import json
import re
import tarfile
import urllib.request
from pathlib import Path

URL = "http://deb.debian.org/debian/pool/main/w/wesnoth-1.16/wesnoth-1.16-{}_1.16.9-1_all.deb"
CAMPAIGNS = ("did", "httt", "low", "sota", "thot")
LANGUAGES = {"en": None, "ja": "ja", "zh-Hans": "zh_CN"}  # and the folders of their translations
MESSAGE = re.compile(r'\b(?:message|story)\s*=\s*_\s*"((?:[^"]|"")*)"')
MARKUP = re.compile(r"</?[a-z]+>")
DOMAIN = re.compile(r"#textdomain (\S+)")
AR_HEADER = 60  # bytes before each member of an archive of ar, after the 8 of its own


def files_of(package: bytes) -> dict[str, bytes]:
    """Returns the scenarios and translations of a Debian package, by path."""
    at = 8
    while not package[at:].startswith(b"data.tar"):
        size = int(package[at + 48 : at + 58])
        at += AR_HEADER + size + size % 2
    data = package[at + AR_HEADER : at + AR_HEADER + int(package[at + 48 : at + 58])]
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        wanted = [one for one in archive if one.isfile() and re.search(r"/scenarios/.*\.cfg$|\.mo$", one.name)]
        return {one.name: archive.extractfile(one).read() for one in wanted}  # type: ignore[union-attr]


def documents(files: dict[str, bytes]) -> dict[str, dict[str, str]]:
    """Returns the text of each scenario of a campaign, by its name and language."""
    found: dict[str, dict[str, str]] = {}
    for path, content in sorted(files.items()):
        scenario = content.decode(errors="replace") if path.endswith(".cfg") else ""
        messages = [one.replace('""', '"') for one in MESSAGE.findall(scenario)]
        domain = DOMAIN.search(scenario)
        if not messages or domain is None:
            continue
        of = {language: _translations(files, domain[1], folder) for language, folder in LANGUAGES.items()}
        rows = [[of[language].get(one, "") for language in LANGUAGES] for one in dict.fromkeys(messages)]
        if complete := [row for row in rows if all(row)]:
            texts = (
                "\n".join(" ".join(MARKUP.sub("", one).split()) for one in column)
                for column in zip(*complete, strict=True)
            )
            found[f"{domain[1]}/{Path(path).stem}"] = dict(zip(LANGUAGES, texts, strict=True))
    return found


def _translations(files: dict[str, bytes], domain: str, folder: str | None) -> dict[str, str]:
    """Returns each message in a language; in English as it is. Messages without a translation are left out."""
    of = next(of for path, of in files.items() if path.endswith(f"/{folder or 'ja'}/LC_MESSAGES/{domain}.mo"))
    catalogue = gettext.GNUTranslations(io.BytesIO(of))._catalog  # type: ignore[attr-defined]
    messages = {key: value for key, value in catalogue.items() if isinstance(key, str) and key}
    return messages if folder else {key: key for key in messages}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/narrative"))
    out = parser.parse_args().out
    found: dict[str, dict[str, str]] = {}
    for campaign in CAMPAIGNS:
        with urllib.request.urlopen(URL.format(campaign)) as response:
            found |= documents(files_of(response.read()))
        print(f"{campaign}: {len(found)} documents so far", flush=True)
    out.mkdir(parents=True, exist_ok=True)
    for language in LANGUAGES:
        lines = [{"text": of[language], "lang": language, "id": name} for name, of in found.items()]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (out / f"{language}.jsonl").write_text(text, encoding="utf-8")
        print(f"{out / language}.jsonl: {len(lines)} documents, {sum(len(x['text'].encode()) for x in lines)} bytes")


if __name__ == "__main__":
    main()
