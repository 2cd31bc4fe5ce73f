"""The faults: each is one line of the program as somebody might have written it, and the tests that should notice.

By subpackage, in import order. `old` stands in its file once: where the code moves, the table moves with it.
"""

from tests.mutants.faults.fault import Fault
from tests.mutants.faults.layers import LAYERS
from tests.mutants.faults.measuring import MEASURING
from tests.mutants.faults.networks import NETWORKS
from tests.mutants.faults.reading import READING
from tests.mutants.faults.seams import SEAMS
from tests.mutants.faults.serving import SERVED
from tests.mutants.faults.splitters import SPLITTERS
from tests.mutants.faults.stages import STAGES
from tests.mutants.faults.training import TRAINING

FAULTS = [*SPLITTERS, *NETWORKS, *LAYERS, *STAGES, *READING, *MEASURING, *TRAINING, *SEAMS, *SERVED]

__all__ = ["FAULTS", "Fault"]
