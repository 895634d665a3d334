from __future__ import annotations

import json


def rows(printed: str) -> list[list[str]]:
    lines = [line for line in printed.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_counts_without_latency(run_script, tmp_path):
    file = tmp_path / "cost.json"
    code, printed, err = run_script(
        *("cost", "--networks", "PReNet", "SPAIR", "--size", 50, 64, "--runs", 0, "--json", file)
    )
    assert (code, err) == (0, "")
    prenet, spair = rows(printed)
    assert prenet[:4] == ["PReNet", "168,963", "64 x 50", f"{63.83 * 50 * 64 / 256**2:.2f}"]
    assert len(prenet) == 6
    assert spair[0] == "SPAIR (reconstruction)"
    assert spair[2] == "64 x 52 (padded)"
    assert "built from a description" in printed
    document = json.loads(file.read_text())
    assert document["size"] == [50, 64]
    assert [each["network"] for each in document["networks"]] == ["PReNet", "SPAIR"]
    assert document["networks"][0]["latency"] is None
    assert document["networks"][1]["size"] == [52, 64]
    assert document["networks"][1]["reconstruction"] is True
    assert "threads" in document["provenance"]["device"] or "NVIDIA" in printed


def test_latency_is_the_middle_of_its_quartiles(run_script):
    code, printed, _ = run_script(
        *("cost", "--networks", "PRN_r", "--size", 8, 8, "--runs", 3, "--device", "cpu")
    )
    assert code == 0
    assert "8 x 8, fp32; latency on " in printed
    (row,) = rows(printed)
    lower, upper = row[7].split(" to ")
    assert 0 < float(lower) <= float(row[6]) <= float(upper)


def test_lack_of_memory_is_reported(run_script):
    code, printed, _ = run_script(
        *("cost", "--networks", "PRN_r", "--size", 2**22, 2**22, "--runs", 1)
    )
    assert code == 0
    assert rows(printed)[0][6] == "out of memory"


def test_unknown_network(run_script):
    code, printed, err = run_script("cost", "--networks", "PreNet", "--runs", 0)
    assert (code, printed) == (2, "")
    assert err.startswith("error: no network is called 'PreNet' (did you mean 'PReNet'?)")
