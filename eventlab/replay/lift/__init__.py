"""The fold compiler: a modeller's `evolve` read as data, and run as a generated loop or as one query.

`source` reads the text of a function and proves that it is what runs; `analyse` executes it symbolically, once per event
class, into the frozen nodes of `ir`; `operations` is the table of what may stand in them, with its meaning in Python and in
SQL; `classify` says what each field is (a last value, a sum, a set, …); `loop` and `sql` emit; `lifted` writes the query of a
table, `running` that of every version; `staged` makes keys from another model's states; `run` folds a cut with all of them,
and hands what a guard catches to the row fold, which is the meaning. `plan_of`, `fold_table` and `Plan.explain` are the
way in.
"""

from eventlab.replay.lift.explain import Explanation
from eventlab.replay.lift.parts import threads
from eventlab.replay.lift.plan import Plan, plan_of
from eventlab.replay.lift.run import fold_intervals, fold_since, fold_table, fold_versions, lifts
from eventlab.replay.lift.shared import fold_shared

__all__ = [
    "Explanation", "Plan", "fold_intervals", "fold_shared", "fold_since", "fold_table", "fold_versions", "lifts", "plan_of",
    "threads",
]  # fmt: skip
