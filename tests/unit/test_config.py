"""Settings: what is right is typed, and what is wrong is told with its line, its path and what was meant."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import fedpost
from fedpost.config import RunConfig, load_app, load_config, new_run_id, transport_url
from fedpost.errors import ConfigError

ROOT = Path(__file__).parents[2]
GOOD = """\
name: demo
app: app.py:app
sites: [north, south]
rounds: 3
strategy: {name: fedavg, min_fit_clients: 2}
"""


@pytest.fixture
def write(tmp_path):
    def write(text=GOOD, **changes):
        for key, value in changes.items():
            text = (
                re.sub(rf"(?m)^{key}:.*$", f"{key}: {value}", text) if f"{key}:" in text else f"{text}{key}: {value}\n"
            )
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return path

    return write


def wrong(path, **overrides):
    with pytest.raises(ConfigError) as caught:
        load_config(path, {key.replace("__", "."): value for key, value in overrides.items()})
    return caught.value


def test_a_good_file_is_typed(write):
    config = load_config(write())
    assert (config.name, config.rounds, config.site_names) == ("demo", 3, ["north", "south"])
    assert config.strategy.min_fit_clients == 2
    assert {str(pipeline) for pipeline in config.pipelines().values()} == {"dense | fedwt | none"}
    assert config.hosts() == {"north": ["north"], "south": ["south"]}


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*/run.yaml")), ids=lambda path: path.parent.name)
def test_the_examples_are_good(example):
    config = load_config(example)
    assert config.site_names
    assert len(config.pipelines()) == 3


def test_a_number_of_sites_names_them_so_that_they_sort(write):
    assert load_config(write(sites=3)).site_names == ["site-0", "site-1", "site-2"]
    names = load_config(write(sites=101)).site_names
    assert (names[0], names[-1]) == ("site-000", "site-100")
    assert names == sorted(names)


@pytest.mark.parametrize(
    ("processes", "hosts"),
    [
        ("sites", [1, 1, 1, 1, 1]),
        ("1", [5]),
        ("2", [3, 2]),
        ("9", [1, 1, 1, 1, 1]),
    ],
)
def test_sites_are_shared_out_over_processes(write, processes, hosts):
    config = load_config(write(sites=5, processes=processes))
    shares = list(config.hosts().values())
    assert [len(share) for share in shares] == hosts
    assert sorted(site for share in shares for site in share) == config.site_names


WRONG = {
    "unknown key": ("ronds: 3", 6, "unknown key 'ronds'", "Did you mean 'rounds'?"),
    "unknown key, nothing near": ("zzz: 3", 6, "unknown key 'zzz'", "Known keys: name, app"),
    "text for a number": ("seed: many", 6, "seed: Expected `int`, got `str`", None),
    "negative timeout": ("round_timeout: -1", 6, "round_timeout: Expected `float` > 0", None),
    "no timeout": ("round_timeout: 0", 6, "round_timeout: Expected `float` > 0", None),
    "list for text": ("transport: [a]", 6, "transport: Expected `str`, got `array`", None),
    "process word": ("processes: all", 6, "processes: Invalid enum value 'all'", None),
    "no processes": ("processes: 0", 6, "processes: ", None),
    "no attempts": ("attempts: 0", 6, "attempts: Expected `int` >= 1", None),
    "options list": ("options: [1]", 6, "options: Expected `object`, got `array`", None),
    "update of numbers": ("update: {FitRes: 3}", 6, "update", None),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_key_or_value_is_told_with_its_line(write, case):
    line, number, message, hint = WRONG[case]
    error = wrong(write(GOOD + line + "\n"))
    assert error.where.endswith(f"run.yaml:{number}")
    assert message in error.what
    assert hint is None or error.hint.startswith(hint)
    assert f"run.yaml:{number}: " in str(error)


def test_a_wrong_key_inside_the_strategy_is_told_with_path_line_and_the_nearest(write):
    text = GOOD.replace("{name: fedavg, min_fit_clients: 2}", "\n  name: fedavg\n  min_fit_client: 2")
    error = wrong(write(text))
    assert error.what == "unknown key 'strategy.min_fit_client'"
    assert error.where.endswith("run.yaml:7")
    assert error.hint == "Did you mean 'min_fit_clients'?"


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ("{name: fedavg, fraction_fit: 1.5}", "strategy.fraction_fit: Expected `float` <= 1"),
        ("{name: fedavg, min_fit_clients: 0}", "strategy.min_fit_clients: Expected `int` >= 1"),
        ("{name: fedsomething}", "strategy.name: Invalid value 'fedsomething'"),
        ("fedavg", "strategy: Expected `object"),
    ],
)
def test_a_wrong_strategy(write, strategy, message):
    error = wrong(write(strategy=strategy))
    assert message in error.what
    assert error.where.endswith("run.yaml:5")


@pytest.mark.parametrize(
    "sites",
    [
        "[a, a]",
        "[server]",
        "['..']",
        "['a/b']",
        "['.a']",
        "['']",
        "['a b']",
        "['a\\n']",
        f"[{'a' * 65}]",
        "[1]",
        "0",
        "-1",
        "x",
    ],
)
def test_a_wrong_site_is_told_with_its_line(write, sites):
    error = wrong(write(sites=sites))
    assert re.search(r"run\.yaml:3$", error.where)
    assert "sites" in error.what or "site" in error.what or "server" in error.what


def test_no_sites_at_all_are_an_error(write):
    assert "sites" in wrong(write(sites="[]")).what


@pytest.mark.parametrize("name", ["../x", "a b", "''", "a/b", ".x"])
def test_a_wrong_name_is_told_with_its_line(write, name):
    error = wrong(write(name=name))
    assert error.where.endswith("run.yaml:1")
    assert error.what.startswith("name: ")


@pytest.mark.parametrize("key", ["name", "app", "sites", "rounds"])
def test_a_missing_key_is_named(write, key):
    error = wrong(write(re.sub(rf"(?m)^{key}:.*\n", "", GOOD)))
    assert f"missing required field `{key}`" in error.what


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        (GOOD + "rounds: 4\n", 6, "rounds"),
        (GOOD + "update: {FitRes: dense, FitIns: dense, FitRes: dense}\n", 6, "FitRes"),
    ],
)
def test_a_key_that_comes_twice_is_an_error(write, text, line, key):
    error = wrong(write(text))
    assert f"{key!r} comes twice" in error.what
    assert error.where.endswith(f"run.yaml:{line}")


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"compression": "zst"}, "unknown compression 'zst'", "Did you mean 'zstd'?"),
        ({"compression": "zstd(99)"}, "zstd has the levels", None),
        ({"compression": "zstd(x)"}, "a whole number", None),
        ({"compression": "'zstd('"}, "not a name with arguments", None),
        ({"update": "sparse"}, "unknown update codec 'sparse'", None),
        ({"update": "cast(int8)"}, "cast to 'int8' is not possible", None),
        ({"update": "cast"}, "update codec 'cast'", None),
        ({"serialization": "pickle"}, "unknown format 'pickle'", "Known: "),
        ({"checksum": "md5"}, "unknown checksum 'md5'", None),
        ({"update": "{FitReS: dense}"}, "update: unknown payload 'FitReS'", "Did you mean 'FitRes'?"),
        ({"update": "{whatever: dense}"}, "update: unknown payload 'whatever'", "Known: default, FitIns"),
        ({"compression": "{FitRes: nope}"}, "unknown compression 'nope'", None),
    ],
)
def test_a_pipeline_that_cannot_be_built_is_told_when_the_file_is_read(write, changes, message, hint):
    error = wrong(write(**changes))
    assert message in error.what
    assert "run.yaml" in error.where
    assert hint is None or error.hint.startswith(hint)


def test_payloads_have_their_own_pipelines(write):
    text = GOOD + (
        "update: {default: dense, FitRes: cast(bfloat16)}\n"
        "serialization: {FitIns: numpy}\n"
        "compression: {default: zstd(1), EvaluateIns: none}\n"
        "checksum: xxh3\n"
    )
    pipelines = load_config(write(text)).pipelines()
    assert {name: str(pipeline) for name, pipeline in pipelines.items()} == {
        "FitIns": "dense | numpy | zstd(1)",
        "FitRes": "cast(bfloat16) | fedwt | zstd(1)",
        "EvaluateIns": "dense | fedwt | none",
    }
    assert {pipeline.checksum for pipeline in pipelines.values()} == {"xxh3"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: [a\nrounds: 3\n", 2),
        ("a: b: c\n", 1),
        ("\tname: x\n", 1),
        ("name: 'x\n", None),
        ("name: &a\n  x: *b\n", 2),
    ],
)
def test_what_is_not_yaml_is_told_with_its_line(write, text, line):
    error = wrong(write(text))
    assert error.what.startswith("not YAML: ")
    assert line is None or re.search(rf"run\.yaml:{line}$", error.where)


@pytest.mark.parametrize("text", ["", "- a\n", "just text\n", "3\n"])
def test_what_is_no_mapping_is_an_error(write, text):
    assert wrong(write(text)).what == "not a mapping of keys to values"


@pytest.mark.parametrize("text", ["? [a, b]\n: c\n", "? {a: b}\n: c\n", "1: x\n", "null: x\n"])
def test_keys_that_are_not_text_are_an_error(write, text):
    assert "run.yaml" in wrong(write(GOOD + text)).where


def test_python_objects_in_yaml_are_refused(write, tmp_path):
    mark = tmp_path / "mark"
    error = wrong(write(GOOD + f"output: !!python/object/apply:os.mkdir ['{mark}']\n"))
    assert error.what.startswith("not YAML: ")
    assert not mark.exists()


def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
    assert "cannot be read" in wrong(tmp_path / "none.yaml").what
    (tmp_path / "latin.yaml").write_bytes(b"name: \xfc\n")
    assert "cannot be read" in wrong(tmp_path / "latin.yaml").what


# ── from the command line ────────────────────────────────────────────────────────────────────────────────────────────


def test_overrides_replace_and_reach_into_mappings(write):
    config = load_config(
        write(),
        {"rounds": "7", "strategy.fraction_fit": "0.5", "options.alpha": "0.1", "update.FitRes": "cast(float16)"},
    )
    assert (config.rounds, config.strategy.fraction_fit, config.options) == (7, 0.5, {"alpha": 0.1})
    assert config.strategy.min_fit_clients == 2
    assert str(config.pipelines()["FitRes"]).startswith("cast(float16)")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("ronds", "3", "unknown key 'ronds'"),
        ("rounds", "x", "rounds: Expected `int`"),
        ("rounds.x", "1", "'rounds' has no keys of its own"),
        ("rounds", "[1", ""),
    ],
)
def test_a_wrong_override_is_told(write, key, value, message):
    with pytest.raises(ConfigError) as caught:
        load_config(write(), {key: value})
    assert message in caught.value.what


def test_a_wrong_override_does_not_blame_a_line_of_the_file(write):
    error = wrong(write(), rounds="x")
    assert not error.where.endswith(":4"), "line 4 says 3, which is right"


# ── transport ────────────────────────────────────────────────────────────────────────────────────────────────────────


CHANGES = ["uq(2)", "eden(1)", "topk(0.01)", "stc(0.04)", "int8", "int4", "sign", "delta", "auto(budget=1MB/round)"]


@pytest.mark.parametrize("codec", CHANGES)
def test_codecs_of_changes_are_for_every_payload(write, codec):
    pipelines = load_config(write(GOOD + f"update: {codec}\n")).pipelines()
    assert {str(pipeline) for pipeline in pipelines.values()} == {f"{codec} | fedwt | none"}
    pipelines = load_config(write(GOOD + f"update: {{FitRes: {codec}, FitIns: cast(bfloat16)}}\n")).pipelines()
    assert str(pipelines["FitRes"]) == f"{codec} | fedwt | none"
    assert str(pipelines["EvaluateIns"]) == "dense | fedwt | none"
    load_config(write(GOOD + f"update: {{default: {codec}, FitRes: dense}}\n"))


@pytest.mark.parametrize("codec", CHANGES)
def test_the_payloads_that_bring_a_model_have_the_same_codec_of_changes(write, codec):
    for settings in (f"{{FitIns: {codec}}}", f"{{EvaluateIns: {codec}}}", f"{{default: {codec}, FitIns: uq(3)}}"):
        error = wrong(write(GOOD + f"update: {settings}\n"))
        assert "FitIns and EvaluateIns bring the same model, but FitIns has" in error.what
        assert error.hint.startswith("Give both the same update codec")
    load_config(write(GOOD + f"update: {{FitIns: {codec}, EvaluateIns: {codec}}}\n"))
    load_config(write(GOOD + "update: {FitIns: 'delta | uq(2) | rc', EvaluateIns: uq(2)}\n"))


UPDATES = {
    "[delta, uq(2), rc]": "uq(2)",
    "delta | uq(2) | rc": "uq(2)",
    "none": "dense",
    "[cast(bfloat16), delta]": "cast(bfloat16) | delta",
    "{'*.bias': none, '*': uq(2)}": '{"*.bias": dense, "*": uq(2)}',
    "{'*.bias': none, 'layers.0.w': [delta, uq(1), rc]}": '{"*.bias": dense, "layers.0.w": uq(1)}',
    "{default: {bias: none, '*': uq(2)}}": '{"bias": dense, "*": uq(2)}',
    "{default: [delta, topk(0.1)]}": "topk(0.1)",
    "{'b?': int8}": '{"b?": int8}',
    "{'[ab]': int8}": '{"[ab]": int8}',
    "'{\"a|b\": uq(1)}'": '{"a|b": uq(1)}',
    "auto(budget=64KiB)": "auto(budget=64KiB/round)",
}


@pytest.mark.parametrize("update", UPDATES)
def test_ways_to_write_an_update_codec(write, update):
    pipelines = load_config(write(GOOD + f"update: {update}\n")).pipelines()
    assert {str(pipeline.update) for pipeline in pipelines.values()} == {UPDATES[update]}


def test_each_payload_may_have_patterns(write):
    text = "update:\n  FitRes:\n    '*.bias': none\n    '*': auto(budget=1MB/round)\n  default: cast(bfloat16)\n"
    pipelines = load_config(write(GOOD + text)).pipelines()
    assert str(pipelines["FitRes"].update) == '{"*.bias": dense, "*": auto(budget=1MB/round)}'
    assert str(pipelines["FitIns"].update) == "cast(bfloat16)"


WRONG_UPDATES = {
    "update: [delta, delta]": (6, "'delta | delta' does not fit"),
    "update: uq(2) | delta": (6, "uq(2) gives symbols, but delta takes a model"),
    "update: rc": (6, "'rc' does not fit"),
    "update: []": (6, "at least one stage"),
    "update: [1]": (6, "Expected `str`, got `int`"),
    "update:\n  '*.bias': none\n  '*': uqq(2)": (8, "unknown update codec 'uqq'"),
    "update:\n  FitRes:\n    '*': none\n    b: uq(99)": (9, "uq(99)"),
    "update:\n  FitRes:\n    '*': {'*': none}": (6, "update"),
    "update:\n  FitRes: [1]": (6, "update"),
    "update:\n  FitRes: none\n  FitReS: none": (8, "unknown payload 'FitReS'"),
    "update:\n  '*.bias': none\n  FitRes: uq(2)": (8, "'FitRes' is no pattern, as others here are"),
    "update:\n  default:\n    '*': auto(1MB)\n    b: auto(2MB)": (7, "auto comes twice"),
    f"update:\n  default: none\n  FitRes:\n    {'x' * 201}: none": (9, "201 characters"),
    "update: auto(budget=1XB)": (6, "is not a budget"),
    "update: {FitRes: {}}": (6, "0 patterns"),
}


@pytest.mark.parametrize("text", WRONG_UPDATES)
def test_a_wrong_update_codec_is_told_with_its_line(write, text):
    line, message = WRONG_UPDATES[text]
    error = wrong(write(GOOD + text + "\n"))
    assert message in error.what
    assert error.where.endswith(f"run.yaml:{line}")


@pytest.mark.parametrize("codec", ["uq(0)", "uq", "uq(x)", "eden(5)", "topk(2)", "stc(0)", "int8(3)"])
def test_arguments_of_codecs_are_checked_when_the_file_is_read(write, codec):
    error = wrong(write(GOOD + f"update: {{FitRes: {codec}}}\n"))
    assert error.where.endswith("run.yaml:6")


def test_a_file_transport_is_relative_to_the_file_and_absolute_urls_stay(write, tmp_path):
    path = write()
    assert transport_url(load_config(path), path) == (tmp_path / "mailbox").as_uri()
    assert transport_url(load_config(path), path, run="r-1") == (tmp_path / "mailbox/r-1").as_uri()
    path = write(transport="file:../other")
    assert transport_url(load_config(path), path) == (tmp_path.parent / "other").as_uri()
    path = write(transport="file:///some/where")
    assert transport_url(load_config(path), path) == "file:///some/where"
    path = write(transport="memory://x")
    assert transport_url(load_config(path), path) == "memory://x"


def test_a_file_transport_with_a_host_is_an_error(write):
    path = write(transport="file://host/folder")
    with pytest.raises(ConfigError, match="names a host"):
        transport_url(load_config(path), path)


def test_run_ids_sort_and_differ():
    ids = [new_run_id("demo") for _ in range(20)]
    assert len(set(ids)) == 20
    assert all(re.fullmatch(r"demo-\d{8}-\d{6}-[0-9a-f]{4}", run) for run in ids)


# ── the app ──────────────────────────────────────────────────────────────────────────────────────────────────────────

APP = """
import fedpost
def app(sites, seed, alpha=0.5):
    return fedpost.App(client=lambda site: (site, sites, seed, alpha))
