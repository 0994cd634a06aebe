"""the curves of a run, from its log alone"""
import json
import os
import sys
from types import SimpleNamespace

import pytest

from study import curves


def write_log(out):
    lines = [{"step": 2 * k, "lr_scale": 1.0, "web": 3 / k, "action": 2 / k, "accuracy": 1 - 1 / k, "right": {"dx": 1 - 1 / k}}
             for k in range(1, 6)]
    (out / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 1')


def test_curves_are_drawn_where_matplotlib_is_installed(tmp_path):
    pytest.importorskip("matplotlib")
    write_log(tmp_path)
    curves.main([str(tmp_path)])
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG") and not (tmp_path / "curves.tmp.png").exists()


def test_without_matplotlib_a_line_says_how_and_nothing_else_happens(tmp_path, monkeypatch, capsys):
    write_log(tmp_path)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    curves.pyplot.cache_clear()
    for _ in range(3):
        curves.draw(tmp_path)
    curves.pyplot.cache_clear()
    assert capsys.readouterr().out.count("pip install matplotlib") == 1 and not (tmp_path / "curves.png").exists()


def test_a_run_draws_seldom_but_at_its_end(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(curves, "pyplot", lambda: True)
    monkeypatch.setattr(curves, "_draw", lambda plt, out: drawn.append(out))
    monkeypatch.setitem(curves.due, "at", 0)
    for _ in range(5):
        curves.draw(tmp_path, now=False)
    assert len(drawn) == 1
    curves.draw(tmp_path, now=True)
    assert len(drawn) == 2


def test_trouble_with_a_picture_does_not_end_a_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(curves, "pyplot", lambda: True)
    curves.draw(tmp_path / "missing")
    assert "no curves.png (FileNotFoundError" in capsys.readouterr().out


def test_success_is_shown_once_the_run_has_been_measured(tmp_path):
    """a results.json that is older than the log is of another run"""
    write_log(tmp_path)
    results = tmp_path / "results.json"
    results.write_text('{"rows": [{"line": "pick"}]}')
    assert curves.read_log(tmp_path)[1] == [{"line": "pick"}] and len(curves.read_log(tmp_path)[0]) == 5
    os.utime(results, (0, 0))
    assert curves.read_log(tmp_path)[1] == []


def test_every_number_of_the_log_goes_to_tensorboard(tmp_path, monkeypatch, capsys):
    written = []

    class Writer:
        def __init__(self, folder):
            assert folder == tmp_path / "tensorboard" and not folder.exists()
        __enter__, __exit__ = lambda self: self, lambda *_: None
        add_scalar = lambda self, *what: written.append(what)
    write_log(tmp_path)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    (tmp_path / "tensorboard").mkdir()
    curves.tensorboard(tmp_path)
    assert len(written) == 5 * 6 and ("right/dx", .5, 4) in written and ("action", 1.0, 4) in written
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(SystemExit, match="^error: tensorboard is missing; pip install"):
        monkeypatch.setattr(curves, "draw", lambda out: None)
        curves.main([str(tmp_path), "--tensorboard"])
