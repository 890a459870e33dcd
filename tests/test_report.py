"""The report of a run, of each task and with pieces missing, and of a sweep: what it says; it loads nothing."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from contextlib import chdir
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import scipy.stats
import yaml
from markupsafe import Markup

from lossfit import compare
from lossfit.diagnosis.changes import exchanged
from lossfit.report import charts, measured, of_run, of_sweep
from lossfit.report.against_best import differences, student_quantile
from lossfit.report.confusion import confusion
from lossfit.report.defaults import differing
from lossfit.report.effects import effects
from lossfit.report.pictures import training_pictures
from lossfit.report.svg import drawing, svg
from lossfit.system import locks
from lossfit.tasks.figures import bars_figure
from tests import photos
from tests.conftest import QUICK, ROOT, compose, fit
from tests.test_compare import put
from tests.test_diagnose import history
from tests.test_diagnose import write as recorded

Script = Callable[..., tuple[int, str, str]]
HOSTILE = "<script>alert(1)</script>"


class Page(HTMLParser):
    """A report as a browser sees it. text: what can be read, without styles and scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html, self.texts, self.open = html, [], ""
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sources: dict[str, str] = {}
        self.feed(html)
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open = tag
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.open = ""

    def handle_data(self, data: str) -> None:
        if self.open in ("script", "style"):
            self.sources[self.open] = data
        elif self.open == "wbr":  # a word that may be broken
            self.texts[-1] += data
        else:
            self.texts.append(data)


def checked(html: str) -> Page:
    """The page, after a test that it loads and runs nothing but its own script, and follows the reader's theme."""
    page = Page(html)
    text = re.sub(r"base64,[^\"]*", "", html)
    assert not re.search(r"https?:|\"//|@import|<link|<iframe|<object|<base", text)
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")], f"{tag} {attributes}"
        for name in ("src", "href"):
            value = attributes.get(name) or ""
            assert not value or value.startswith(("data:image/png;base64,", "#")), f"{tag} {name}={value[:50]}"
    assert [tag for tag, _ in page.tags].count("script") == 1
    digest = base64.b64encode(hashlib.sha256(page.sources["script"].encode()).digest()).decode()
    (policy,) = (a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a)
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {found for pair in re.findall(r"url\(#(\w+)\)|href=\"#(\w+)\"", html) for found in pair if found} <= ids
    for drawing_ in re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL):
        without_ids = re.sub(r"#\w+(?=\)|\")", "", drawing_)
        assert not re.search(r"#[0-9a-f]{3,6}\b", re.sub('base64,[^"]*', "", without_ids)), (
            "a color that no theme changes"
        )
    assert len(html) < 2e6
    return page


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "the_run"))


