"""Byte ids: the only vocabulary of the byte models. A BPE baseline's tokens of several bytes follow from 258."""

N_BYTES = 256
BOS = 256  # begins a document
EOS = 257  # ends a document
VOCABULARY = 258
IGNORE = -100  # a target that is not scored (torch's cross-entropy convention)
BYTES = (*(bytes([byte]) for byte in range(N_BYTES)), b"", b"")  # text of each id
SIZES = (*[1] * N_BYTES, 0, 0)  # bytes of text of each id
