"""What is run: configurations, splitters, networks, teachers and a study."""

from collections.abc import Sequence
from typing import Any

Record = dict[str, Any]
DATA = "experiments/data/udhr"  # of the checkout, seen from the scratch folder: settings name no absolute path
THREADS = "1"
LANGUAGES = [f"{DATA}/{name}.jsonl" for name in ("en", "th", "zh-Hans")]
TEST = [f"{DATA}/de.jsonl"]
THREE = [{"dim": 16, "layers": 1, "head_dim": 8, "window": 16}, {"dim": 24, "layers": 1, "head_dim": 8, "window": 12},
         {"dim": 16, "layers": 2, "head_dim": 8}]  # fmt: skip
UNSKIPPED = {**THREE[0], "skip": False}
CONVS = [{**stage, "conv": 4} for stage in THREE]
FLAT = [{"dim": 16, "layers": 2, "head_dim": 8, "window": 16}]
EVERY = {"name": "every", "n": 2}
SETTINGS = {
    "seed_everything": 3,
    "splitter": "whitespace",
    "upper_splitters": [EVERY],
    "data": {"train_files": LANGUAGES, "test_files": TEST, "holdout_every": 10, "row_bytes": 128,
             "batch_rows": 8, "workers": 0},
    "model": {"net": {"stages": THREE}, "optimizer": {"lr": 0.01, "warmup_steps": 5}},
    "trainer": {"accelerator": "cpu", "max_steps": 20, "log_every_n_steps": 1, "check_val_every_n_epoch": None,
                "val_check_interval": 10, "enable_progress_bar": False, "deterministic": True},
    "run": {"checkpoint_every": 7},
    "report": {"ngrams": [3], "sample_prompts": ["All ", "ทุก"], "sample_bytes": 24, "pictures_every": 8},
}  # fmt: skip
SMALL = {"trainer.max_steps": 20, "trainer.val_check_interval": 10, "trainer.log_every_n_steps": 1,
         "trainer.enable_progress_bar": False, "run.checkpoint_every": 7, "report.sample_bytes": 24}  # fmt: skip
ROUTER = {"name": "router", "bytes_per_unit": 5}
OWN_TEACHER = {"name": "regex", "patterns": r"\p{L}+(?=\s)"}
DISTILLED = {"name": "distilled", "teacher": OWN_TEACHER, "teacher_steps": 12}
ONE_STAGE = {"splitter": None, "upper_splitters": [], "model.net.stages": FLAT}
ACCUMULATED = {"trainer.accumulate_grad_batches": 3}
PROMPTS = ["All human ", "人人", "ทุกคน", ""]

# Configurations under -c, and settings on top. Those that end in a path name files of the checkout.
RUNS: dict[str, tuple[list[str], Record]] = {
    "quickstart": (["experiments/quickstart.yaml"],
                   SMALL | {"model.net.stages": THREE, "data.row_bytes": 256, "data.test_files": TEST}),
    "router": (["base.yaml", "experiments/learned/router.yaml"], {"model.net.stages": CONVS}),
    "router-bytes": (["base.yaml"], {"splitter": ROUTER, "data.workers": 1}),
    "router-free": (["base.yaml"], {"splitter": ROUTER | {"control": 0, "smoothing": False, "straight_through": False,
                                                         "calibrate": False}, "model.optimizer.splitter_lr": 0.5}),
    "distilled": (["base.yaml"], {"splitter": DISTILLED}),
    "distilled-words": (["base.yaml", "experiments/learned/distilled.yaml"], {"model.net.stages": THREE} | ACCUMULATED),
    "bpe": (["base.yaml"], ONE_STAGE | {"tokenizer": {"vocab_size": 400}}),
    "flat": (["base.yaml"], ONE_STAGE),
    "repeat": (["base.yaml"], {"model.net.upsampling": "repeat"}),
    "copy": (["base.yaml"], {"model.net.upsampling": "copy"}),
    "insert": (["base.yaml"], {"model.net.upsampling": "insert"}),
    "multi_linear": (["base.yaml"], {"model.net.upsampling": "multi_linear", "splitter": "script_aware"}),
    "conv": (["base.yaml"], {"model.net.stages": CONVS}),
    "unmasked": (["base.yaml"], {"model.net.document_masking": False}),
    "accumulated": (["base.yaml"], ACCUMULATED),
    "capped": (["base.yaml"], {"model.net.stages": [THREE[0], *({**stage, "max_units": 9} for stage in THREE[1:])]}),
    "four": (["base.yaml"], {"model.net.stages": [*THREE[:2], THREE[1], THREE[2]], "upper_splitters": [EVERY, EVERY],
                             "model.net.offsets": "modulo", "model.net.max_offset": 4}),
    "bf16": (["base.yaml"], {"trainer.precision": "bf16-mixed", "model.parallel.activation_checkpointing": True}),
    "clipped": (["base.yaml"], {"trainer.gradient_clip_algorithm": "value", "trainer.gradient_clip_val": 0.01,
                                "model.optimizer.stage_lr": [1, 0.5, 0.25]}),
    "budget": (["base.yaml"], {"model.budget.flops": 4e8,
                               "model.net.stages": [UNSKIPPED, *THREE[1:]]}),
}  # fmt: skip
GENERATED = ("quickstart", "router", "bpe", "distilled", "conv", "four")
STUDY = {
    "study": "same",
    "text": {"train": f"{DATA}/{{language}}.jsonl", "val": f"{DATA}/{{language}}.jsonl"},
    "languages": ["en", "th"],
    "seeds": [1],
    "match": {"by": "flops", "budget": "2e8"},
    "reference": "bpe",
    "splitters": {
        "whitespace": {"splitter": "whitespace"},
        "router": {"splitter": {"name": "router", "bytes_per_unit": 6}},
        "bpe": {"splitter": None, "tokenizer": {"vocab_size": 300}, "model": {"net": {"stages": FLAT}}},
    },
    "settings": {"upper_splitters": [], "data": {"row_bytes": 128, "batch_rows": 8, "workers": 0},
                 "model": {"net": {"stages": THREE[:2]}, "optimizer": {"warmup_steps": 3}},
                 "trainer": {"accelerator": "cpu", "log_every_n_steps": 1}},
    "validations": 2,
}  # fmt: skip

