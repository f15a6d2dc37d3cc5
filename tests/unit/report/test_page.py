"""The page is whole, says what the ledger says, and lets no foreign text become markup."""

from __future__ import annotations

import html.parser
import re
import subprocess
import sys

import pytest

from fedpost.errors import ConfigError, DecodeError, MissingExtraError
from fedpost.report import write_report
from fedpost.telemetry import JsonLinesSink, Telemetry

SCRIPT = "<script>alert(1)</script>"
IMAGE = "\"><img src=x onerror='alert(2)'> $\\frac{"


class Outline(html.parser.HTMLParser):
    """Collects tags, ids, attributes and text; void elements aside, tags must be balanced."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in {"meta", "link", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += f"{data} "


def ledger(path, *, rounds=3, evaluated=True, end="finished", sites=("north", SCRIPT), stage="train"):
    with JsonLinesSink(path) as sink:
        telemetry = Telemetry(sink)
        telemetry.event("run_started", {"run": "r", "name": f"run {SCRIPT}", "rounds": 5, "transport": SCRIPT})
        for number in range(1, rounds + 1):
            in_round = telemetry.labelled(round=number)
            in_round.event("round_started", {"sites": len(sites), "attempt": 1})
            in_round.spent("aggregate", 0.01)
            for site in sites:
                at_site = in_round.labelled(site=site)
                at_site.transfer("down", "fit", f"w{SCRIPT}", raw=4000, stored=4096)
                at_site.transfer("up", "result", f"w{SCRIPT}", raw=4000, stored=100)
                at_site.spent(stage, 0.5)
                at_site.event("result_accepted", {"examples": 5})
            in_round.labelled(site=sites[-1]).event("result_refused", {"reason": IMAGE})
            measured = {"accuracy": 0.5, "loss": 1.0, SCRIPT: 2.0} if evaluated else {}
            in_round.event("round_ended", {**measured, "sites": len(sites), "seconds": 1.0})
        if end:
            telemetry.event("run_ended", {"status": end, "reason": IMAGE, "seconds": 3.0})
    return path


def outline(tmp_path, **how):
    write_report(ledger(tmp_path / "ledger.jsonl", **how), tmp_path / "page.html")
    parsed = Outline()
    parsed.feed((tmp_path / "page.html").read_text("utf-8"))
    parsed.close()
    assert parsed.open == []
    ids = [value for _, name, value in parsed.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    return parsed


def test_nothing_foreign_becomes_markup(tmp_path):
    page = outline(tmp_path, stage=IMAGE)
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    # It is all there to be read: heading, settings, sites, tensors, metrics, problems, the run's reason.
    assert page.text.count(SCRIPT) >= 7
    assert page.text.count(IMAGE) >= 4


def test_it_is_self_contained(tmp_path):
    page = outline(tmp_path)
    links = {value for _, name, value in page.attributes if name in {"src", "href", "xlink:href", "action"}}
    assert all(link.startswith(("#", "data:")) for link in links if link)
    text = (tmp_path / "page.html").read_text("utf-8")
    assert not re.findall(r"url\((?!#)|@import|DejaVu|#0102", text)
    assert "default-src 'none'" in text
    assert page.tags.count("svg") == 4


def test_it_is_accessible(tmp_path):
    page = outline(tmp_path)
    assert ("html", "lang", "en") in page.attributes
    assert page.tags.count("h1") == 1
    assert page.tags.count("title") == 1
    assert sum(1 for tag, name, value in page.attributes if name == "role" and value == "img") == 4
    assert page.tags.count("th") == sum(1 for tag, name, _ in page.attributes if tag == "th" and name == "scope")


def test_figures_are_the_ledgers(tmp_path):
    text = " ".join(outline(tmp_path).text.split())
    for tile in ("Final accuracy 0.5000", "Rounds 3 of 5 planned", "Sites 2", "Sent down 24.6 kB", "Sent up 600 B"):
        assert tile in text
    assert "Against raw 1.9\N{MULTIPLICATION SIGN} smaller" in text


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"rounds": 0, "end": None}, "No evaluation was made."),
        ({"rounds": 0, "end": "interrupted"}, "interrupted"),
        ({"rounds": 2, "end": "failed"}, "failed"),
        ({"rounds": 1}, "in round 1"),
        ({"evaluated": False}, "no evaluation"),
        ({"rounds": 60}, "60 rows"),
    ],
)
def test_any_run_gives_a_page(tmp_path, how, says):
    assert says in " ".join(outline(tmp_path, **how).text.split())


def test_an_empty_ledger_gives_a_page(tmp_path):
    (tmp_path / "l.jsonl").touch()
    write_report(tmp_path / "l.jsonl", tmp_path / "p.html")
    assert "Nothing was recorded" in (tmp_path / "p.html").read_text("utf-8")


def test_the_same_ledger_gives_the_same_page(tmp_path):
    path = ledger(tmp_path / "l.jsonl")
    write_report(path, tmp_path / "1.html")
    write_report(path, tmp_path / "2.html")
    assert (tmp_path / "1.html").read_bytes() == (tmp_path / "2.html").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1.html", "2.html", "l.jsonl"]


def test_errors_say_where(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        write_report(tmp_path / "none.jsonl", tmp_path / "p.html")
    (tmp_path / "bad.jsonl").write_text('{"kind": "elephant"}\n')
    with pytest.raises(DecodeError, match="not a ledger"):
        write_report(tmp_path / "bad.jsonl", tmp_path / "p.html")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_report(ledger(tmp_path / "l.jsonl"), tmp_path / "nowhere" / "p.html")


@pytest.mark.parametrize("module", ["jinja2", "matplotlib"])
def test_a_missing_extra_is_named(tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    for drawing in ("plots", "curves", "drawing"):
        monkeypatch.delitem(sys.modules, f"fedpost.report.{drawing}", raising=False)
        monkeypatch.delattr(f"fedpost.report.{drawing}", raising=False)
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'fedpost[run]'")):
        write_report(ledger(tmp_path / "l.jsonl"), tmp_path / "p.html")


def test_importing_the_package_loads_no_extra():
    code = "import sys, fedpost.report; print([m for m in ('matplotlib', 'jinja2', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
