"""how a checkpoint is made small"""
import hashlib
import sys

import tiny
import torch

import eval as evaluation
import train
from study import __main__ as command


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
