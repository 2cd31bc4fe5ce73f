"""The command lm_eval, which knows the model `aunet`: its version 0.4.13 does not look for models of other packages."""

from lm_eval.__main__ import cli_evaluate

import aunet_lightning.harness  # noqa: F401 (registers the model)

cli_evaluate()
