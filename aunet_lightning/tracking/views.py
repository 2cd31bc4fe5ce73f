"""What MLflow's page of an experiment shows when it is opened by the printed link: columns of the list of runs, and
charts in sections.

MLflow keeps such a view as JSON in a tag of the experiment, which its *Share* button writes, too. A chart that a view
names is drawn as it says; metrics that it does not name get a chart each, at the end of the section of their prefix.
BPB of all languages shares a chart; units of single languages are in sections that are folded at first; constants (what
a run costs, what its text is) have no chart, as they are in the list of runs.
"""

import base64
import json
import re
import zlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

RUNS, MEANS = "runs", "means"  # views: that which the printed link opens; a study's, over its seeds
TAG = "mlflow.sharedViewState."
LONGEST = 5000  # characters of an experiment's tag
PACKED = "deflate;"
SECTIONS = ("val", "best", "test", "train", "units", "parallel", "generated", "perf")
OTHERS = ("Model metrics", "System metrics")  # MLflow's own, which have to come last
COLUMNS = (
    "metrics.`best/val_bpb`", "metrics.`val/bpb`", "tags.`splitter`", "tags.`language`", "tags.`stages`",
    "metrics.`bytes_seen`", "metrics.`flops`", "attributes.`Dataset`",
)  # fmt: skip
_LANGUAGE = re.compile(r"val/bpb_(.+)")
_CONSTANT = re.compile(r"(cost|data)/.*|bytes_seen|flops")


class Place(NamedTuple):
    """Where a metric is drawn."""

    section: str
    title: str


def place(key: str, languages: Collection[str]) -> Place | None:
    """Returns where a metric is drawn that shares its chart or leaves its section; None for others."""
    part, _, name = key.rpartition("/")
    language = next((one for one in languages if name.endswith(f"_{one}")), None)
    if language is not None and "_" not in part:
        return Place(part, f"{part}/{name.removesuffix(f'_{language}')} by language")
    if part == "val" and re.fullmatch(r".+_(stage\d+|token)", name):
        return Place("units", key)
    return None


def charts(keys: Iterable[str]) -> dict[str, Any]:
    """Returns the part of a view that arranges charts of these metrics."""
    keys = sorted(keys)
    languages = sorted((named[1] for key in keys if (named := _LANGUAGE.fullmatch(key))), key=len, reverse=True)
    shared, hidden, found = dict[Place, list[str]](), list[str](), list[dict[str, Any]]()
    for key in keys:
        where = place(key, languages)
        if _CONSTANT.fullmatch(key):
            hidden.append(key)
        elif where is not None and where.title != key:
            shared.setdefault(where, []).append(key)
        elif (section := where.section if where else key.partition("/")[0]) in SECTIONS:
            found.append(_chart(section, key))
    for where, of in shared.items():
        found.append(_chart(where.section, of[0], of, where.title))
        hidden += of[1:]
    found += [{"type": "LINE", "uuid": f"h{i}", "metricKey": key, "deleted": True} for i, key in enumerate(hidden)]
    used = {chart["metricSectionId"] for chart in found if not chart["deleted"]}
    folded = sorted({key.partition("/")[0] for key in keys if re.match(r"\w+_stage\d+/", key)})
    sections = [
        {"uuid": name, "name": name, "display": name not in folded, "isReordered": True}
        for name in (*filter(used.__contains__, SECTIONS), *folded, *OTHERS)
    ]
    return {"compareRunCharts": found, "compareRunSections": sections, "isAccordionReordered": True}


def _chart(section: str, key: str, keys: Iterable[str] = (), title: str = "") -> dict[str, Any]:
    # MLflow names a chart of several metrics after all of them, unless it is one of its own, of several nodes.
    own = {"metric": title, "type": "language"}
    several = {"selectedMetricKeys": [*keys], "displayName": title, "nodeLevelSystemMetricConfiguration": own}
    return {
        "type": "LINE", "uuid": f"{section} {key}", "metricKey": key, "metricSectionId": section, "deleted": False,
        "isGenerated": True, "useGlobalXaxisKey": True, "useGlobalLineSmoothing": True, **(several if title else {}),
    }  # fmt: skip


def metrics_of(view: Mapping[str, Any]) -> set[str]:
    """Returns the metrics that a view names."""
    found = view.get("compareRunCharts") or []
    return {key for chart in found for key in (chart["metricKey"], *chart.get("selectedMetricKeys", ()))}


def packed(view: Mapping[str, Any]) -> str:
    """Returns a view as the text of a tag."""
    return PACKED + base64.b64encode(zlib.compress(json.dumps(view).encode(), 9)).decode()


def unpacked(text: str) -> dict[str, Any]:
    """Returns the view of a tag."""
    if text.startswith(PACKED):
        text = zlib.decompress(base64.b64decode(text.removeprefix(PACKED))).decode()
    view: dict[str, Any] = json.loads(text)
    return view


def set_views(client: Any, experiment: str, given: Mapping[str, Mapping[str, Any]]) -> None:
    """Sets what the named views of an experiment's page show, and leaves the rest of them as it is."""
    known = _known(client, experiment)
    _set(client, experiment, known, {name: {**known.get(name, {}), **view} for name, view in given.items()})


def arrange(client: Any, experiment: str, keys: Iterable[str]) -> None:
    """Arranges the charts of an experiment's views with the metrics of one more run."""
    known = _known(client, experiment)
    usual = {"selectedColumns": [*COLUMNS], "columnOrder": [*COLUMNS], "runsHiddenMode": "SHOW_ALL"}
    views: dict[str, dict[str, Any]] = {RUNS: {}, **known}
    arranged = {name: {**usual, **view, **charts(metrics_of(view) | set(keys))} for name, view in views.items()}
    _set(client, experiment, known, arranged)


def _known(client: Any, experiment: str) -> dict[str, dict[str, Any]]:
    tags = client.get_experiment(experiment).tags
    return {name: unpacked(tags[TAG + name]) for name in (RUNS, MEANS) if TAG + name in tags}


def _set(client: Any, experiment: str, known: Mapping[str, Any], views: Mapping[str, Mapping[str, Any]]) -> None:
    for name, view in views.items():
        if view != known.get(name) and len(text := packed(view)) <= LONGEST:
            client.set_experiment_tag(experiment, TAG + name, text)
