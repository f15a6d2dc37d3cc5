"""Plots of many runs: who is named, how lines are told apart, and what ends them."""

from __future__ import annotations

import re

import pytest

from fedpost.report.curves import Line, _styles, curves
from fedpost.report.drawing import DASHES, STAND_INS, inline_svg, plot_file, tick_bytes


def lines(count, *, kinds=1, **how):
    points = [(1000.0 * number, 0.1 * number) for number in range(1, 5)]
    return [Line(f"run-{number}", f"uq({number % kinds})", points, **how) for number in range(count)]


def svg(drawn):
    return inline_svg("test", 300, drawn)


def test_nothing_to_draw():
    assert curves([], "accuracy") is None
    assert curves([Line("run", "dense", [])], "accuracy") is None


def test_a_few_runs_are_named_and_many_are_counted():
    few = svg(curves(lines(3), "accuracy"))
    assert [f"run-{number}" in few for number in range(3)] == [True] * 3
    many = svg(curves(lines(20, kinds=2), "accuracy"))
    assert "run-3" not in many
    assert many.count("uq(0), 10 runs") == many.count("uq(1), 10 runs") == 1


def test_the_own_run_is_named_among_many():
    points = [(1000.0, 0.5), (2000.0, 0.6)]
    text = svg(curves([Line("this run", "uq(0)", points, own=True), *lines(20)], "accuracy"))
    assert text.count("uq(0), this run") == 1


def test_lines_differ_in_colour_and_dashes():
    styles = _styles(lines(len(STAND_INS.lines) * len(DASHES), kinds=len(STAND_INS.lines)), STAND_INS)
    assert len(set(styles)) == len(styles)
    many = _styles(lines(len(STAND_INS.lines) + 1, kinds=len(STAND_INS.lines) + 1), STAND_INS)
    assert len(set(many)) == len(many)


def test_one_point_is_a_plot():
    assert "kB" in svg(curves([Line("run", "dense", [(5000.0, 0.5)])], "accuracy"))


@pytest.mark.parametrize("most", [1e3, 1.5e3, 1e5, 1e12])
def test_the_axis_of_bytes_has_ticks(most):
    text = svg(curves([Line("run", "dense", [(999.0, 0.1), (most, 0.5)])], "accuracy"))
    assert re.search(r">\d+ ([kMGT]?B)<", text)


def test_hostile_names_are_text():
    hostile = "<script>alert(1)</script> $\\frac{"
    drawn = curves([Line(hostile, hostile, [(1000.0, 0.5)])], hostile)
    for text in (svg(drawn), plot_file("svg", 300, drawn).decode()):
        assert "<script" not in text
        assert "&lt;" in text
    assert plot_file("png", 300, drawn).startswith(b"\x89PNG")


def test_ticks_say_no_more_than_they_must():
    assert [tick_bytes(value) for value in (500, 10_000, 2_000_000, 1_500_000)] == ["500 B", "10 kB", "2 MB", "1.50 MB"]
