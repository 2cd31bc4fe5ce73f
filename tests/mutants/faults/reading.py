"""Faults of reading text and packing it into rows."""

from tests.mutants.faults.fault import DATA, Fault

READING = [
    Fault(
        "a BOS is dropped",
        "aunet_lightning/data/packing.py",
        "into[0] = BOS",
        "into[0] = EOS",
        (DATA + "test_rows_hold_bos_bytes_eos_and_the_levels_of_the_whole_document",),
    ),
    Fault(
        "BOS is predicted",
        "aunet_lightning/data/packing.py",
        "targets[ignored] = IGNORE",
        "targets[ignored] = EOS",
        (DATA + "test_bos_and_padding_are_no_targets",),
    ),
    Fault(
        "EOS counts as text",
        "aunet_lightning/vocabulary.py",
        "SIZES = (*[1] * N_BYTES, 0, 0)",
        "SIZES = (*[1] * N_BYTES, 0, 1)",
        (
            "tests/test_tokens.py::test_bpb_is_all_bits_of_the_text_over_its_bytes",
            DATA + "test_bos_and_padding_are_no_targets",
        ),
    ),
    Fault(
        "a row misses its last target",
        "aunet_lightning/data/packing.py",
        "begin, end = r * self.row_bytes, (r + 1) * self.row_bytes + 1",
        "begin, end = r * self.row_bytes, (r + 1) * self.row_bytes",
        (DATA + "test_every_byte_is_predicted_once_per_epoch",),
    ),
    Fault(
        "an epoch is that of any other",
        "aunet_lightning/data/packing.py",
        "np.random.Philox(key=[self.seed, epoch])",
        "np.random.Philox(key=[self.seed, 0])",
        (DATA + "test_a_batch_depends_on_seed_epoch_and_index_alone",),
    ),
    Fault(
        "two ranks read the same rows",
        "aunet_lightning/data/packing.py",
        "lanes = range(self.rank, self.batch_rows, self.world)",
        "lanes = range(0, self.batch_rows, self.world)",
        (DATA + "test_ranks_together_have_the_batch_of_one",),
    ),
    Fault(
        "a document that is kept whole is cut at its end",
        "aunet_lightning/data/packing.py",
        "if at % row + size - 1 > row:",
        "if at % row + size - 2 > row:",
        (DATA + "test_what_a_row_holds_of_a_whole_document_does_not_depend_on_its_neighbours",),
    ),
    Fault(
        "the unit that a row's first position begins is not counted",
        "aunet_lightning/data/packing.py",
        "[1 + n for n in np.count_nonzero(levels[:, 1:] > s, axis=1).tolist()]",
        "np.count_nonzero(levels > s, axis=1).tolist()",
        (DATA + "test_a_batch_carries_the_units_that_the_network_counts",),
    ),
    Fault(
        "the teacher's marks are one byte off",
        "aunet_lightning/data/packing.py",
        "marks[1:-1] |= marker.split",
        "marks[2:] |= marker.split",
        (DATA + "test_marks_lie_on_the_bytes_of_their_document",),
    ),
    Fault(
        "languages are counted over files, not each in its file",
        "aunet_lightning/data/corpus.py",
        "groups = file * max(len(self.language_names), 1) + self.languages",
        "groups = file",
        ("tests/test_strange_text.py::test_every_nth_document_of_each_language_is_held_out",),
    ),
    Fault(
        "languages of a second file are those of the first",
        "aunet_lightning/data/corpus.py",
        'ours[index["languages"]] if len(ours) else',
        'index["languages"] if len(ours) else',
        (DATA + "test_language_by_line_by_entry_and_by_file_name", DATA + "test_languages_are_selected"),
    ),
    Fault(
        "seals are ignored",
        "aunet_lightning/data/contents.py",
        'if digest(path) != sealed["sha256"]:',
        'if not sealed["sha256"]:',
        ("tests/test_faults.py::test_a_damaged_cached_text_is_made_again",),
    ),
    Fault(
        "merges by parity are for the language that is compressed best",
        "aunet_lightning/reader/parity.py",
        "np.argsort(-self.tokens / self.scale",
        "np.argsort(self.tokens / self.scale",
        (
            "tests/test_parity.py::test_merges_of_text_are_those_of_the_definition",
            "tests/test_parity.py::test_it_is_more_even_than_the_most_frequent_pair",
        ),
    ),
    Fault(
        "a pair between two merges at once is taken away twice",
        "aunet_lightning/reader/parity.py",
        "self._remove(first[alone])",
        "self._remove(first)",
        ("tests/test_parity.py::test_merges_are_those_of_the_definition",),
    ),
]
