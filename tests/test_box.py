"""the weights in the box, study/cofine, and how a checkpoint is made small"""
import hashlib
import json
import sys
from pathlib import Path

import tiny
import torch

import eval as evaluation
import train
from study import __main__ as command
from study.suites import suites
from study.tables import average

BOX = Path(__file__).parent.parent / "study/cofine"


def test_the_weights_in_the_box_are_those_of_its_table_and_pick_what_they_have_seen():
    """at least 80 % of 40 seen trials, as eval.py measures them"""
    content, told = (BOX / "checkpoint.pt").read_bytes(), json.loads((BOX / "made.json").read_text())
    assert len(content) < 2_000_000 and hashlib.sha256(content).hexdigest() == told["sha256"]
    policy = evaluation.Policy(BOX / "checkpoint.pt")
    line = next(line for line in suites(policy.config) if line.name == "seen")
    row, = evaluation.measure(policy, [line], 40, ("policy",), quiet=True)
    assert row["success"] >= 32


def test_the_table_of_the_box_is_that_of_its_numbers():
    text, told = (BOX / "README.md").read_text(), json.loads((BOX / "made.json").read_text())
    rows = [row for row in told["rows"] if row["driver"] == "policy"]
    for row in rows:
        low, high = row["interval"]
        name = row["line"] if row["group"] == "seen" else f"{row['group']}: {row['line']}"
        assert f"| {name} | {100 * row['success'] / row['n']:.0f} % [{100 * low:.0f}, {100 * high:.0f}] |" in text
    for table, name in (("generalisation", "unseen"), ("emergent", "emergent")):
        mean, (low, high) = average(rows, table)
        assert f"| **{name}, average** | {100 * mean:.0f} % [{100 * low:.0f}, {100 * high:.0f}] |" in text
    assert told["command"] in text and told["commit"] in text


def test_a_packed_checkpoint_acts_as_the_whole_one_in_half_the_bytes(tmp_path, monkeypatch, capsys):
    tiny.install(monkeypatch)
    whole = train.train(train.read_config([*tiny.ARGS, *tiny.SOURCES, "--out_dir", str(tmp_path / "run")]))
    packed = tmp_path / "box/checkpoint.pt"
    monkeypatch.setattr(sys, "argv", ["study", "--checkpoint", str(whole), "--pack", str(packed)])
    command.main()
    assert hashlib.sha256(packed.read_bytes()).hexdigest() in capsys.readouterr().out
    assert packed.stat().st_size < whole.stat().st_size / 4             # the optimizers' memory is twice the weights
    a, b = evaluation.Policy(whole), evaluation.Policy(packed)
    for p, q in zip(a.model.parameters(), b.model.parameters()):
        torch.testing.assert_close(p, q, rtol=2 ** -8, atol=0)
    assert b.episode().act(tiny.picture(2), "go to the square").shape == (2,)
    state = train.load(packed)
    assert str(tmp_path) not in str(state["config"]) and not state["optimizers"]
