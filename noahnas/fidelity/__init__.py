"""Is a run's supernet any good? Its scores beside those of architectures trained alone."""

from noahnas.fidelity.alone import Alone, train_all
from noahnas.fidelity.judge import Diagnosis, Judged, judge
from noahnas.fidelity.run import diagnose

__all__ = ["Alone", "Diagnosis", "Judged", "diagnose", "judge", "train_all"]
