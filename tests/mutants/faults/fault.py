"""A fault, and the test files that many faults name."""

from typing import NamedTuple


class Fault(NamedTuple):
    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]  # files or ids of tests, of which one has to fail


LAWS = "tests/test_splitter_laws.py::"
RULES = "tests/test_splitter_rules.py::"
READ = "tests/test_where_units_are_read.py::"
MODEL = "tests/test_model.py::"
REFRESH = "tests/test_refresh.py::"
KERNELS = "tests/test_kernels.py::"
LEARNED = "tests/test_learned.py::"
LEARNED_NETWORKS = "tests/test_learned_networks.py::"
DATA = "tests/test_data.py::"
METRICS = "tests/test_metrics.py::"
COMPARE = "tests/test_compare.py::"
INFERENCE = "tests/test_study_inference.py::"
STATISTICS = "tests/test_study_statistics.py::"
PAGE = "tests/test_run_page.py::"
GENERATION = "tests/test_generation.py::"
SCORING = "tests/test_scoring.py::"
ROBUSTNESS = "tests/test_robustness.py::"
TRANSLATION = "tests/test_translation.py::"
HARNESS = "tests/test_lm_eval.py::"
FORMATS = "tests/test_formats.py::"
DATA_SPLIT = "tests/test_data_split.py::"
BROKEN_FILES = "tests/test_broken_files.py::"
TRACKING = "tests/test_tracking.py::"
TASKS = "tests/test_evaluation_tasks.py::"
EVALUATION = "tests/test_evaluation.py::"
EVAL = "tests/test_eval_command.py::"
