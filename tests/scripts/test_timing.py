from __future__ import annotations


def test_runs_are_interleaved_and_summarised(load_script):
    interleaved = load_script("benchmarks/timing").interleaved
    values = iter(range(6))
    order = []

    def run(name: str) -> float:
        order.append(name)
        return float(next(values) ** 2)

    taken = interleaved({"a": lambda: run("a"), "b": lambda: run("b")}, 3)
    assert order == ["a", "b"] * 3
    assert taken["a"] == {"median": 4.0, "low": 0.0, "high": 16.0, "runs": [0.0, 4.0, 16.0]}
    assert taken["b"]["median"] == 9.0
