"""Faults of a model in MLflow."""

from tests.mutants.faults.fault import Fault

SERVING = "tests/test_serving.py::"
MODEL, LOGGED = "aunet_lightning/serving/model.py", "aunet_lightning/serving/logged.py"

SERVED = [
    Fault(
        "a model is scored in other rows than it was trained in",
        MODEL,
        "self._row_ids = contents.row_ids or ROW",
        "self._row_ids = ROW",
        (SERVING + "test_texts_are_scored_as_in_python",),
    ),
    Fault(
        "all samples of a prompt are the same",
        MODEL,
        'Request(record["prompt"].encode(), given["seed"], sample)',
        'Request(record["prompt"].encode(), given["seed"])',
        (SERVING + "test_prompts_are_continued_as_in_python",),
    ),
    Fault(
        "a record with a prompt and a text is continued",
        MODEL,
        'if ("prompt" in record) == ("text" in record):',
        'if "prompt" not in record and "text" not in record:',
        (SERVING + "test_a_bad_request_is_refused_with_the_field",),
    ),
    Fault(
        "a finished run logs a model each time",
        LOGGED,
        "if one.params.get(STEP) == str(step) and one.status",
        "if one.params.get(STEP) == step and one.status",
        (SERVING + "test_a_finished_run_logs_its_best_weights_once",),
    ),
    Fault(
        "a registered model is deleted when another takes its place",
        LOGGED,
        "and other.artifact_location not in registered",
        "and other.artifact_location",
        (SERVING + "test_a_better_checkpoint_replaces_the_model_unless_that_is_registered",),
    ),
    Fault(
        "a run fails whose model cannot be logged",
        "aunet_lightning/assembly.py",
        "except Exception as error:  # of the store, the disk or a splitter's file",
        "except KeyError as error:",
        (SERVING + "test_a_run_ends_well_whatever_becomes_of_its_model",),
    ),
    Fault(
        "a run logs its last weights",
        "aunet_lightning/tracking/run_folder.py",
        "for path in (self.best, self.last) if path.exists()",
        "for path in (self.last, self.best) if path.exists()",
        (SERVING + "test_a_finished_run_logs_its_best_weights_once",),
    ),
]
