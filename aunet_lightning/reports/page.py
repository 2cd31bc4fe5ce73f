"""The blocks of a report, each with its HTML and its Markdown, and the page around them."""

import html
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from aunet_lightning.reports.figures import Picture, ink
from aunet_lightning.reports.pictures import UNIT_STYLE

_TAG = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")


class Block(Protocol):
    def html(self) -> str: ...

    def markdown(self) -> str: ...


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: str = ""  # note or warning

    def html(self) -> str:
        return f"<p{_class(self.kind)}>{html.escape(self.text)}</p>"

    def markdown(self) -> str:
        return ("**Warning:** " if self.kind == "warning" else "") + plain(self.text)


@dataclass(frozen=True)
class Items:
    """A list; each item has a bold lead, which may be empty."""

    items: Sequence[tuple[str, str]]

    def html(self) -> str:
        rows = (
            f"<li>{f'<b>{html.escape(lead)}</b> ' if lead else ''}{html.escape(text)}</li>" for lead, text in self.items
        )
        return f"<ul>{''.join(rows)}</ul>"

    def markdown(self) -> str:
        return "\n".join(f"- {f'**{plain(lead)}** ' if lead else ''}{plain(text)}" for lead, text in self.items)


@dataclass(frozen=True)
class TableCell:
    """A cell of a table: lines, one above the other."""

    lines: Sequence[str]
    colour: str = ""  # of the background, as #rrggbb
    best: bool = False  # its first line is bold
    missing: bool = False

    def html(self) -> str:
        style = f' style="background:{self.colour};color:{ink(self.colour)}"' if self.colour else ""
        kind = _class(" ".join(name for name in ("best", "missing") if getattr(self, name)))
        first, *more = [html.escape(line) for line in self.lines] or [""]
        first = f"<b>{first}</b>" if self.best else first
        return f"<td{kind}{style}>{first}{''.join(f'<small>{line}</small>' for line in more)}</td>"

    def markdown(self) -> str:
        first, *more = [plain(line) for line in self.lines] or [""]
        return " · ".join([f"**{first}**" if self.best else first, *more])


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows. A row of one cell is a heading for those below it."""

    header: Sequence[str]
    rows: Sequence[Sequence[str | TableCell]]
    kind: str = ""  # heat: centred cells with colours; wordy: sentences; named: rows are names with dots

    def html(self) -> str:
        head = "".join(f'<th scope="col">{html.escape(title)}</th>' for title in self.header)
        groups: list[list[str]] = [[]]
        for row in self.rows:
            if len(row) == 1:
                groups.append(
                    [f'<tr><th scope="rowgroup" colspan="{len(self.header)}">{html.escape(str(row[0]))}</th></tr>']
                )
                continue
            cells = "".join(
                cell.html() if isinstance(cell, TableCell) else f"<td>{html.escape(cell)}</td>" for cell in row[1:]
            )
            name = html.escape(str(row[0]))
            name = name.replace(".", ".<wbr>") if "named" in self.kind else name
            groups[-1].append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
        body = "".join(f"<tbody>{''.join(group)}</tbody>" for group in groups if group)
        table = f"<table{_class(self.kind)}><thead><tr>{head}</tr></thead>{body}</table>"
        return f'<div class="scroll" tabindex="0">{table}</div>'

    def markdown(self) -> str:
        lines = ["| " + " | ".join(map(plain, self.header)) + " |", "|---|" + "---:|" * (len(self.header) - 1)]
        for row in self.rows:
            cells = [cell.markdown() if isinstance(cell, TableCell) else plain(cell) for cell in row]
            if len(row) == 1:
                cells = [f"**{cells[0]}**", *[""] * (len(self.header) - 1)]
            lines.append("| " + " | ".join(cells) + " |")
        return "\n".join(lines)


@dataclass(frozen=True)
class Key:
    """The key to the colours of a heat map."""

    colours: Sequence[tuple[str, str]]  # colour, what it means

    def html(self) -> str:
        spans = (f'<span style="background:{c};color:{ink(c)}">{html.escape(text)}</span>' for c, text in self.colours)
        return f'<p class="key">{"".join(spans)}</p>'

    def markdown(self) -> str:
        return "(In colour in `report.html` and `heatmap.png`.)"


@dataclass(frozen=True)
class Pictures:
    """Panels side by side, drawn when they are asked for. `name` and a panel's key begin the names of their files."""

    name: str
    keys: Sequence[str]
    draw: Callable[[str, str], Picture | None]  # takes a name that is unique in the page, and a key; None: no panel
    captions: Mapping[str, str] = field(default_factory=dict)  # by key, where it is not the key itself
    missing: str = "No cell has the numbers for this figure."  # in place of them, where there is none

    @cached_property
    def panels(self) -> dict[str, Picture]:
        """The pictures of the keys that have one."""
        drawn = {key: self.draw(f"{self.name}{i}", key) for i, key in enumerate(self.keys)}
        return {key: picture for key, picture in drawn.items() if picture is not None}

    def html(self) -> str:
        if not self.panels:
            return Text(self.missing).html()
        figures = (self._figure(self.captions.get(key, key), picture) for key, picture in self.panels.items())
        return f'<div class="panels">{"".join(figures)}</div>'

    @staticmethod
    def _figure(caption: str, picture: Picture) -> str:
        described = picture.svg.replace("<svg ", f'<svg aria-label="{html.escape(caption)}" ', 1)
        return f"<figure><figcaption>{html.escape(caption)}</figcaption>{described}</figure>"

    def markdown(self) -> str:
        return "(Pictures are in `report.html`, and in `figures` as SVG and CSV.)"


