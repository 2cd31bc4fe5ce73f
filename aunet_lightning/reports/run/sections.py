"""Sections of a run's page on its model: samples, boundaries, surprisal, lengths of units, attention."""

import html
from collections.abc import Sequence

from aunet_lightning.reader.levels import FixedLevels
from aunet_lightning.reports import pictures
from aunet_lightning.reports.page import Block, Heading, Pictures, Sentence, Text
from aunet_lightning.reports.run.drawings import matrix, ridges
from aunet_lightning.reports.run.kept import Reading
from aunet_lightning.reports.run.known import Known, spaced

MOST = 12  # validations of which samples and boundaries are shown
LANGUAGES = 24  # in a panel of lengths
UNITS = (
    "Each unit of stage 2 has a tint, two in turn; lines under the text join them to units of stage 3 and above. "
    "A unit begins at the character whose last byte carries its boundary. The numbers are bytes per unit in the "
    "sentence, by stage."
)
TOKENS = "Each token has a tint, two in turn. The numbers are bytes per token in the sentence."


def samples(known: Known) -> list[Block]:
    """What the model makes of each prompt, validation by validation."""
    looks = spaced([look for look in known.looks if look.samples], MOST)
    if not looks:
        return [Heading("Samples"), Text("The run generates none: report.sample_prompts is empty.")]
    blocks: list[Block] = [Heading("Samples")]
    for prompt in dict.fromkeys(prompt for look in looks for prompt, _ in look.samples):
        made = [(look.step, text) for look in looks for of, text in look.samples if of == prompt]
        lines = [(f"step {step:,}", "", _continued(prompt, text), text) for step, text in made]
        blocks.append(Sentence("", lines, "plain"))
    of = known.settings.get("report", {})
    how = f"temperature {of.get('sample_temperature')}, the same draws each time" if of else "the same draws each time"
    return [*blocks, Text(f"Prompts (bold) and what the model adds at each validation: {how}.", "note")]


def _continued(prompt: str, text: str) -> str:
    begin, rest = (prompt, text[len(prompt) :]) if text.startswith(prompt) else ("", text)
    return f"<b>{html.escape(begin)}</b>{html.escape(rest)}"


def boundaries(known: Known) -> list[Block]:
    """Where the units of the sentences begin: of learned splitters at several validations."""
    readings = [one for one in known.close.readings if len(one.levels) == len(one.text.encode()) > 0]
    if not known.close.depth or not readings:
        return []
    blocks: list[Block] = [Heading("Boundaries")]
    for reading in readings:
        formed = spaced(
            [look for look in known.looks if len(look.levels.get(reading.text, ())) == len(reading.levels)], MOST
        )
        at = {f"step {look.step:,}": look.levels[reading.text] for look in formed} or {reading.name: reading.levels}
        lines = [_drawn(label, reading.text, levels, known.close.depth) for label, levels in at.items()]
        blocks += [*([Heading(reading.name, 3)] if formed else []), Sentence("", lines)]
    if known.of_tokens:
        return [*blocks, Text(TOKENS, "note")]
    fixed = not any(look.levels for look in known.looks)
    return [*blocks, Text(UNITS + (" They are those of a rule, the same at any step." if fixed else ""), "note")]


def _drawn(label: str, text: str, levels: Sequence[int], depth: int) -> tuple[str, str, str, str]:
    data, fixed = text.encode(), FixedLevels(depth, {text: levels})
    per_unit = " · ".join(f"{value:.1f}" for value in pictures.bytes_per_unit(data, fixed))
    return label, per_unit, pictures.as_spans(data, fixed), pictures.as_line(data, fixed)


def surprisal(known: Known) -> list[Block]:
    """Bits of each character of the sentences, beside their units."""
    readings = [one for one in known.close.readings if len(one.bits) == len(one.levels) == len(one.text.encode()) > 0]
    if not readings:
        return []
    lines = []
    for one in readings:
        most = _full(_by_cluster(one))
        number = f"{sum(one.bits) / len(one.bits):.2f} bits per byte, full bar {most:g} bits"
        lines.append((one.name, number, _barred(one, most), one.text))
    note = (
        "Below each character are the bits that the model needs for it, given those before; bars are in proportion "
        f"within a sentence. Held-out text, at step {known.close.step:,}."
    )
    if known.close.depth:
        units = "tokens, whose bits are spread over their bytes" if known.of_tokens else "units of stage 2"
        note += f" Tints are {units}; bars change colour with them."
    return [Heading("Surprisal"), Sentence("", lines), Text(note, "note")]


