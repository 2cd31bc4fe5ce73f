"""Options of a run's report. (The report itself is in `reports/run_report.py`.)"""

from dataclasses import dataclass, field

from aunet_lightning.effects import Effect, effects
from aunet_lightning.generation import check_sampling
from aunet_lightning.numbers import Range, check_fields

MAX_ORDER = 7  # of n-grams, whose bytes are packed into an int64


@effects(Effect.NONE)
@dataclass
class ReportConfig:
    """The report at the end of a run."""

    ngrams: list[int] = field(default_factory=list)
    """orders of byte n-gram models, trained on the same text, as baselines in the table"""
    pictures_every: int = 200
    """steps between pictures of learned boundaries on a fixed text per script, kept as artifacts; 0: none"""
    sample_prompts: list[str] = field(default_factory=list)
    """prompts that the model continues; an empty one lets it begin"""
    sample_bytes: int = 160
    """bytes of each continuation"""
    sample_temperature: float = 0.8
    """0 takes the most likely byte each time"""
    generated_bytes: int = 256
    """bytes generated in each held-out language at the end of a run, of which the valid UTF-8 is counted; 0: none"""

    page: bool = True
    """write report.html into the run's folder, at each validation and at the end"""

    def __post_init__(self) -> None:
        check_fields(self, "report", ngrams=Range(least=1, most=MAX_ORDER), pictures_every=Range(least=0, most=10**15))
        check_fields(self, "report", generated_bytes=Range(least=0, most=10**9))
        check_sampling(self.sample_bytes, self.sample_temperature, "report.sample_")