@dataclass(frozen=True)
class Sentence:
    """A sentence with a line per splitter."""

    language: str
    lines: Sequence[tuple[str, str, str, str]]  # label, bytes per unit, HTML of the text, text with marks
    kind: str = ""  # plain: without marks below its lines

    def html(self) -> str:
        rows = "".join(
            f'<tr><th scope="row">{html.escape(label)}<small>{html.escape(number)}</small></th>'
            f'<td><div class="text" dir="auto"{_lang(self.language)}>{text}</div></td></tr>'
            for label, number, text, _ in self.lines
        )
        return f"<table{_class(f'units {self.kind}'.rstrip())}><tbody>{rows}</tbody></table>"

    def markdown(self) -> str:
        lines = ["| splitter | bytes per unit | text |", "|---|---:|---|"]
        lines += [f"| {plain(label)} | {plain(number)} | {plain(text)} |" for label, number, _, text in self.lines]
        return "\n".join(lines)


@dataclass(frozen=True)
class Verbatim:
    """Preformatted text, folded under its title if it has one."""

    text: str
    title: str = ""

    def html(self) -> str:
        block = f"<pre>{html.escape(self.text)}</pre>"
        return f"<details><summary>{html.escape(self.title)}</summary>{block}</details>" if self.title else block

    def markdown(self) -> str:
        fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", self.text)), default=0))
        block = f"{fence}\n{self.text.rstrip()}\n{fence}"
        return f"{plain(self.title)}:\n\n{block}" if self.title else block


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2

    def html(self) -> str:
        name = f' id="{re.sub("[^a-z]+", "-", self.text.lower())}"' if self.level == 2 else ""
        return f"<h{self.level}{name}>{html.escape(self.text)}</h{self.level}>"

    def markdown(self) -> str:
        return "#" * self.level + " " + plain(self.text)


def as_html(title: str, blocks: Sequence[Block], style: str = "") -> str:
    """Returns a self-contained page: no scripts, no other files, no network. style: further CSS."""
    contents = "".join(
        f'<a href="#{re.sub("[^a-z]+", "-", block.text.lower())}">{html.escape(block.text)}</a> '
        for block in blocks
        if isinstance(block, Heading) and block.level == 2
    )
    sections, head = "".join(block.html() + "\n" for block in blocks), html.escape(title)
    return _PAGE.format(title=head, style=_STYLE + style, contents=contents, sections=sections)


def as_markdown(title: str, blocks: Sequence[Block]) -> str:
    """Returns the same as Markdown, without pictures."""
    return "\n\n".join([f"# {plain(title)}", *(block.markdown() for block in blocks)]) + "\n"


def plain(text: str) -> str:
    """Returns text escaped for Markdown, in one line."""
    text = re.sub(r"[\\`*\[\]|~$#]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", " ".join(text.split()))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _class(names: str) -> str:
    return f' class="{names}"' if names else ""


