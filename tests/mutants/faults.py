"""The faults: each is one line of the program as somebody might have written it, and the tests that should notice.

By room, in the order of the house. `old` is in its file once: where the code moves, the table moves with it.
"""

from typing import NamedTuple


class Fault(NamedTuple):
    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]  # files or ids of tests, of which one has to fail


LAWS = "tests/test_splitter_laws.py::"
RULES = "tests/test_splitter_rules.py::"
MODEL = "tests/test_model.py::"
LEARNED = "tests/test_learned.py::"
DATA = "tests/test_data.py::"
METRICS = "tests/test_metrics.py::"
REPORT = "tests/test_study_report.py::"
TRACKING = "tests/test_tracking.py::"
EXTENDING = "tests/test_extending.py::"

SPLITTERS = [
    Fault(
        "a boundary one byte early",
        "splitters/rules/fixed.py",
        "fires[self.n - 1 :: self.n] = True",
        "fires[max(self.n - 2, 0) :: self.n] = True",
        (RULES + "test_fixed",),
    ),
    Fault(
        "a rule that peeks",
        "splitters/rules/spacelike.py",
        "fires[1:] &= ~spacelike[:-1]",
        "fires[:-1] &= ~spacelike[1:]",
        (LAWS + "test_laws_hold_for_each_rule_alone[spacelike]",),
    ),
    Fault(
        "a stepper that forgets a byte",
        "splitters/engine/automaton.py",
        "self.rule_state = self.next_rule[at]\n",
        "self.rule_state = self.next_rule[at] if byte else 0\n",
        (LAWS + "test_laws_hold_for_each_rule_alone[whitespace]",),
    ),
    Fault(
        "a copy of a stepper begins anew",
        "splitters/engine/automaton.py",
        "copy.byte_state, copy.rule_state = self.byte_state, self.rule_state",
        "copy.byte_state = self.byte_state",
        (LAWS + "test_laws_hold_for_each_rule_alone[whitespace]",),
    ),
    Fault(
        "a boundary on an invalid byte",
        "splitters/engine/automaton.py",
        "fires.append(fire and kind != INVALID)",
        "fires.append(fire)",
        (RULES + "test_no_boundary_falls_on_bytes_of_no_character",),
    ),
    Fault(
        "surrogates are characters",
        "splitters/engine/characters.py",
        "of_last[0xD800 // 64 : 0xE000 // 64] = BAD",
        "of_last[0xD800 // 64 : 0xDC00 // 64] = BAD",
        ("tests/test_characters.py",),
    ),
    Fault(
        "a broken-off sequence is forgotten",
        "splitters/engine/characters.py",
        "symbol[1:] = symbol[0] + len(names) + 2",
        "symbol[1:] = symbol[0]",
        ("tests/test_characters.py",),
    ),
    Fault(
        "what broke off changes no state of a rule",
        "splitters/engine/automaton.py",
        "after, fire = (self.step(state, INVALID)[0] if late else state), False",
        "after, fire = state, False",
        (RULES + "test_bytes_of_no_character_are_part_of_a_word",),
    ),
    Fault(
        "the first matching class does not win",
        "splitters/engine/characters.py",
        "for index in reversed(range(len(classes))):",
        "for index in range(len(classes)):",
        ("tests/test_characters.py",),
    ),
    Fault(
        "the replacement character is a letter",
        "splitters/rules/whitespace.py",
        'LETTER = r"\\p{L}"',
        'LETTER = r"[\\p{L}\\ufffd]"',
        (RULES + "test_whitespace",),
    ),
    Fault(
        "groups of four digits",
        "splitters/rules/whitespace.py",
        "DIGITS_IN_GROUP = 3",
        "DIGITS_IN_GROUP = 4",
        (RULES + "test_whitespace",),
    ),
    Fault(
        "a full stop ends a sentence by itself",
        "splitters/rules/sentence_end.py",
        'kind in ("break", "end")',
        'kind in ("break", "end", "full_stop")' + " or state == 'full_stop'",
        (RULES + "test_sentence_end",),
    ),
    Fault(
        "the walk on the trie does not start again with the byte",
        "splitters/engine/compiled.py",
        "            node = 0\n            out[i] = True\n",
        "            node = 0\n            out[i] = True\n            break\n",
        ("tests/test_trie.py::test_the_shipped_vocabulary_equals_the_plain_walk",),
    ),
    Fault(
        "a cap that lets units grow by one",
        "splitters/combinators/cap.py",
        "self.length == self.max_bytes",
        "self.length > self.max_bytes",
        (LAWS + "test_laws_hold_for_each_rule_alone[cap]",),
    ),
    Fault(
        "a union that stops at the first splitter",
        "splitters/combinators/union.py",
        "fires |= stepper.push(byte)",
        "fires = fires or stepper.push(byte)",
        (RULES + "test_union_is_either",),
    ),
    Fault(
        "reset_at does not reset",
        "splitters/combinators/reset_at.py",
        "self.of = self.splitter.stepper()",
        "pass",
        (LAWS + "test_laws_hold_for_each_rule_alone[reset_at]",),
    ),
    Fault(
        "every counts on over the end of a sentence",
        "splitters/combinators/every.py",
        "fires = self.count == self.n or self.ended",
        "fires = self.count == self.n",
        (LAWS + "test_laws_hold_for_each_rule_alone[every]",),
    ),
    Fault(
        "a level that does not nest",
        "splitters/stack.py",
        "units = rule.split(data) if units is None else rule.select(data, units)",
        "units = rule.split(data)",
        (LAWS + "test_levels_nest_and_the_first_rule_is_kept",),
    ),
    Fault(
        "a deferred boundary is dropped",
        "splitters/contract.py",
        "fires, self.pending = self.pending and unit, self.pending and not unit",
        "fires, self.pending = self.pending and unit, False",
        (LAWS + "test_prefix_and_stream_laws_on_any_bytes",),
    ),
    Fault(
        "two rules have one fingerprint",
        "splitters/stack.py",
        "digest.update(self.levels(data).tobytes())",
        "digest.update((self.levels(data) > 0).tobytes())",
        (LAWS + "test_a_fingerprint_tells_rules_apart",),
    ),
]