SENTENCE = "Everyone has the right, e.g. Dr. Who 3.14! 人人有权享有。ทุกคนมีสิทธิ मनुष्यों को 자유 🤝🏽\nEnd"
OPTIONS: dict[str, Record] = {  # splitters with options, by a name of their own
    "fixed 3": {"name": "fixed", "n": 3},
    "fixed 3 characters": {"name": "fixed", "n": 3, "of": "characters"},
    "aunet_word 2": {"name": "aunet_word", "words": 2},
    "aunet_word 4": {"name": "aunet_word", "words": 4},
    "script_aware 1": {"name": "script_aware", "n": 1},
    "script_aware 4": {"name": "script_aware", "n": 4},
    "spacelike character": {"name": "spacelike", "align": "character"},
    "trie byte": {"name": "trie", "align": "byte"},
    "pattern": {"name": "pattern", "patterns": [r"\S+\s", r"\d"]},
    "pattern start": {"name": "pattern", "patterns": r"\p{Lu}\p{Ll}*", "at": "start"},
    "cap": {"name": "cap", "of": "script_aware", "max_bytes": 5},
    "union": {"name": "union", "of": ["whitespace", {"name": "fixed", "n": 5}]},
    "reset_at": {"name": "reset_at", "of": {"name": "fixed", "n": 3}, "at": {"name": "pattern", "patterns": "\n"}},
    "every of whitespace": {"name": "every", "n": 2, "of": "whitespace"},
    "cap at characters": {"name": "cap", "of": "unicode_word", "max_bytes": 9, "align": "last"},
    "at_least of trie": {"name": "at_least", "bytes": 6, "of": "trie"},
    "at_least, mean": {"name": "at_least", "bytes": 6, "mean": True, "of": "unicode_word"},
    "every 3, no sentences": {"name": "every", "n": 3, "of": "cjk_character", "sentence_end": False},
}
STACKS = [["script_aware", EVERY], ["whitespace", EVERY, EVERY], ["fixed", "whitespace"],
          ["spacelike", "aunet_word"], ["utf8_character", "syllable", "sentence_end"],
          ["cjk_character", OPTIONS["every of whitespace"]]]  # fmt: skip
TEACHERS: dict[str, Any] = {
    "words": "words", "words end": {"name": "words", "at": "end"}, "regex": OWN_TEACHER,
    "zero_width_space": "zero_width_space", "grapheme": "grapheme",
    "unicode_words": "unicode_words", "bpe_merged": {"name": "bpe_merged", "bytes_per_unit": 6},
}  # fmt: skip


def net(stages: Sequence[Record] = tuple(THREE), **options: Any) -> Record:
    return {"stages": [dict(stage) for stage in stages]} | options


# Networks, the rules between their stages, and how many of those are known from bytes.
NETS: dict[str, tuple[Record, list[Any], int]] = {
    "flat": (net(FLAT), [], 0),
    "flat, conv, tokens": (net([FLAT[0] | {"conv": 3}], vocabulary=300), [], 0),
    "two stages": (net(THREE[:2]), ["whitespace"], 1),
    "multi_linear": (net(), ["script_aware", EVERY], 2),
    "repeat": (net(upsampling="repeat", max_offset=5), ["script_aware", EVERY], 2),
    "copy": (net(upsampling="copy"), ["script_aware", EVERY], 2),
    "insert": (net(upsampling="insert"), ["script_aware", EVERY], 2),
    "modulo, unmasked": (net(offsets="modulo", max_offset=4, document_masking=False), ["fixed", EVERY], 2),
    "four stages, conv": (net([*CONVS, CONVS[0]], round_units_to=4), ["whitespace", EVERY, EVERY], 3),
    "capped, no skip": (
        net([{**THREE[0], "skip": False}, *({**stage, "max_units": 7} for stage in THREE[1:])]),
        ["fixed", EVERY],
        2,
    ),
    "numbers": (net(rope_theta=1e4, norm_eps=1e-3, ffn_multiple_of=8, ffn_multiplier=1.3), ["whitespace", EVERY], 2),
    "router": (net(THREE[:2]), [ROUTER], 0),
    "router above, copy": (net(CONVS, upsampling="copy"), ["utf8_character", ROUTER], 1),
    "distilled below": (net(), [{"name": "distilled", "teacher": "whitespace"}, EVERY], 0),
}


SHARDED: dict[str, Record] = {
    "fsdp2": {"splitter": ROUTER, "trainer.strategy": "fsdp2", "trainer.devices": 2,
              "model.parallel.activation_checkpointing": [True, False, True]},
}  # fmt: skip
