from __future__ import annotations

from basicsr.utils.timing import in_turns


def test_runs_take_turns_and_keep_their_figures():
    figures = iter(range(6))
    order = []

    def run(name: str) -> float:
        order.append(name)
        return float(next(figures) ** 2)

    taken = in_turns({"a": lambda: run("a"), "b": lambda: run("b")}, 3)
    assert order == ["a", "b"] * 3
    assert taken["a"] == {"median": 4.0, "low": 0.0, "high": 16.0, "runs": [0.0, 4.0, 16.0]}
    assert taken["b"]["median"] == 9.0