def _by_cluster(reading: Reading) -> list[float]:
    """Bits of each grapheme cluster."""
    found, at = [], 0
    for cluster in _clusters(reading):
        found.append(sum(reading.bits[at : at + cluster.bytes]))
        at += cluster.bytes
    return found


def _clusters(reading: Reading) -> list[pictures.Cluster]:
    fixed = FixedLevels(max(reading.levels, default=0), {reading.text: reading.levels})
    return pictures.clusters(reading.text.encode(), fixed)


def _full(bits: Sequence[float]) -> float:
    """The bits of a full bar: the 95th percentile, as a round number."""
    high = sorted(bits)[int(0.95 * (len(bits) - 1))]
    return next((step for step in (1.0, 2.0, 4.0, 8.0, 12.0, 16.0, 24.0) if high <= step), 32.0)


def _barred(reading: Reading, most: float) -> str:
    """The text as spans: one per unit, in it one per character with a bar of its bits."""
    units: list[list[str]] = [[]]
    for cluster, bits in zip(_clusters(reading), _by_cluster(reading), strict=True):
        if cluster.level:
            units.append([])
        high = round(100 * min(bits / most, 1.0))
        units[-1].append(
            f'<span class="s" style="--b:{high}%" title="{bits:.1f} bits">{html.escape(cluster.text)}</span>'
        )
    kept = [unit for unit in units if unit]
    spans = (f'<span class="u1 {"ab"[i % 2]}">{"".join(unit)}</span>' for i, unit in enumerate(kept))
    plain = "" if any(reading.levels) else "".join(kept[0] if kept else [])
    return f'<span class="bits">{plain or "".join(spans)}</span>'


def lengths(known: Known) -> list[Block]:
    """How long units are, by language."""
    of = {stage: by for stage, by in known.close.lengths.items() if by}
    if not of:
        return []
    most = {stage: sorted(by, key=lambda language: -sum(by[language]))[:LANGUAGES] for stage, by in of.items()}
    shown = {stage: {language: by[language] for language in by if language in most[stage]} for stage, by in of.items()}
    names = {stage: "token" if stage == "token" else f"unit of {stage.replace('stage', 'stage ')}" for stage in of}
    drawn = Pictures(
        "lengths", [*shown], lambda name, stage: ridges(name, shown[stage], names[stage]),
        {stage: f"{name[0].upper()}{name[1:]}" for stage, name in names.items()},
    )  # fmt: skip
    note = (
        f"Units that the held-out text has by their bytes, at step {known.close.step:,}. Each row is as high as its "
        "highest bar; the black line, and the number on the right, is the median. The longest in a hundred of the most "
        "varied language are not shown."
    )
    left_out = max(len(by) - LANGUAGES for by in of.values())
    more = f" {left_out} languages with less text are left out." if left_out > 0 else ""
    return [Heading("Lengths of units"), drawn, Text(note + more, "note")]


def attention(known: Known) -> list[Block]:
    """What is read of a short sentence."""
    attended = [one for one in known.close.attended if len(one.weights) == len(one.rows) > 1]
    if not attended:
        return []
    titles = {str(i): one.title for i, one in enumerate(attended)}
    drawn = Pictures("attention", [*titles], lambda name, key: matrix(attended[int(key)]), titles)
    note = (
        "Attention over the beginning of the first sentence: what a row names reads what the columns name, the darker "
        "the more. It is the mean over the heads of the last layer; each row adds up to 1. A unit's vector "
        "is made at its boundary, and so from the text before it; ⟨BOS⟩ is the beginning of the document."
    )
    return [Heading("What is read"), drawn, Text(note, "note")]


STYLE = """
 .named tbody th[scope=row] { max-width: 24rem; position: static; overflow-wrap: break-word; }
 .named td { overflow-wrap: anywhere; min-width: 3.5rem; }
 .bits { line-height: 3.9; }
 .s { padding-bottom: 1.5em; background: bottom / 100% 1.4em no-repeat;
      background-image: linear-gradient(to top, #0072b2 var(--b), transparent 0); }
 .b > .s { background-image: linear-gradient(to top, #d55e00 var(--b), transparent 0); }
 .u1.a, .u1.b { background-clip: content-box; }
"""