NETWORKS = [
    Fault(
        "F and G of the ratio loss are swapped",
        "splitters/learned/networks.py",
        "share, mean = total.boundaries / n, local.p / n",
        "share, mean = local.p / n, total.boundaries / n",
        (LEARNED + "test_the_ratio_loss_is_the_published_one",),
    ),
    Fault(
        "the ratio loss forgets N - 1",
        "splitters/learned/networks.py",
        "return self.alpha * target / (target - 1) * term",
        "return self.alpha * term",
        (LEARNED + "test_the_ratio_loss_is_the_published_one",),
    ),
    Fault(
        "a router's boundary at orthogonal neighbours is free",
        "splitters/learned/networks.py",
        "return torch.logit((1 - cosine) / 2, eps=_EDGE)",
        "return torch.logit((1 - cosine) / 2, eps=_EDGE) + 1e-3",
        (LEARNED + "test_the_router_is_the_published_one",),
    ),
    Fault(
        "the bias moves away from the rate",
        "splitters/learned/networks.py",
        "self.bias += max(-1.0, min(step, 1.0))",
        "self.bias -= max(-1.0, min(step, 1.0))",
        (LEARNED + "test_the_bias_follows_the_rate",),
    ),
    Fault(
        "calibration with the wrong sign",
        "splitters/learned/predictor.py",
        "self.bias -= (ordered[k - 1] + ordered[k]) / 2",
        "self.bias += (ordered[k - 1] + ordered[k]) / 2",
        (LEARNED + "test_training_begins_near_the_rate",),
    ),
    Fault(
        "a student weighs the other positions",
        "splitters/learned/networks.py",
        "nats = weight * local.nats_taught + local.nats_other",
        "nats = local.nats_taught + weight * local.nats_other",
        (LEARNED + "test_the_students_loss_is_a_weighted_mean",),
    ),
]

