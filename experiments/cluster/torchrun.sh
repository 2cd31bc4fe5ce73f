#!/bin/bash
# The same without SLURM: on each of NODES hosts,    HEAD=first-host NODES=2 experiments/cluster/torchrun.sh OPTIONS
# torchrun starts a process per GPU, ends all when one dies, and starts them again up to three times, from the last
# checkpoint.
set -euo pipefail
exec .venv/bin/torchrun --nnodes "${NODES:-1}" --nproc-per-node "${DEVICES:-gpu}" --max-restarts 3 \
  --rdzv-backend c10d --rdzv-endpoint "${HEAD:-127.0.0.1}:${PORT:-29400}" --rdzv-id "${ID:-aunet}" \
  --no-python .venv/bin/aunet fit --trainer.num_nodes "${NODES:-1}" "$@" \
  ${DEVICES:+--trainer.devices "$DEVICES"}