def _lang(language: str) -> str:
    """A lang attribute, if the name of a language is a code such as `th` or `zh_Hans`."""
    code = language.replace("_", "-")
    return f' lang="{html.escape(code)}"' if _TAG.fullmatch(code) else ""


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>{style}</style></head>
<body><h1>{title}</h1>
<nav>{contents}</nav>
{sections}</body></html>
"""

_STYLE = (
    """
 body { font: 16px/1.5 system-ui, "Noto Sans", "Noto Sans CJK SC", "Noto Sans Thai", sans-serif; color: #1c1c1c;
        background: #fff; max-width: 82rem; margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
 h1 { font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; }
 h2 { font-size: 1.25rem; margin: 2.2rem 0 .5rem; border-bottom: 2px solid #d8d8d8; }
 h3 { font-size: 1.05rem; margin: 1.5rem 0 .3rem; }
 p, ul { margin: .5rem 0; max-width: 50rem; } ul { padding-left: 1.3rem; }
 nav { font-size: .85rem; } nav a { margin-right: 1rem; display: inline-block; } a { color: #0b4f8a; }
 .answer { font-size: 1.1rem; background: #eef4fa; border-left: 4px solid #0072b2; padding: .6rem .9rem; }
 .note { font-size: .88rem; color: #444; }
 .warning { background: #fff4d6; border-left: 4px solid #b36b00; padding: .4rem .8rem; }
 .scroll { overflow-x: auto; margin: .6rem 0;
           background: linear-gradient(to left, #fff, #fff0) right / 3rem 100% no-repeat local,
                       linear-gradient(to left, #0005, #0000) right / 1.2rem 100% no-repeat; }
 @supports (animation-timeline: scroll()) {
  .scroll { background: none; mask: linear-gradient(to left, #0000, #000 var(--cut));
            animation: linear both cut; animation-timeline: scroll(self inline); }
 }
 @property --cut { syntax: "<length>"; inherits: false; initial-value: 0px; }
 @keyframes cut { 0%, 90% { --cut: 2.5rem; } to { --cut: 0px; } }
 table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
 td, th { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: right; overflow-wrap: normal; }
 td { white-space: nowrap; }
 th { font-weight: 600; } tr > :first-child { text-align: left; }
 tbody th[scope=row] { position: sticky; left: 0; background: #fff; min-width: 7rem; max-width: 12rem;
                        overflow-wrap: anywhere; }
 th[scope=rowgroup] { background: #f1f1f1; }
 small { display: block; font-size: .86em; line-height: 1.3; font-weight: 400; }
 .heat td, .heat thead th + th { text-align: center; } .heat td { border: 1px solid #fff; min-width: 5.2rem; }
 .heat td.best { box-shadow: inset 0 0 0 2px #000; } .heat b { font-size: 1.15em; }
 .wordy td, .wordy th { white-space: normal; text-align: left; } .wordy td:nth-child(7) { min-width: 14rem; }
 td.missing { background: #e6e6e6; color: #333; font-style: italic; }
 .key span { display: inline-block; padding: .1rem .6rem; }
 .panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(21rem, 100%), 1fr)); gap: 1rem; }
 figure { margin: 0; } figcaption { font-weight: 600; } figure svg { width: 100%; height: auto; max-width: 30rem; }
 .units { width: 100%; table-layout: fixed; margin-bottom: 1rem; }
 .units td { white-space: normal; text-align: start; } .units td, .units th { vertical-align: top; }
 .units th { width: 10rem; }
 .text { font-size: 1rem; line-height: 2.3; overflow-wrap: anywhere; white-space: pre-wrap; }
 .plain .text { line-height: 1.45; }
 .text span { box-decoration-break: clone; -webkit-box-decoration-break: clone; }
"""
    + UNIT_STYLE
    + """ pre { font-size: .82rem; background: #f5f5f5; padding: .7rem; overflow-x: auto; }
 summary { cursor: pointer; color: #0b4f8a; }
 @media (max-width: 40rem) {
  .units tr, .units td, .units th { display: block; width: auto; max-width: none; border: 0; padding: 0; }
  .units tbody th[scope=row] { margin-top: .5rem; max-width: none; position: static; }
  .units th small { display: inline; margin-left: .6rem; }
  tbody th[scope=row] { max-width: 7rem; }
 }
 @page { size: A4; margin: 14mm 12mm; }
 @media print {
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { font-size: 10pt; padding: 0; max-width: none; } p, ul { max-width: none; } nav { display: none; }
  .scroll { overflow: visible; background: none; mask: none; } tbody th[scope=row] { position: static; }
  table { font-size: 7.5pt; width: 100%; } td, th { padding: .12rem .25rem; } td { white-space: normal; }
  .heat td, .wordy td:nth-child(7) { min-width: 0; } tbody th[scope=row] { min-width: 14mm; }
  .text { font-size: 9pt; line-height: 2; } .units th { width: 30mm; }
  .units tbody th[scope=row] { min-width: 0; }
  tr, .heat, figure, li, .answer { break-inside: avoid; } h2, h3 { break-after: avoid; }
  thead { display: table-header-group; }
  .panels { grid-template-columns: 1fr 1fr; } pre { white-space: pre-wrap; font-size: 8pt; }
  details::details-content { content-visibility: visible; block-size: auto; }
  summary { list-style: none; }
 }
"""
)
