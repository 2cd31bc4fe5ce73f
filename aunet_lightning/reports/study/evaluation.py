"""What the models of a study know beside BPB: shares of right answers, and bits of changed text, with the statistics of
BPB."""

from aunet_lightning.reports.page import Block, Heading, Table, TableCell, Text
from aunet_lightning.reports.study import sentences
from aunet_lightning.reports.study.sections import chunks
from aunet_lightning.reports.study.statistics import Comparison, Group
from aunet_lightning.study.evaluating import OTHER_TEXT, is_text
from aunet_lightning.study.grid import ROBUSTNESS

TITLES = {
    "minimal_pairs": "Minimal pairs", "spelling": "Spelling and edits", "parts": "Parts of characters",
    ROBUSTNESS: "BPB where text is changed: {}", OTHER_TEXT: "BPB of text of another kind: {}",
}  # fmt: skip


def evaluation(comparison: Comparison) -> list[Block]:
    """Returns a table for each evaluation that cells have; nothing where they have none."""
    study = comparison.study
    names = list(dict.fromkeys(name for cell in study.cells for name in cell.evaluations))
    if not names:
        return []
    blocks: list[Block] = [Heading("What the models know")]
    for name in sorted(names, key=lambda name: (name.startswith(ROBUSTNESS), name)):
        kind, _, of = name.partition(": ")
        title = TITLES[kind].format(of)
        blocks += [Heading(title, 3), *_tables(Comparison(study.evaluated(name)), is_text(name))]
    note = (
        "Mean over seeds, ± half of the range; right answers are choices by the fewest bits per byte, of items made of "
        "the validation text (aunet eval). BPB of changed text is its bits ÷ the bytes of the text as it was. Bold: "
        f"the best of a language; {sentences.NOT_APART} not told apart from it, by the rule that BPB is compared by."
    )
    return [*blocks, Text(note, "note")]


def _tables(comparison: Comparison, of_text: bool) -> list[Block]:
    return [
        Table(
            ["splitter", *languages],
            [
                [comparison.label(arm), *(_cell(comparison, comparison.groups[arm, one], of_text) for one in languages)]
                for arm in comparison.arms
            ],
        )
        for languages in chunks(comparison.languages)
    ]


def _cell(comparison: Comparison, group: Group, of_text: bool) -> TableCell:
    if not group.values:
        return TableCell(["–"], missing=True)
    best = comparison.ranking(group.language)[0]
    value = f"{group.mean:.3f}" if of_text else f"{1 - group.mean:.1%}"
    half = "" if group.range is None else f" ±{group.range / 2:.3f}" if of_text else f" ±{50 * group.range:.1f}"
    apart = group is best or comparison.difference(group, best).apart is not False
    return TableCell([f"{value}{half}{'' if apart else ' ' + sentences.NOT_APART}"], best=group is best)
