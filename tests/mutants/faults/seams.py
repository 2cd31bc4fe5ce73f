"""Faults of what users extend."""

from tests.mutants.faults.fault import FORMATS, Fault

EXTENDING = "tests/test_extending.py::"

SEAMS = [
    Fault(
        "an embedding sees the masked document before",
        "aunet_lightning/model/embedding.py",
        "since[..., 1:] > 0",
        "since[..., 1:] > 1",
        (EXTENDING + "test_an_embedding_that_reads_ids_before_sees_no_masked_document",),
    ),
    Fault(
        "an embedding sees its own id among those before",
        "aunet_lightning/model/embedding.py",
        "before, recent = windows[:, :-1], windows[:, -1]",
        "before, recent = windows[:, 1:], windows[:, -1]",
        (EXTENDING + "test_an_embedding_of_ids_before_gets_them_in_order",),
    ),
    Fault(
        "a stream forgets the last ids",
        "aunet_lightning/model/aunet.py",
        "tuple(after)), recent=recent)",
        "tuple(after)))",
        (EXTENDING + "test_an_embedding_that_reads_ids_before_steps_as_it_reads_at_once",),
    ),
    Fault(
        "two formats share a cached text",
        "aunet_lightning/data/sources.py",
        "if self.format != JSONL:",
        "if self.format == JSONL:",
        (EXTENDING + "test_the_cached_text_of_json_lines_keeps_its_name",),
    ),
    Fault(
        "a format loses the file's language",
        "aunet_lightning/data/sources.py",
        "yield document if document.language else document._replace(language=self.language)",
        "yield document",
        (EXTENDING + "test_documents_of_ones_own_format",),
    ),
    Fault(
        "a whole group of rows is in memory",
        "aunet_lightning/data/arrow_files.py",
        "pre_buffer=False",
        "pre_buffer=True",
        (FORMATS + "test_no_more_of_a_file_is_held_than_some_documents",),
    ),
    Fault(
        "a quote that does not match takes rows with it",
        "aunet_lightning/data/csv_files.py",
        "strict=True",
        "strict=False",
        (FORMATS + "test_broken_files_are_named_with_the_remedy",),
    ),
    Fault(
        "a row with other fields is not counted",
        "aunet_lightning/data/csv_files.py",
        'report.skip(f"not {len(names)} fields, as in the header", place)',
        "pass",
        (FORMATS + "test_what_is_unusable_is_counted_with_its_place",),
    ),
    Fault(
        "the last paragraph is lost",
        "aunet_lightning/data/plain_text.py",
        'chain(map(_ended, _marked(path)), [b""])',
        "chain(map(_ended, _marked(path)), [])",
        (FORMATS + "test_every_format_gives_the_documents_that_were_written_each_time",),
    ),
    Fault(
        "a column's key is not part of the cached text's name",
        "aunet_lightning/data/sources.py",
        "self.language, self.text_key, self.language_key]",
        "self.language, self.language_key]",
        (FORMATS + "test_the_cached_text_is_that_of_format_and_keys",),
    ),
    Fault(
        "files left over in a saved dataset are read",
        "aunet_lightning/data/matching.py",
        "if TABLE in names and",
        "if TABLE not in names and",
        (FORMATS + "test_a_dataset_that_was_saved_to_disk_is_what_its_state_names",),
    ),
    Fault(
        "every n-th document of each text file is held out, which is none",
        "aunet_lightning/data/plain_text.py",
        "whole_files = True",
        "whole_files = False",
        (FORMATS + "test_every_nth_of_files_that_are_a_document_each_is_held_out",),
    ),
    Fault(
        "another optimizer takes over the state",
        "aunet_lightning/checkpoints/contents.py",
        '"name", "lr", "matrix_lr",',
        '"lr", "matrix_lr",',
        (EXTENDING + "test_another_optimizer_does_not_take_over_the_state",),
    ),
]