LAYERS = [
    Fault(
        "a window one position too wide",
        "aunet_lightning/model/attention.py",
        "sees &= distance < window",
        "sees &= distance <= window",
        (MODEL + "test_windows_equal_a_plain_mask",),
    ),
    Fault(
        "attention that peeks",
        "aunet_lightning/model/attention.py",
        "sees = (distance >= 0)",
        "sees = (distance >= -1)",
        (MODEL + "test_windows_equal_a_plain_mask",),
    ),
    Fault(
        "the mask of documents is ignored in blocks",
        "aunet_lightning/model/attention.py",
        "mask = _sees(query, key, of_query, of_key, window)",
        "mask = _sees(query, key, None, None, window).expand(batch, -1, -1, -1)",
        (MODEL + "test_windows_equal_a_plain_mask",),
    ),
    Fault(
        "an empty slot of the cache is seen",
        "aunet_lightning/model/attention.py",
        " & (key[..., None, :] >= 0)",
        "",
        (MODEL + "test_stepping_in_any_chunks",),
    ),
    Fault(
        "stepping ignores the window",
        "aunet_lightning/model/attention.py",
        "return AttentionMask(_sees(query, key, query_documents, key_documents, window)[:, None])",
        "return AttentionMask(_sees(query, key, query_documents, key_documents, None)[:, None])",
        (MODEL + "test_stepping_in_any_chunks",),
    ),
    Fault(
        "angles of positions in float32",
        "aunet_lightning/model/layers.py",
        "angles = positions[:, None, :, None].double() * theta**-exponents",
        "angles = positions[:, None, :, None].float() * theta**-exponents.float()",
        (MODEL + "test_a_place_far_into_a_stream_is_like_one_at_its_beginning",),
    ),
    Fault(
        "channels turn in halves, not in pairs",
        "aunet_lightning/model/layers.py",
        "a, b = x.to(self.cos.dtype).unflatten(-1, (-1, 2)).unbind(-1)",
        "a, b = x.to(self.cos.dtype).unflatten(-1, (2, -1)).unbind(-2)",
        (MODEL + "test_equals_the_plain_form",),
    ),
    Fault(
        "a convolution that sees the next document's past",
        "aunet_lightning/model/layers.py",
        "tap if neighbours.same is None else tap * neighbours.same[..., j - 1 : j]",
        "tap",
        (LEARNED + "test_convolutions_equal_the_plain_form_and_step",),
    ),
    Fault(
        "smoothing leaks over a document",
        "aunet_lightning/model/scan.py",
        "from_begin = a.cumprod(-1)",
        "from_begin = a.clamp(min=1e-3).cumprod(-1)",
        (LEARNED + "test_smoothing_equals_a_loop",),
    ),
    Fault(
        "an offset that is not clamped",
        "aunet_lightning/model/upsampling.py",
        "offset.clamp(max=self.n_offsets - 1) if",
        "offset.clamp(max=self.n_offsets - 2) if",
        (MODEL + "test_options_equal_the_plain_form",),
    ),
    Fault(
        "modulo and clamp are swapped",
        "aunet_lightning/model/upsampling.py",
        'if self.offsets == "clamp" else',
        'if self.offsets != "clamp" else',
        (MODEL + "test_options_equal_the_plain_form",),
    ),
    Fault(
        "the open unit's offset is one less",
        "aunet_lightning/model/units.py",
        "past.offset[:, None] + 1 + at",
        "past.offset[:, None] + at",
        (MODEL + "test_stepping_in_any_chunks",),
    ),
    Fault(
        "insertion at every position",
        "aunet_lightning/model/upsampling.py",
        "* (units.offset == 0)[..., None]",
        "* (units.offset <= 1)[..., None]",
        (MODEL + "test_equals_the_plain_form",),
    ),
]

