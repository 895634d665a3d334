"""Processes that share a list of work; here they are threads with a store in memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from torch.distributed import DistStoreError, HashStore, PrefixStore

from basicsr.utils.errors import UserError
from basicsr.utils.team import ALONE, Team


def as_team(size, function):
    """Call `function` with each member of a team; return the results by rank."""
    store = HashStore()
    teams = [Team(rank, size, PrefixStore("team", store)) for rank in range(size)]
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(function, teams))


@pytest.mark.parametrize("size", [1, 2, 5])
def test_each_item_is_taken_once(size):
    items = [f"item {i}" for i in range(97)]

    def work(team):
        return [*team.take("a", items), *team.take("b", items)]

    taken = [item for each in as_team(size, work) for item in each]
    assert sorted(taken) == sorted(items * 2)


def test_the_main_process_gives_and_gets_values():
    def work(team):
        given = team.from_main("start", {"rank": team.rank})
        return given, team.total("sum", 10 + team.rank) > 0, team.to_main("end", team.rank * 2)

    assert as_team(3, work) == [
        ({"rank": 0}, True, [0, 2, 4]),
        ({"rank": 0}, True, []),
        ({"rank": 0}, True, []),
    ]


def test_one_process_needs_no_store(monkeypatch):
    assert list(ALONE.take("a", "xyz")) == ["x", "y", "z"]
    assert ALONE.from_main("a", 1) == 1
    assert ALONE.to_main("a", 1) == [1]
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert Team.of_torchrun().size == 1


def test_a_lost_connection_is_a_one_line_error():
    class Lost:
        def add(self, key, amount):
            raise DistStoreError("Broken pipe\nmore lines")

    with pytest.raises(UserError, match=r"^lost the connection .* again \(Broken pipe\)$"):
        next(Team(1, 2, Lost()).take("a", [1]))
