"""How good a reward model is in an env: `efm audit`.

`sets` makes the episodes, `asking` asks the model about them. `steps`, `success`, `rollouts`, `trials`, `ranking` and `cost` are figures:
each a function of an audit that returns JSON-able data, or {"not": why it does not apply}. `strips` are episodes to look at, `card` puts
all of it together, and `answers`, `page`, `plots` and `table` show it.
"""

from efm_benchmarks.audit.asking import Audit, AuditConfig, Judged
from efm_benchmarks.audit.card import FORMAT, audit, config_for, finite, in_short, run, write_card

__all__ = ["FORMAT", "Audit", "AuditConfig", "Judged", "audit", "config_for", "finite", "in_short", "run", "write_card"]