READING = [
    Fault(
        "a BOS is dropped",
        "aunet_lightning/data/packing.py",
        "bos, eos = [BOS] * (since == 0)",
        "bos, eos = [EOS] * (since == 0)",
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
        "the teacher's marks are one byte off",
        "aunet_lightning/data/packing.py",
        "marks[1:-1] |= marker.split",
        "marks[2:] |= marker.split",
        (DATA + "test_marks_lie_on_the_bytes_of_their_document",),
    ),
    Fault(
        "languages are counted over files, not each in its file",
        "aunet_lightning/data/corpus.py",
        "groups = self._files.astype(np.int64) * max(len(self.language_names), 1) + self.languages",
        "groups = self._files.astype(np.int64)",
        ("tests/test_faults.py::test_every_nth_document_of_each_language_is_held_out",),
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
]

MEASURING = [
    Fault(
        "a metric that counts padding",
        "aunet_lightning/training/metrics.py",
        "scored = sizes > 0",
        "scored = sizes >= 0",
        (METRICS + "test_bos_eos_and_padding_do_not_count", METRICS + "test_equals_the_plain_sum"),
    ),
    Fault(
        "tokens count as bytes",
        "aunet_lightning/training/metrics.py",
        "self.bytes.index_add_(0, index, sizes[scored].double())",
        "self.bytes.index_add_(0, index, torch.ones_like(sizes[scored]).double())",
        ("tests/test_tokens.py::test_bpb_is_all_bits_of_the_text_over_its_bytes",),
    ),
    Fault(
        "the languages of BPB are swapped",
        "aunet_lightning/training/metrics.py",
        'index = batch["languages"][scored]',
        'index = batch["languages"].flip(-1)[scored]',
        (METRICS + "test_equals_the_plain_sum",),
    ),
    Fault(
        "nats for bits",
        "aunet_lightning/training/metrics.py",
        "nats[scored].double() / math.log(2)",
        "nats[scored].double()",
        (METRICS + "test_equals_the_plain_sum",),
    ),
    Fault(
        "EOS has a unit",
        "aunet_lightning/training/metrics.py",
        "valid & (ids.gather(1, at) != EOS)",
        "valid",
        (METRICS + "test_units_equal_plain_counting",),
    ),
    Fault(
        "the share past the last offset is one position short",
        "aunet_lightning/training/metrics.py",
        "decision.offset >= self.max_offset",
        "decision.offset > self.max_offset",
        (METRICS + "test_units_equal_plain_counting",),
    ),
    Fault(
        "weight decay on norms",
        "aunet_lightning/training/optimizer.py",
        '"weight_decay": config.weight_decay if decays else 0.0',
        '"weight_decay": config.weight_decay',
        (METRICS + "test_weight_decay_is_on_matrices_only",),
    ),
    Fault(
        "the warm-up is one step off",
        "aunet_lightning/training/optimizer.py",
        "return (step + 1) / self.warmup_steps",
        "return step / self.warmup_steps",
        (METRICS + "test_learning_rate_warms_up_and_ends_where_it_says",),
    ),
    Fault(
        "the cosine ends at 0",
        "aunet_lightning/training/optimizer.py",
        "return self.final_lr_ratio + (1 - self.final_lr_ratio) *",
        "return",
        (METRICS + "test_learning_rate_warms_up_and_ends_where_it_says",),
    ),
    Fault(
        "n-grams see the document before",
        "aunet_lightning/reports/ngram.py",
        "contexts, first, kinds = np.unique(grams >> 8, return_index=True, return_counts=True)",
        "contexts, first, kinds = np.unique(grams, return_index=True, return_counts=True)",
        ("tests/test_reports.py::test_ngram_equals_the_plain_form",),
    ),
    Fault(
        "a difference is told by one range alone",
        "aunet_lightning/reports/study/statistics.py",
        "(a.range + b.range) / 2",
        "a.range / 2",
        (REPORT + "test_spread_is_that_of_the_plain_form",),
    ),
    Fault(
        "a difference is told one-sided",
        "aunet_lightning/reports/study/statistics.py",
        "return abs(a.mean - b.mean) >",
        "return a.mean - b.mean >",
        (REPORT + "test_how_often_the_rule_errs", REPORT + "test_spread_is_that_of_the_plain_form"),
    ),
    Fault(
        "parallel bits of other documents",
        "aunet_lightning/reports/study/statistics.py",
        "shared = set.intersection(*(set(of) for of in bits.values()))",
        "shared = set.union(*(set(of) for of in bits.values()))",
        (REPORT + "test_parallel_bits_are_of_common_documents",),
    ),
]

STAGES = [
    Fault(
        "a BOS begins no document",
        "aunet_lightning/model/aunet.py",
        "forced = begins if masked or self.predictors else torch.zeros_like(begins)",
        "forced = torch.zeros_like(begins)",
        (
            MODEL + "test_a_cap_counts_each_masked_document_for_itself",
            LEARNED + "test_a_masked_document_does_not_see_the_one_before",
        ),
    ),
    Fault(
        "documents of a stream are those of a row",
        "aunet_lightning/model/aunet.py",
        "(0 if state is None else state.document[:, None])",
        "0",
        (MODEL + "test_stepping_in_any_chunks",),
    ),
    Fault(
        "a stage forgets its skip connection",
        "aunet_lightning/model/stage.py",
        "x = up + way.h if self.config.skip else up",
        "x = up",
        (MODEL + "test_equals_the_plain_form",),
    ),
    Fault(
        "positions of a call begin at 0",
        "aunet_lightning/model/stage.py",
        "positions = cache.count[:, None] + positions  # [B, N]",
        "positions = cache.count[:, None] * 0 + positions + cache.size",
        (MODEL + "test_stepping_in_any_chunks",),
    ),
    Fault(
        "the decoder steps on the encoder's cache",
        "aunet_lightning/model/stage.py",
        "past.cache.layers[self.config.layers :] if past else ()",
        "past.cache.layers[: self.config.layers] if past else ()",
        (MODEL + "test_stepping_in_any_chunks",),
    ),
    Fault(
        "a cap per row in place of per document",
        "aunet_lightning/model/transition.py",
        "counted = counted_in_documents(boundary, stream.begins, before)",
        "counted = counted_in_documents(boundary, torch.zeros_like(stream.begins), before)",
        (MODEL + "test_a_cap_counts_each_masked_document_for_itself",),
    ),
    Fault(
        "a cap that drops one more",
        "aunet_lightning/model/transition.py",
        "boundary = boundary & (counted <= cap)",
        "boundary = boundary & (counted < cap)",
        (MODEL + "test_options_equal_the_plain_form",),
    ),
    Fault(
        "a smoothed vector of a new document remembers",
        "aunet_lightning/model/transition.py",
        "p = decision.log_odds.sigmoid().masked_fill(decision.forced, 1.0)",
        "p = decision.log_odds.sigmoid()",
        (LEARNED + "test_a_masked_document_does_not_see_the_one_before", LEARNED + "test_equals_the_plain_form"),
    ),
    Fault(
        "a router reads the position itself twice",
        "aunet_lightning/model/deciders.py",
        "return self.predictor(h, torch.cat([first, h[:, :-1]], 1))",
        "return self.predictor(h, h)",
        (LEARNED + "test_equals_the_plain_form",),
    ),
    Fault(
        "the cache forgets a position that the window sees",
        "aunet_lightning/model/state.py",
        "kept = valid & (positions >= (count - size)[:, None])",
        "kept = valid & (positions >= (count - size + 2)[:, None])",
        (MODEL + "test_stepping_in_any_chunks",),
    ),
    Fault(
        "EOS moves a stepper",
        "aunet_lightning/model/state.py",
        "elif byte < N_BYTES:\n                    levels[row, position] = steppers[row].push(byte)",
        "else:\n                    levels[row, position] = steppers[row].push(byte % 256)",
        (LEARNED + "test_stepping_in_any_chunks",),
    ),
    Fault(
        "the ids of another published name",
        "aunet_lightning/model/layers.py",
        "return self.down(F.silu(self.gate(x)) * self.up(x))",
        "return self.down(F.silu(self.up(x)) * self.gate(x))",
        ("tests/test_golden.py::test_logits_loss_and_every_gradient",),
    ),
    Fault(
        "FLOPs without attention",
        "aunet_lightning/costs/flops.py",
        "flops = linear * n + attention * self._attended(n)",
        "flops = linear * n",
        ("tests/test_costs.py::test_wrong_coefficients_are_found_by_that",),
    ),
    Fault(
        "units cost what bytes cost",
        "aunet_lightning/costs/flops.py",
        "self.weights[s + 1] += linear_weights(transition.pooling)",
        "self.weights[s] += linear_weights(transition.pooling)",
        ("tests/test_costs.py::test_wrong_coefficients_are_found_by_that",),
    ),
]

TRAINING = [
    Fault(
        "held-out documents are trained on",
        "aunet_lightning/data/datamodule.py",
        "held_out = places[documents] % self.holdout_every == self.holdout_every - 1",
        "held_out = places[documents] % self.holdout_every == 0",
        ("tests/test_faults.py::test_every_nth_document_of_each_language_is_held_out",),
    ),
    Fault(
        "a resume is off by a batch",
        "aunet_lightning/data/loader.py",
        'self._next.epoch, self._next.position = state["epoch"], state["position"]',
        'self._next.epoch, self._next.position = state["epoch"], state["position"] + 1',
        (DATA + "test_a_loader_goes_on_where_another_stopped",),
    ),
    Fault(
        "an epoch is read again",
        "aunet_lightning/data/loader.py",
        "self._next.epoch, self._next.position = self._next.epoch + 1, 0",
        "self._next.position = 0",
        (DATA + "test_an_epoch_follows_though_nobody_asked_for_more_than_its_length",),
    ),
    Fault(
        "accumulated gradients are not averaged",
        "aunet_lightning/training/steps.py",
        'return divided_by * self.first / max(self._total("targets"), 1.0)',
        "return 1.0",
        ("tests/test_steps.py::test_a_step_of_one_batch_at_an_epochs_end_has_its_whole_gradient",),
    ),
    Fault(
        "gradients of devices are not summed",
        "aunet_lightning/training/loss.py",
        "share = devices / first",
        "share = 1 / first",
        ("tests/test_distributed.py::test_many_processes_learn_what_one_does[router-2-ddp-[]]",),
    ),
    Fault(
        "the sums of a step are swapped",
        "aunet_lightning/training/sums.py",
        "bits=nats[text].sum() / math.log(2),\n            nats=nats.sum(),",
        "bits=nats.sum() / math.log(2),\n            nats=nats[text].sum(),",
        ("tests/test_kept_run.py",),
    ),
    Fault(
        "padding is read",
        "aunet_lightning/training/sums.py",
        'read=(batch["documents"] >= 0).sum(),',
        'read=(batch["documents"] >= -1).sum(),',
        ("tests/test_kept_run.py",),
    ),
    Fault(
        "a step that is not finite is taken",
        "aunet_lightning/training/module.py",
        "        optimizer.zero_grad()\n",
        "",
        ("tests/test_steps.py::test_a_step_that_is_not_finite_changes_nothing_and_is_told",),
    ),
    Fault(
        "a checkpoint forgets what was spent",
        "aunet_lightning/checkpoints/contents.py",
        '"spent": dict(self.spent),',
        '"spent": {},',
        ("tests/test_checkpoints.py::test_contents_are_what_was_written",),
    ),
    Fault(
        "a checkpoint's documents are not compared",
        "aunet_lightning/checkpoints/contents.py",
        'if then is not None and digests.get("train", then) != then:',
        'if then is not None and digests.get("train", then) is None:',
        ("tests/test_checkpoints.py::test_other_documents_are_refused",),
    ),
    Fault(
        "the digest of an export is ignored",
        "aunet_lightning/checkpoints/forms.py",
        'if header.pop("sha256", None) not in (None, _digest(weights)):',
        'if header.pop("sha256", None) is None:',
        ("tests/test_faults.py::test_bytes_that_changed_inside_a_checkpoint_are_noticed", "tests/test_checkpoints.py"),
    ),
    Fault(
        "best and last are swapped",
        "aunet_lightning/training/checkpointing.py",
        "point_link(self.folder.best, saved[best[0]])",
        "point_link(self.folder.best, saved[max(saved)])",
        ("tests/test_checkpoints.py::test_best_is_the_lowest_that_is_there",),
    ),
    Fault(
        "generation ignores its temperature",
        "aunet_lightning/generation.py",
        "(logits / temperature).softmax(-1)",
        "logits.softmax(-1)",
        ("tests/test_reports.py::test_samples_have_the_frequencies_of_their_temperature",),
    ),
    Fault(
        "a prompt's bytes are sampled",
        "aunet_lightning/generation.py",
        "            if len(row) == position:\n",
        "            if len(row) <= position or True:\n",
        ("tests/test_reports.py::test_a_sample_continues_prompts_of_any_length",),
    ),
    Fault(
        "MLflow has every step one late",
        "aunet_lightning/tracking/mlflow_logger.py",
        'point = {"step": step,',
        'point = {"step": step + 1,',
        (TRACKING + "test_a_resumed_run_has_every_point_once",),
    ),
    Fault(
        "points of a resume are logged twice",
        "aunet_lightning/tracking/mlflow_logger.py",
        "if step > self._last.get(key, -1)}",
        "if step >= self._last.get(key, -1)}",
        (TRACKING + "test_a_resumed_run_has_every_point_once",),
    ),
    Fault(
        "the best is the newest",
        "aunet_lightning/tracking/mlflow_logger.py",
        "fresh[BEST[key]] = min(values)",
        "fresh[BEST[key]] = values[0]",
        (TRACKING + "test_the_best_is_the_lowest_also_after_a_resume",),
    ),
]

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
        "replace(state, steppers=steppers, recent=recent)",
        "replace(state, steppers=steppers)",
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
        'IN_OPTIMIZER_STATE = ("name", "lr",',
        'IN_OPTIMIZER_STATE = ("lr",',
        (EXTENDING + "test_another_optimizer_does_not_take_over_the_state",),
    ),
]

FAULTS = [*SPLITTERS, *NETWORKS, *LAYERS, *STAGES, *READING, *MEASURING, *TRAINING, *SEAMS]