@pytest.fixture
def undrawn(run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose report has no figures and no maps of where the model looks, which take most of the time."""
    for module in (charts, measured):
        monkeypatch.setattr(module, "svg", lambda figure, name: Markup("<svg></svg>"))
    monkeypatch.setattr(measured, "saliency", lambda model, images, outputs: None)
    return run


def test_the_report_of_a_run(run: Path, script: Script) -> None:
    status, said, _ = script("report", run)
    assert (status, said.split()[0]) == (0, str(run / "report.html"))
    page = checked((run / "report.html").read_text())
    script("evaluate", run)
    found = json.loads((run / "evaluation_test.json").read_text())
    acc = found["acc"]
    assert f"{acc['value']:.4f} accuracy 95% interval {acc['low']:.4f} to {acc['high']:.4f}" in page.text
    assert "test split, 200 images, weights of epoch 1" in page.text
    worst, row = min(found["classes"].items(), key=lambda item: item[1]["recall"]["value"])
    each = page.text[page.text.index("Each class") :]
    assert each.index(worst) < min(each.index(f" {name} ") for name in found["classes"] if name != worst)
    assert f"{row['recall']['low']:.4f} to {row['recall']['high']:.4f}" in each
    counts = found["confusion"]
    most = max(n for i, line in enumerate(counts) for j, n in enumerate(line) if i != j)
    pairs = page.text[page.text.index("of the class") :]
    assert re.match(rf"of the class [\w/ -]+ {most} ", pairs), pairs[:80]
    assert "expected calibration error" in page.text
    assert f"python train.py {' '.join(QUICK)} model=linear seed=1" in page.text
    assert "model linear airbench" in page.text, "an option that differs from its default"
    assert "200 test" in page.text, "images, as result.json has them"
    assert page.html.count("data:image/png") == 3 * 18, "the worst mistakes, each with a map and the image under it"


def test_an_evaluation_of_this_checkpoint_is_used_and_no_other(undrawn: Path, script: Script) -> None:
    script("evaluate", undrawn)
    file = undrawn / "evaluation_test.json"
    found = json.loads(file.read_text())
    changed = found | {"acc": {"value": 0.1234, "low": 0.1, "high": 0.2}}
    for about, used in (
        ({}, True),
        ({"epochs": 7}, False),
        ({"checkpoint": "elsewhere/last.ckpt"}, False),
        ({"temperature": 1.5}, False),
        ({"samples": 100}, False),
        ({"acc": "0.1234"}, False),
        ({"acc": {"value": 0.1234, "low": "0.1", "high": 0.2}}, False),
        ({"nll": {"value": 10**400, "low": 1, "high": 2}}, False),
        ({"classes": {"Shirt": {"recall": ["x"]}}}, False),
        ({"classes": None}, False),
        ({"classes": {"Shirt": {}}}, False),
        ({"confusion": [[10**400, 1], [1, 1]]}, False),
    ):
        file.write_text(json.dumps(changed | about))
        assert ("0.1234 accuracy 95% interval 0.1000 to 0.2000" in Page(of_run(undrawn)).text) is used, about


@pytest.fixture(scope="module")
def values_and_sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each other task."""
    folder = tmp_path_factory.mktemp("tasks")
    files = sorted(photos.make(folder / "photos").rglob("*.png"))
    tags = [f"{f.relative_to(folder / 'photos')},{('sea;sun', 'sea', 'sun', '')[n % 4]}" for n, f in enumerate(files)]
    (folder / "photos" / "tags.csv").write_text("\n".join(["path,tags", *tags]))
    with chdir(ROOT):
        fit(folder / "values", "data=sample_rotation", "loss=gaussian_nll", "model=linear")
        own = [f"data.dir={folder}/photos", "data.table=tags.csv", "data.image_size=16", "data.workers=0"]
        fit(folder / "sets", "data=folder", *own, "loss=bce", "model=linear")
    return {"values": folder / "values", "sets": folder / "sets"}


def test_the_report_of_a_regression(values_and_sets: dict[str, Path]) -> None:
    page = checked(of_run(values_and_sets["values"]))
    assert re.search(r"\d\.\d{4} mean absolute error 95% interval", page.text)
    assert "angle in degrees" in page.text
    assert "predicted angle [degrees]" in page.text
    assert re.search(r"The worst mistakes -?\d+\.\d , predicted -?\d+\.\d image \d+", page.text)
    assert "within its 95% interval" in page.text
    assert "confuses" not in page.text


def test_the_report_of_several_labels(values_and_sets: dict[str, Path]) -> None:
    page = checked(of_run(values_and_sets["sets"]))
    assert re.search(r"[01]\.\d{4} mean average precision higher is better", page.text)
    assert re.search(r"Each class average precision recall .* (sea|sun) [01]\.\d{4}", page.text)


def test_findings_with_their_remedies(undrawn: Path) -> None:
    finding = {"name": "overfitting", "severity": "warning", "since": {"epoch": 6, "step": 60}, "holds": True}
    remedies = [["++data.augment={flip:0}", "a=1"], ["+callbacks=ema"]]
    found = [
        finding | {"text": f"val/loss rose {HOSTILE}", "remedies": remedies},
        finding | {"name": "dead_units", "severity": "critical", "text": "no unit is active", "holds": False},
    ]
    (undrawn / "diagnosis.json").write_text(json.dumps({"findings": found, "history": {}}))
    page = checked(of_run(undrawn))
    grave = page.text.index("critical dead_units since epoch 6, no longer at the end no unit is active")
    assert grave < page.text.index("warning overfitting since epoch 6 val/loss rose")
    assert f"{HOSTILE} add to the end of the command: '++data.augment={{flip:0}}' a=1 , or +callbacks=ema" in page.text


@pytest.mark.parametrize(
    ("diagnosis", "result", "sentence"),
    [
        ('{"findings": []}', {}, "Nothing was found"),
        (None, {}, "diagnosis.json is not here, so nothing is known"),
        (None, {"status": "failed"}, "The run failed before its diagnosis was written, so nothing is known"),
        (None, {"callbacks": None}, "trained without the callback diagnosis"),
        (None, {"status": "running"}, "written when the training ends. train.log has the findings so far"),
        (None, {"findings": ["plateau"]}, "result.json names plateau, but diagnosis.json is not here"),
        ('{"findings": [{"severity"', {}, "diagnosis.json cannot be read"),
        ('{"findings": [7]}', {}, "diagnosis.json cannot be read"),
    ],
)
def test_what_is_said_without_findings(
    undrawn: Path, diagnosis: str | None, result: dict[str, object], sentence: str
) -> None:
    (undrawn / "diagnosis.json").unlink(missing_ok=True)
    if diagnosis is not None:
        (undrawn / "diagnosis.json").write_text(diagnosis)
    before = {
        key: value for key, value in json.loads((undrawn / "result.json").read_text()).items() if key != "findings"
    }
    (undrawn / "result.json").write_text(json.dumps(before | result))
    if "callbacks" in result:
        config = yaml.safe_load((undrawn / "config.yaml").read_text())
        config["callbacks"]["diagnosis"] = None
        (undrawn / "config.yaml").write_text(yaml.safe_dump(config))
    assert sentence in Page(of_run(undrawn)).text


def test_the_temperature(undrawn: Path, script: Script) -> None:
    assert script("evaluate", undrawn, "--calibrate")[0] == 0
    file = undrawn / "calibration.json"
    found = json.loads(file.read_text())
    text = Page(of_run(undrawn)).text
    pairs = " ".join(
        f"{name} {found[key]['before']:.4f} {found[key]['after']:.4f}"
        for key, name in (("nll", "negative log-likelihood"), ("ece", "expected calibration error"))
    )
    assert f"With the temperature {found['temperature']:.4f}, fitted on the validation split" in text
    assert pairs in text
    file.write_text(json.dumps(found | {"checkpoint": {"sha256": "0"}}))
    assert "The temperature is not shown: " in Page(of_run(undrawn)).text


def test_the_series_that_show_a_finding(tmp_path: Path) -> None:
    run = recorded(tmp_path / "run", history(overfits=True))
    file = run / "diagnosis.json"
    finding = {"name": "overfitting", "severity": "warning", "since": {"epoch": 8.5, "step": 85}, "text": "it rose"}
    file.write_text(json.dumps(json.loads(file.read_text()) | {"findings": [finding]}))
    text = checked(of_run(run)).text
    assert re.search(r"overfitting since step 85 it rose What shows it .* epoch .* loss validation", text)


def without(*files: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        for file in files:
            (run / file).unlink()

    return change


def written(file: str, text: str) -> Callable[[Path], object]:
    return lambda run: (run / file).write_text(text)


def status(name: str, reason: str | None = None) -> Callable[[Path], object]:
    def change(run: Path) -> None:
        result = json.loads((run / "result.json").read_text()) | {"status": name, "reason": reason}
        (run / "result.json").write_text(json.dumps(result))

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without("metrics.csv"), "There are none: metrics.csv is missing."),
        (written("metrics.csv", ""), "There are none: metrics.csv is empty."),
        (written("metrics.csv", "\0\xff"), "There are none: metrics.csv is damaged."),
        (without("result.json"), "result.json is missing, so final metrics and versions are not known."),
        (written("result.json", "{"), "The folder of this run is damaged: result.json is damaged."),
        (written("config.yaml", "{"), "config.yaml cannot be read, so the options of the run are not known."),
        (written("overrides.yaml", "7"), "The command is not known"),
        (without("checkpoints/best.ckpt", "checkpoints/last.ckpt"), "The run has no checkpoint"),
        (written("checkpoints/best.ckpt", "x"), "The model cannot be used: "),
        (status("failed", "RuntimeError: out\nof memory"), "This run failed: RuntimeError: out of memory."),
        (status("diverged", "the training loss was nan"), "became NaN or infinite: the training loss was nan."),
        (status("interrupted"), "before its end. To continue: python train.py resume="),
        (status("running"), "The process of this run was killed before its end."),
        (status("pruned"), "This run was stopped before its end."),
        (
            status("pruned", "stopped by the diagnosis: divergence since step 40: the loss rose"),
            "This run was stopped before its end: stopped by the diagnosis: divergence since step 40: the loss rose.",
        ),
    ],
)  # fmt: skip
def test_a_run_with_pieces_missing(
    undrawn: Path, change: Callable[[Path], object], sentence: str, script: Script
) -> None:
    change(undrawn)
    assert script("report", undrawn)[0] == 0
    assert sentence in checked((undrawn / "report.html").read_text()).text


