"""the curves of a run, from its log alone"""
import json
import sys

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
