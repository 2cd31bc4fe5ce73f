"""Faults of what users extend."""

from tests.mutants.faults.fault import HARNESS, Fault

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
        "another optimizer takes over the state",
        "aunet_lightning/checkpoints/contents.py",
        '"name", "lr", "matrix_lr",',
        '"lr", "matrix_lr",',
        (EXTENDING + "test_another_optimizer_does_not_take_over_the_state",),
    ),
    Fault(
        "the harness is given bits for nats",
        "aunet_lightning/harness/model.py",
        "return -one.bits * math.log(2)",
        "return -one.bits",
        (HARNESS + "test_greedy_texts_are_those_that_are_generated",),
    ),
    Fault(
        "a text is greedy where one byte is",
        "aunet_lightning/harness/model.py",
        "bool(one.greedy.all())",
        "bool(one.greedy.any())",
        (HARNESS + "test_greedy_texts_are_those_that_are_generated",),
    ),
    Fault(
        "the harness has the context scored",
        "aunet_lightning/harness/model.py",
        "request.args)][-2:])",
        "request.args)][:2])",
        (HARNESS + "test_greedy_texts_are_those_that_are_generated",),
    ),
    Fault(
        "the harness reads long texts without their context",
        "aunet_lightning/harness/model.py",
        "self.row_ids, self.context_ids, self.batch_ids)\n        return",
        "self.row_ids, 0, self.batch_ids)\n        return",
        (HARNESS + "test_bits_are_those_of_aunet_score[tokens-en]",),
    ),
    Fault(
        "until is not read",
        "aunet_lightning/harness/model.py",
        "temperature=temperature, stop=stop, ",
        "temperature=temperature, ",
        (HARNESS + "test_generation_is_our_own",),
    ),
    Fault(
        "a request that comes again is drawn as before",
        "aunet_lightning/harness/model.py",
        "self.seed, of)",
        "self.seed, 0)",
        (HARNESS + "test_a_request_that_comes_again_is_drawn_anew",),
    ),
]