def test_a_run_that_still_trains(undrawn: Path) -> None:
    status("running")(undrawn)
    with locks.held(undrawn):
        assert "This run is still training" in Page(of_run(undrawn)).text


def test_a_run_whose_data_are_gone(undrawn: Path, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    script("evaluate", undrawn)
    monkeypatch.chdir(undrawn)  # the folder of the sample is relative
    page = checked(of_run(undrawn))
    assert "The images of the test split cannot be used" in page.text
    assert re.search(r"accuracy 95% interval .* test split, 200 images, weights of epoch 1, evaluated on 20", page.text)
    assert "most confused pairs" in page.text
    assert "How to read it" in page.text, "the reliability diagram"
    assert "worst mistakes" not in page.text
    (undrawn / "evaluation_test.json").unlink()
    page = checked(of_run(undrawn))
    assert "val/acc of the validation split, as the run measured it" in page.text


def test_a_run_that_may_not_see_its_test_split(undrawn: Path) -> None:
    config = yaml.safe_load((undrawn / "config.yaml").read_text())
    (undrawn / "config.yaml").write_text(yaml.safe_dump(config | {"test": False}))
    assert "val split, 100 images" in Page(of_run(undrawn)).text


def test_names_from_elsewhere_are_escaped(undrawn: Path, script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    script("evaluate", undrawn)
    found = json.loads((undrawn / "evaluation_test.json").read_text())
    found["classes"] = {f"{HOSTILE}{n}": row for n, row in enumerate(found["classes"].values())}
    (undrawn / "evaluation_test.json").write_text(json.dumps(found))
    status("failed", f"{HOSTILE} </style><img src=x onerror=alert(1)>")(undrawn)
    monkeypatch.chdir(undrawn)
    page = checked(of_run(undrawn))
    assert page.text.count(f"{HOSTILE}0") >= 2
    assert "img src=x onerror=alert(1)" in page.text


def test_texts_that_no_run_writes_are_shown_and_harmless(undrawn: Path) -> None:
    finding = {"name": "a\x1b[2J", "severity": "note", "text": "half \ud800", "since": {"epoch": 10**18, "step": 1}}
    (undrawn / "diagnosis.json").write_text(json.dumps({"findings": [finding]}))
    result = json.loads((undrawn / "result.json").read_text())
    strange = {"images": {"test": "many", "val": [1]}, "best_epoch": 10**400, "git": "\ud800", "parameters": 10**400}
    (undrawn / "result.json").write_text(json.dumps(result | strange))
    page = checked(of_run(undrawn))
    assert "half \\ud800" in page.text
    assert "\x1b" not in page.html
    assert "many test" in page.text


def test_more_findings_than_there_are_rules_are_not_shown(undrawn: Path) -> None:
    finding = {"name": "plateau", "severity": "note", "text": "x"}
    (undrawn / "diagnosis.json").write_text(json.dumps({"findings": [finding] * 1001}))
    assert "diagnosis.json cannot be read, so nothing is known" in Page(of_run(undrawn)).text


def test_pipes_are_not_waited_for(undrawn: Path, script: Script) -> None:
    for name in ("result.json", "metrics.csv", "overrides.yaml", "diagnosis.json", "evaluation_test.json"):
        (undrawn / name).unlink(missing_ok=True)
        os.mkfifo(undrawn / name)
    page = Page(of_run(undrawn))
    assert "result.json is damaged" in page.text
    assert "diagnosis.json cannot be read" in page.text
    assert "200 images" in page.text, "the model is measured all the same"
    (undrawn / "config.yaml").unlink()
    os.mkfifo(undrawn / "config.yaml")
    assert "config.yaml cannot be read" in Page(of_run(undrawn)).text


def test_names_within_figures_are_escaped() -> None:
    with drawing():
        names = [HOSTILE, "$\\frac$ & \N{SNOWMAN}", "long " * 40]
        figure = bars_figure([0.5] * 3, names, "label")
    html = svg(figure, "bars")
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "$\\frac$ &amp; \N{SNOWMAN}" in html
    assert "label" in html, "there is still space for the axis"
    assert "long " * 6 not in html


@pytest.mark.parametrize("classes", [2, 10, 100, 400])
def test_the_confusion_matrix_of_any_number_of_classes(classes: int) -> None:
    counts = [[90 * (i == j) + 10 * (j == (i + 1) % classes) for j in range(classes)] for i in range(classes)]
    counts[1][0] += 30
    found = confusion(counts, [f"class {n}" for n in range(classes)])
    assert found.pairs[0] == ("class 1", "class 0", counts[1][0], counts[1][0] / sum(counts[1]))
    assert bool(found.cells) == (classes <= 20)
    assert len(found.labels) == (0 if classes > 120 else classes)
    drawn = sum(path.count("M") for _, path in found.shades) + len(found.cells)
    assert drawn == sum(n > 0 for row in counts for n in row)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), {}),
        (("seed=7", "trainer.log_every_n_steps=3"), {}),
        (("optimizer=sgd",), {"optimizer": ("sgd", "muon")}),
        (("optimizer=sgd", "optimizer.lr=1"), {"optimizer": ("sgd", "muon"), "optimizer.lr": ("1", "0.1")}),
        (("data.augment=null",), {"data.augment": ("null", "none")}),
        (("data/augment=small", "data/mix=mixup"), {"data/augment": ("small", "none"), "data/mix": ("mixup", "none")}),
        (("+costs.Shirt.Coat=5",), {"costs.Shirt.Coat": ("5", "")}),
        (("+callbacks=ema",), {"callbacks": ("checkpoint, ema", "checkpoint")}),
        (("callbacks.ema.decay=0.5", "+callbacks=ema"), {"callbacks.ema.decay": ("0.5", "0.995")}),
        (("data=sample", "trainer=cpu"), {"data": ("sample", "fashion_mnist"), "trainer": ("cpu", "auto")}),
        (("experiment=quickstart",), {"data.batch_size": ("64", "256"), "optimizer.lr": ("0.001", "0.1")}),
    ],
)  # fmt: skip
def test_options_that_differ_from_the_defaults(
    overrides: tuple[str, ...], expected: dict[str, tuple[str, str]]
) -> None:
    found = {one.option: (one.value, one.default) for one in differing(json.loads(json.dumps(compose(*overrides))))}
    exact = not {"+callbacks=ema", "experiment=quickstart"} & set(overrides)
    assert expected.items() <= found.items()
    assert not exact or found == expected