def wrong(sites, seed):
    return 3
"""


def test_the_app_gets_sites_seed_and_options(write, tmp_path):
    (tmp_path / "app.py").write_text(APP)
    path = write(seed=4, options="{alpha: 0.1}")
    app = load_app(load_config(path), path)
    assert app.client("north") == ("north", ["north", "south"], 4, 0.1)


@pytest.mark.parametrize(
    ("app", "message"),
    [
        ("none.py:app", "no such app 'none.py:app'"),
        ("app.py", "no such app 'app.py'"),
        ("'app.py:'", "app.py has no function ''"),
        ("app.py:nothing", "app.py has no function 'nothing'"),
        ("app.py:wrong", "wrong returned int, not fedpost.App"),
        ("':app'", "no such app ':app'"),
        ("data.txt:app", "data.txt is not Python"),
    ],
)
def test_an_app_that_is_not_there_or_no_app_is_an_error(write, tmp_path, app, message):
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "data.txt").write_text("x")
    path = write(app=app)
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_app(load_config(path), path)


def test_an_option_that_the_app_does_not_know_is_an_error(write, tmp_path):
    (tmp_path / "app.py").write_text(APP)
    path = write(options="{alpah: 0.1}")
    with pytest.raises(ConfigError, match="alpah"):
        load_app(load_config(path), path)


def test_the_strategy_is_built_around_the_app(write):
    config = load_config(write())
    app = fedpost.App(
        client=lambda site: None,
        initialize=lambda: [np.zeros(2)],
        evaluate=lambda number, arrays, config: (0.5, {"n": number}),
        fit_config=lambda number: {"round": number},
    )
    strategy = config.build_strategy(app)
    assert (strategy.min_fit_clients, strategy.min_available_clients) == (2, 2)
    parameters = strategy.initialize_parameters(None)
    assert strategy.evaluate(3, parameters) == (0.5, {"n": 3})
    assert isinstance(config, RunConfig)


def test_an_app_s_own_strategy_is_taken_unless_one_is_configured(write):
    own = fedpost.App(client=lambda site: None, strategy=fedpost.FedAvg())
    plain = re.sub("(?m)^strategy:.*\n", "", GOOD)
    assert load_config(write(plain)).build_strategy(own) is own.strategy
    assert load_config(write(plain)).build_strategy(fedpost.App(client=lambda site: None)).min_available_clients == 2
    with pytest.raises(ConfigError, match="strategy"):
        load_config(write()).build_strategy(own)
