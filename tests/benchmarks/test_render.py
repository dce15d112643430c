import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "render.py"


@pytest.fixture(scope="module")
def render():
    spec = importlib.util.spec_from_file_location("render", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["render"] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules["render"]


def row(method="maml", setting="5-way 1-shot", metric="accuracy %", value=90.0, **more):
    return {"method": method, "setting": setting, "metric": metric, "value": value, **more}


def write(root, name, rows, **facts):
    folder = root / "benchmarks" / "results"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({"benchmark": name, "rows": rows, **facts}))


def results(root):
    return (root / "benchmarks" / "RESULTS.md").read_text()


def test_a_section_has_what_was_measured_when_on_what_and_how(render, tmp_path):
    facts = {
        "description": "How fast.",
        "date": "2026-01-02",
        "machine": {"cpu": "two cores"},
        "commit": "abc1234",
        "versions": {"torch": "2.13.0"},
        "settings": {"steps": [1, 5], "compiled": False},
        "something_new": 3,
    }
    write(tmp_path, "maml_speed", [row(ci95=0.5, n=600)], **facts)
    assert render.main(["--root", str(tmp_path)]) == 0
    text = results(tmp_path)
    assert "## Maml speed\n\nHow fast.\n\n- date: 2026-01-02\n- machine: cpu two cores\n- commit: abc1234\n" in text
    assert "- versions: torch 2.13.0\n- settings: steps 1 / 5, compiled no\n" in text
    assert "| maml | 90.00 ± 0.50 |" in text
    assert "± is the 95 % interval over 600." in text
    assert "something_new" not in text


def test_the_best_measured_value_of_a_column_is_bold(render, tmp_path):
    seconds = {"a": 2.0, "b": 0.5, "floor": 0.1}
    write(tmp_path, "speed", [row(m, metric="seconds per step", value=v) for m, v in seconds.items()])
    write(tmp_path, "accuracy", [row("a", value=90.0), row("b", value=91.0)])
    render.main(["--root", str(tmp_path)])
    text = results(tmp_path)
    assert "| b | **0.500** |" in text
    assert "| floor | 0.100 |" in text
    assert "| b | **91.00** |" in text
    assert "| a | 90.00 |" in text


def test_nothing_is_best_where_the_metric_does_not_say_which_way_is_better(render, tmp_path):
    write(tmp_path, "sizes", [row("a", metric="parameters", value=1200), row("b", metric="parameters", value=90)])
    render.main(["--root", str(tmp_path)])
    assert "**1,200**" not in results(tmp_path)
    assert "| a | 1,200 |" in results(tmp_path)


def test_published_figures_stand_apart_with_their_source_and_are_never_the_best(render, tmp_path):
    write(tmp_path, "omniglot", [row("a", value=98.0), row("b", value=97.5), row("a", value=98.8, source="Snell 2017")])
    render.main(["--root", str(tmp_path)])
    text = results(tmp_path)
    assert "| a | **98.00** |" in text
    assert "| a | 98.8 | Snell 2017 |" in text
    assert text.index("| b |") < text.index("published figures, not measured here") < text.index("Snell 2017")


def test_a_table_that_would_be_too_wide_is_a_table_for_each_head_of_its_settings(render, tmp_path):
    wide = [row("a", f"{data}, {n} trials", "regret", n) for data in ("cora", "photo") for n in range(1, 7)]
    write(tmp_path, "search", [*wide, row("b", "photo, 2 trials", "regret", 1.0)])
    assert render.main(["--root", str(tmp_path)]) == 0
    text = results(tmp_path)
    assert "**regret**, cora\n\n| method | 1 trials |" in text
    assert "**regret**, photo\n\n| method | 1 trials |" in text
    assert "| 1.00 | 2.00 | 3.00 |" in text  # there is none beside them
    assert "| b | not measured | **1.00** |" in text


def test_several_seeds_are_shown_as_their_mean_and_spread(render, tmp_path):
    write(tmp_path, "few", [row(value=v, ci95=0.1, seed=i) for i, v in enumerate((89.0, 90.0, 91.0))])
    render.main(["--root", str(tmp_path)])
    assert "| maml | 90.00 ± 1.00 (3 seeds) |" in results(tmp_path)
    assert "standard deviation" in results(tmp_path)


def test_what_was_not_measured_says_so(render, tmp_path):
    write(tmp_path, "few", [row("a", value=None), row("b", value=float("nan")), row("c", setting="20-way", value=80)])
    render.main(["--root", str(tmp_path)])
    assert "| a | not measured | not measured |" in results(tmp_path)
    assert "| b | not finite | not measured |" in results(tmp_path)
    write(tmp_path, "few", [{**row("d", value=None), "why": "not finite"}])
    render.main(["--root", str(tmp_path)])
    assert "| d | not finite |" in results(tmp_path)


def test_the_same_files_give_the_same_page(render, tmp_path):
    for name in ("b", "a"):
        write(tmp_path, name, [row("x"), row("y")])
    assert render.render(tmp_path) == render.render(tmp_path)
    (text,) = render.render(tmp_path).values()
    assert text.index("## A") < text.index("## B")


