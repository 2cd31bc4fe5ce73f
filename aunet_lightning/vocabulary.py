"""Byte ids: the only vocabulary there is."""

N_BYTES = 256
BOS = 256  # begins a document
EOS = 257  # ends a document
VOCABULARY = 258
IGNORE = -100  # a target that is not scored (torch's cross-entropy convention)
