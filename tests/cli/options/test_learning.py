"""What a run that has its model taught goes on with when it is resumed."""

from pathlib import Path

from deltaserver.cli.options.learning import LearningOptions, remember, remembered
from deltaserver.serve.settings import GuardSettings

ASKED = LearningOptions(Path("/data"), "GFN2-xTB", labels_per_stop=4, kelvin=(300.0,))
GUARD = GuardSettings(extrapolation="label", novelty_limit=0.8, uncertainty_limit=0.2)


def test_nothing_new_asked_is_what_was_asked(tmp_path):
    remember(tmp_path, ASKED, GUARD)
    assert remembered(tmp_path, LearningOptions(), GuardSettings()) == (ASKED, GUARD)


def test_what_is_asked_now_goes_first(tmp_path):
    remember(tmp_path, ASKED, GUARD)
    now = GuardSettings(novelty_limit=1.2)
    asked, guard = remembered(tmp_path, LearningOptions(max_labels=9), now, told=["novelty_limit"])
    assert (asked.max_labels, asked.labels_per_stop) == (9, 4)
    assert (guard.novelty_limit, guard.uncertainty_limit) == (1.2, 0.2)
    assert guard.extrapolation == "label"


def test_where_nothing_was_asked_nothing_is_remembered(tmp_path):
    asked, guard = LearningOptions(), GuardSettings()
    assert remembered(tmp_path, asked, guard) == (asked, guard)