def test_choices_of_a_run_from_elsewhere_read_no_file_outside_of_conf(tmp_path: Path) -> None:
    (tmp_path / "evil.yaml").write_text("a: [1\n b: {")
    config = json.loads(json.dumps(compose()))
    above = "../" * len((ROOT / "conf" / "data").parts)
    outside = f"{above}{str(tmp_path)[1:]}/evil"
    assert (ROOT / "conf" / "data" / f"{outside}.yaml").exists()
    config["choices"] |= {"data": outside, "model": outside, "../" + above + str(tmp_path)[1:]: "evil"}
    found = {one.option: one.value for one in differing(config)}
    assert (found["data"], found["model"]) == (outside, outside)
    assert exchanged(config, "model", "cnn") == []


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Adam is better than SGD by 0.1, focal than cross-entropy by 0.05; three seeds each, and a run that failed."""
    root = tmp_path / "sweep"
    number = 0
    for optimizer, gain in (("sgd", 0.0), ("adam", 0.1)):
        for loss, more in (("cross_entropy", 0.0), ("focal", 0.05)):
            for seed, noise in ((1, -0.01), (2, 0.0), (3, 0.01)):
                acc = 0.7 + gain + more + noise
                put(
                    root / f"{number}",
                    f"optimizer={optimizer}",
                    f"loss={loss}",
                    seed=seed,
                    val_acc=acc,
                    curve=[0.5, acc],
                )
                number += 1
    put(root / "90", "optimizer=lion", status="failed", reason=f"{HOSTILE} is no optimizer")
    (root / "sweep.yaml").write_text(yaml.safe_dump(["optimizer=sgd,adam", "loss=cross_entropy,focal", "seed=1,2,3"]))
    for n, folder in enumerate(sorted(root.glob("?"))):
        result = json.loads((folder / "result.json").read_text())
        (folder / "result.json").write_text(json.dumps(result | {"findings": ["plateau"] if n % 3 == 0 else []}))
    return root


def test_the_findings_of_a_sweep_have_an_example(sweep: Path) -> None:
    found = {
        "name": "plateau", "severity": "warning", "since": {"epoch": 2, "step": 20}, "holds": True,
        "text": f"it stays {HOSTILE}", "remedies": [["optimizer.lr=1"]],
    }  # fmt: skip
    (sweep / "3" / "diagnosis.json").write_text(json.dumps({"findings": [found], "history": {}}))
    text = checked(of_sweep(sweep)).text
    assert f"warning plateau in 4 runs, for example in {sweep}/3, since epoch 2: it stays {HOSTILE}" in text
    assert "add to the end of the command: optimizer.lr=1" in text


def test_training_images_are_drawn_if_they_can_be_read(undrawn: Path) -> None:
    first, second = training_pictures(undrawn, [0, 5])
    assert first.startswith("data:image/png;base64,")
    assert first != second
    assert training_pictures(undrawn, [10**9]) == training_pictures(undrawn / "nowhere", [0]) == []


def test_the_report_of_a_sweep(sweep: Path, script: Script) -> None:
    status, said, _ = script("report", sweep)
    assert (status, said.split()[0]) == (0, str(sweep / "report.html"))
    page = checked((sweep / "report.html").read_text())
    assert "0.8500 ± 0.0100 val/acc of the best setting optimizer=adam, loss=focal" in page.text
    board = page.text[page.text.index("All settings") :]
    places = [
        board.index(f"{n} {names} 3 ") for n, names in enumerate(("adam focal", "adam cross_entropy", "sgd focal"), 1)
    ]
    assert places == sorted(places)
    half = scipy.stats.t.ppf(1 - 0.025 / 6, 8) * 0.01 * (2 / 3) ** 0.5
    minus = "\N{MINUS SIGN}"
    assert f"{minus}0.1000 {minus}{0.1 + half:.4f} to {minus}{0.1 - half:.4f}" in board
    assert "plateau 1/3" in board
    assert re.search(r"optimizer \d\d% adam 0\.8250 ± 0\.0354 sgd 0\.7250 ± 0\.0354", page.text)
    assert f"1 failed {sweep}/90 optimizer=lion" in page.text
    assert f"{HOSTILE} is no optimizer" in page.text
    assert "python train.py optimizer=adam loss=focal seed=3" in page.text
    assert "python train.py -m optimizer=sgd,adam loss=cross_entropy,focal seed=1,2,3" in page.text
    assert "one dot per seed" in page.text


def test_the_report_of_a_sweep_imports_no_torch(sweep: Path) -> None:
    code = (
        "import sys, pathlib, lossfit.report\n"
        "lossfit.report.of_sweep(pathlib.Path(sys.argv[1]))\n"
        "assert not {'torch', 'lightning', 'torchmetrics'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code, str(sweep)], check=True, cwd=ROOT, timeout=120)


def test_settings_with_long_names_are_numbered_and_their_columns_narrow(tmp_path: Path) -> None:
    wild = {"label_noise": 0.1, "imbalance": 3, "outliers": 0.25, "val_size": 1234, "batch_size": 12345, "subset": 5432}
    for n in range(2):
        change = (lambda config: config["data"].update(wild)) if n else (lambda config: None)
        put(tmp_path / f"{n}", change=change, val_acc=0.5 + n / 10, curve=[0.5])
    page = checked(of_sweep(tmp_path))
    assert "setting 1 (n=1)" in page.text
    assert "<th>data.<wbr>label_<wbr>noise</th>" in page.html
    assert "imbalance=3" not in page.html[page.html.index("Curves of") :], "the picture has numbers instead"


def test_a_sweep_without_a_completed_run(tmp_path: Path) -> None:
    put(tmp_path / "sweep" / "0", status="failed", reason="no luck")
    page = checked(of_sweep(tmp_path / "sweep"))
    assert "No completed run has val/acc yet." in page.text
    assert "no luck" in page.text


def test_a_sweep_by_another_metric(tmp_path: Path) -> None:
    for n, (acc, nll) in enumerate([(0.9, 2.0), (0.8, 1.0)]):
        put(tmp_path / f"{n}", f"data.batch_size={n + 1}", val_acc=acc, val_nll=nll)
    text = Page(of_sweep(tmp_path, "val/nll")).text
    assert "1.0000 val/nll of the best setting data.batch_size=2 Of one run" in text
    assert "2 runs are too few to say how much each option explains" in text
    assert "How sure the differences are cannot be said" in text
    assert "trained without the callback diagnosis" in text


def dropped_out(dropout: float) -> Callable[[dict[str, Any]], None]:
    return lambda config: config["model"].update(dropout=dropout)


def effects_of(folder: Path, *runs: tuple[float, int, str, float]) -> dict[str, tuple[float | None, str]]:
    """The share of each option, and why it has none, of runs given as accuracy, seed, optimizer and dropout."""
    for n, (acc, seed, optimizer, dropout) in enumerate(runs):
        options = "model=mlp", f"optimizer={optimizer}"
        put(folder / f"{n}", *options, change=dropped_out(dropout), seed=seed, val_acc=acc)
    found = effects(compare.leaderboard([compare.read(run) for run in compare.find([folder])]))
    effects_of.notes = found.notes  # type: ignore[attr-defined]
    effects_of.seeds = found.seeds  # type: ignore[attr-defined]
    return {one.option: (one.share, one.note) for one in found.options}


def test_the_shares_of_options_are_those_of_an_analysis_of_variance(tmp_path: Path) -> None:
    gains = {"sgd": 0.0, "adam": 0.2}
    runs = [
        (0.5 + gain + dropout / 4 + noise, seed, optimizer, dropout)
        for optimizer, gain in gains.items()
        for dropout in (0.0, 0.4)
        for seed, noise in ((1, 0.01), (2, -0.01))
    ]
    found = effects_of(tmp_path, *runs)
    squares = {"optimizer": 8 * 0.1**2, "model.dropout": 8 * 0.05**2}
    rest = 8 * 0.01**2  # of the seeds, with 8 - 3 degrees of freedom
    for option, own in squares.items():
        assert found[option][0] == pytest.approx((own - rest / 5) / (sum(squares.values()) + rest))
    assert effects_of.seeds == pytest.approx(rest / (sum(squares.values()) + rest))  # type: ignore[attr-defined]
    assert effects_of.notes == []  # type: ignore[attr-defined]


def test_options_that_cannot_be_told_apart_have_no_share(tmp_path: Path) -> None:
    together = [(0.5, "sgd", 0.0), (0.7, "adam", 0.4)]
    runs = [(acc + seed / 100, seed, optimizer, dropout) for acc, optimizer, dropout in together for seed in (1, 2, 3)]
    found = effects_of(tmp_path, *runs)
    assert found == dict.fromkeys(("optimizer", "model.dropout"), (None, "always changes together with other options"))


def test_options_that_are_not_balanced_are_said_to_be(tmp_path: Path) -> None:
    runs = [(0.5, "sgd", 0.0), (0.6, "sgd", 0.4), (0.7, "adam", 0.4)]
    effects_of(tmp_path, *((acc + seed / 100, seed, *options) for acc, *options in runs for seed in (1, 2)))
    (note,) = effects_of.notes  # type: ignore[attr-defined]
    assert "did not all occur equally often together" in note


def test_many_numbers_of_a_search_become_four_groups(tmp_path: Path) -> None:
    for n in range(12):
        put(tmp_path / f"{n}", "model=mlp", change=dropped_out(n / 20), val_acc=0.5 + n / 100)
    (effect,) = effects(compare.leaderboard([compare.read(run) for run in compare.find([tmp_path])])).options
    assert [level.value for level in effect.levels] == ["0 to 0.1", "0.15 to 0.25", "0.3 to 0.4", "0.45 to 0.55"]
    assert [level.mean for level in effect.levels] == pytest.approx([0.51, 0.54, 0.57, 0.60])
    assert sorted(effect.numbers) == pytest.approx([n / 20 for n in range(12)])


@pytest.mark.parametrize("freedom", [2, 3.5, 8, 600])
@pytest.mark.parametrize("p", [0.9, 0.975, 0.9999])
def test_the_quantiles_of_student(p: float, freedom: float) -> None:
    assert student_quantile(p, freedom) == pytest.approx(scipy.stats.t.ppf(p, freedom), rel=1e-3)


def test_no_interval_without_repeated_runs(tmp_path: Path) -> None:
    for n, acc in enumerate((0.9, 0.8, 0.7)):
        put(tmp_path / f"{n}", f"data.batch_size={n + 1}", val_acc=acc)
    board = compare.leaderboard([compare.read(run) for run in compare.find([tmp_path])])
    assert differences(board.settings, "val/acc") == [None] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["EMPTY"], "EMPTY holds no run"),
        (["MISSING"], "MISSING is no folder; name a run folder, a sweep, or a folder of runs"),
        (["RUN", "--out", "MISSING/x.html"], "MISSING is no folder"),
        (["RUN", "--out", "EMPTY"], "it is a folder"),
        (["RUN", "--out", "RUN/result.json"], "result.json would replace a file of a run: choose another name"),
        (["RUN", "--out", "RUN/checkpoints/best.ckpt"], "best.ckpt would replace a file of a run"),
        (["RUN", "--out", "/proc/x.html"], "/proc/x.html cannot be written: "),
        (["SWEEP", "--metric", "val/nonsense"], "--metric val/nonsense: no completed run has it"),
    ],
)
def test_mistakes_are_told_in_one_line(
    arguments: list[str], message: str, undrawn: Path, tmp_path: Path, script: Script
) -> None:
    (tmp_path / "EMPTY").mkdir()
    shutil.copytree(undrawn, tmp_path / "SWEEP" / "0")
    places = {"RUN": str(tmp_path / "SWEEP" / "0")} | {
        name: str(tmp_path / name) for name in ("EMPTY", "MISSING", "SWEEP")
    }
    arguments = [re.sub(r"^[A-Z]+", lambda found: places[found[0]], argument) for argument in arguments]
    code, _, said = script("report", *arguments)
    assert code == 2
    assert message in said.replace(f"{tmp_path}/", "")
    assert len(said.splitlines()) == 2, "the message, and how to see the traceback"


def test_a_wheel_has_the_templates() -> None:
    package = ROOT / "src" / "lossfit"
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    packed = {file for pattern in setup["package-data"]["lossfit"] for file in package.glob(pattern)}
    kept = {file for file in package.rglob("*") if file.is_file() and "__pycache__" not in file.parts}
    assert {file for file in kept if file.suffix != ".py"} <= packed
