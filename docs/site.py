"""Takes into the site what lies beside `docs`: the README as its first page, and files that pages link to."""

import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
BESIDE = re.compile(r"\]\(\.\./([^)#]+)")  # a link out of `docs`
IN_DOCS = re.compile(r"\]\(docs/")  # a link of the README into it


def on_files(files, config):
    pages = [ROOT / "docs" / file.src_uri for file in files.documentation_pages()]
    linked = {target for page in pages for target in BESIDE.findall(page.read_text(encoding="utf-8"))}
    linked |= {"experiments/RESULTS.md", "CONTRIBUTING.md"}
    for target in sorted(linked):
        files.append(File.generated(config, target, abs_src_path=str(ROOT / target)))
    files.append(File.generated(config, "index.md", content=(ROOT / "README.md").read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown, page, config, files):
    if page.file.src_uri in ("index.md", "CONTRIBUTING.md"):
        markdown = IN_DOCS.sub("](", markdown).replace('src="docs/', 'src="')
    beside = "/" in page.file.src_uri  # a page that was taken in from a folder beside `docs`
    return re.sub(r"\]\(\.\./docs/", "](../", markdown) if beside else re.sub(r"\]\(\.\./", "](", markdown)
