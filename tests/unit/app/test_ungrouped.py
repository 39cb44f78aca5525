import pytest

from qss.app.exits import ungrouped
from qss.errors import Refused, Unreachable


def test_the_reason_comes_out_of_the_groups_of_the_tasks():
    with pytest.raises(Refused, match="say why"), ungrouped():
        raise ExceptionGroup("tasks", [OSError(), ExceptionGroup("more", [Refused("say why"), Unreachable("x")])])


def test_a_bug_stays_a_bug():
    with pytest.raises(ExceptionGroup), ungrouped():
        raise ExceptionGroup("tasks", [KeyError("a bug")])