def test_check_writes_nothing_and_fails_until_the_page_is_up_to_date(render, tmp_path, capsys):
    write(tmp_path, "few", [row()])
    arguments = ["--root", str(tmp_path)]
    assert render.main([*arguments, "--check"]) == 1
    assert "out of date. Run make results." in capsys.readouterr().err
    assert not (tmp_path / "benchmarks" / "RESULTS.md").exists()
    assert render.main(arguments) == 0
    assert render.main([*arguments, "--check"]) == 0


def test_blocks_of_the_readme_are_replaced_and_the_rest_is_left_alone(render, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(
        "before\n<!-- results: few, accuracy % -->\nold\n<!-- end results -->\nbetween\n"
        "<!-- results: later -->\n<!-- end results -->\nafter\n"
    )
    write(tmp_path, "few", [row(value=90), row(metric="seconds", value=3)], machine="two cores", date="2026-01-02")
    render.main(["--root", str(tmp_path)])
    text = readme.read_text()
    assert text.startswith("before\n<!-- results: few, accuracy % -->\n")
    assert text.endswith("<!-- results: later -->\n*Not measured yet.*\n<!-- end results -->\nafter\n")
    assert "| maml | 90.00 |" in text
    assert "Measured on two cores, 2026-01-02." in text
    assert "seconds" not in text
    assert "old" not in text
    assert render.main(["--root", str(tmp_path), "--check"]) == 0


def test_a_block_may_be_of_the_settings_that_begin_so(render, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("<!-- results: few, accuracy %, deep -->\n<!-- end results -->\n")
    write(tmp_path, "few", [row(setting="deep, 3 steps", value=90), row(setting="wide", value=71)])
    assert render.main(["--root", str(tmp_path)]) == 0
    assert "| method | deep, 3 steps |" in readme.read_text()
    assert "71" not in readme.read_text()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "is not JSON"),
        ("[]", 'has no list of "rows"'),
        ('{"rows": [3]}', "row 0 is 3"),
        (json.dumps({"rows": [row(method=None)]}), 'row 0 has "method": None'),
        (json.dumps({"rows": [row(), row(value="much", seed=1)]}), "row 1 has \"value\": 'much'"),
        (json.dumps({"rows": [{"method": "a", "setting": "b", "metric": "c"}]}), 'row 0 has no "value"'),
        (json.dumps({"rows": [row(), row()]}), "row 1 repeats 'maml'"),
    ],
)
def test_a_malformed_file_is_named_with_what_is_wrong(render, tmp_path, capsys, content, complaint):
    write(tmp_path, "few", [])
    (tmp_path / "benchmarks" / "results" / "few.json").write_text(content)
    assert render.main(["--root", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert "few.json" in message
    assert complaint in message


def test_a_readme_block_that_is_not_closed_or_asks_for_an_unknown_metric_is_refused(render, tmp_path, capsys):
    write(tmp_path, "few", [row()])
    readme = tmp_path / "README.md"
    readme.write_text("<!-- results: few -->\nthe rest of the page\n")
    assert render.main(["--root", str(tmp_path)]) == 2
    readme.write_text("<!-- results: few, accuracy %, deep -->\n<!-- end results -->\n")
    assert render.main(["--root", str(tmp_path)]) == 2
    assert "has no accuracy % in settings that begin with 'deep'" in capsys.readouterr().err
    readme.write_text("<!-- results: few, metres -->\n<!-- end results -->\n")
    assert render.main(["--root", str(tmp_path)]) == 2
    assert "has no metric 'metres'. It has 'accuracy %'." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("metric", "direction"),
    [
        ("accuracy %", "higher"),
        ("mean squared error", "lower"),
        ("seconds per meta-iteration", "lower"),
        ("tasks per second", "higher"),
        ("peak memory MiB", "lower"),
        ("regret", "lower"),
        ("parameters", None),
    ],
)
def test_a_metric_says_by_its_name_which_way_is_better(render, metric, direction):
    assert render.better(metric) == direction


def test_settings_of_several_processors_are_told_apart(render, tmp_path):
    one = [row(method, "5-way", cpu="Intel") for method in ("maml", "reptile")]
    write(tmp_path, "few", [*one, row(setting="20-way", cpu="AMD")])
    write(tmp_path, "speed", one)
    assert render.main(["--root", str(tmp_path)]) == 0
    assert results(tmp_path).count("Measured by Intel: 5-way. AMD: 20-way.") == 1
    assert results(tmp_path).count("Measured by") == 1


def test_where_several_processors_measured_the_same_settings_the_methods_are_told_apart(render, tmp_path):
    write(tmp_path, "few", [row("maml", "5-way", cpu="Intel"), row("meta_sgd", "5-way", cpu="AMD")])
    assert render.main(["--root", str(tmp_path)]) == 0
    assert "Measured by Intel: maml. AMD: meta sgd." in results(tmp_path)
