"""Regenerate the figures and images of the documents: ``python docs/figures.py NAME``.

Most start a temporary lab: ``orders`` takes 20 seconds, ``example`` 30, ``console`` 20 and a Chromium, ``curves`` 17
minutes. ``performance`` formats the output of ``lab bench --json`` as a table.
"""

import itertools
import json
import re
import shutil
import time
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, TextIO

import click
import numpy as np
from rich.console import Console
from rich.progress import track

from lab.cli import LabGroup
from lab.cli.bench import spread
from lab.cli.experiment import complete, finish, submit
from lab.client import get, post
from lab.local.supervisor import Lab
from nodes.worker.run import moments

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HERE = Path(__file__).parent
ORDERS = ("arrival", "log")
REPLICA = "lab14-replica1"
ENTRIES, RATE, MEAN_MS, SEED = 60, 12, 400, 3
READS_PER_SECOND = 500
READS_OF_FIXED = 20_000  # a model without randomness
# In log order one late entry holds back all later ones: the same number of reads carries less information.
READS = {"arrival": 50_000, "log": 90_000}
WRITES_PER_SECOND = {"arrival": 100, "log": 20}


def mixture(scale_ms: float) -> dict[str, Any]:
    pareto = {"kind": "pareto", "scale_ms": scale_ms, "alpha": 3}
    parts = [{"weight": 9, "model": pareto}, {"weight": 1, "model": {"kind": "exponential", "mean_ms": 4 * scale_ms}}]
    return {"kind": "mixture", "parts": parts}


MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "fixed": ({"kind": "fixed", "ms": 500}, {"kind": "fixed", "ms": 1500}),
    "uniform": ({"kind": "uniform", "low_ms": 10, "high_ms": 90}, {"kind": "uniform", "low_ms": 20, "high_ms": 160}),
    "exponential": ({"kind": "exponential", "mean_ms": 40}, {"kind": "exponential", "mean_ms": 60}),
    "mixture": (mixture(20), mixture(30)),
}


@click.group(cls=LabGroup, context_settings={"show_default": True})
def main() -> None:
    """Regenerate the figures and images of the documents."""


@main.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=HERE)
def orders(out: Path) -> None:
    """The same delays in both orders: drawn and effective."""
    from lab.report.page import svg

    with Lab.temporary() as lab:
        drawn, effective = (delays(lab, order) for order in ORDERS)
    # The effective delays in log order: no entry is due before those ahead of it.
    at_ms = np.array([at_ms for at_ms, _ in effective])
    expected = np.maximum.accumulate(at_ms + [delay_ms for _, delay_ms in drawn]) - at_ms
    difference_ms = np.abs(np.array([delay_ms for _, delay_ms in effective]) - expected)

    def draw(axes: "Axes") -> None:
        seconds = at_ms / 1000
        axes.plot(seconds, expected, color="#9ca3af", linewidth=5, alpha=0.6, label="running maximum of drawn delays")
        axes.plot(seconds, [delay for _, delay in effective], "s-", color="#c2410c", markersize=4, label="order log")
        axes.plot(seconds, [delay for _, delay in drawn], "o", color="#0b6e99", markersize=5, label="order arrival")
        axes.set(xlabel="committed, in seconds", ylabel="applied after, in ms", ylim=(0, None))
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncol=3)

    save(out / "orders.svg", svg(draw))
    click.echo(json.dumps({"entries": len(drawn), "largest_difference_ms": round(float(difference_ms.max()), 3)}))


@main.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=HERE)
@click.option(
    "--reads", type=click.IntRange(100, 200_000), help="Reads for each curve; by default those of the documents."
)
@click.option("--seed", type=int, default=1)
def curves(out: Path, reads: int | None, seed: int) -> None:
    """P(a read is stale), predicted and measured, for four models in both orders."""
    from lab.report.page import svg

    found: dict[tuple[str, str], dict[str, Any]] = {}
    with Lab.temporary() as lab:
        for order, name in track(list(itertools.product(ORDERS, MODELS)), console=Console(stderr=True)):
            count = reads or (READS_OF_FIXED if name == "fixed" else READS[order])
            found[order, name] = staleness(lab, order, name, count, seed)["result"]
    click.echo("| model | order | reads | RMSE |\n| --- | --- | --- | --- |")
    for (order, name), result in found.items():
        click.echo(f"| {name} | {order} | {result['reads']:,} | {result['stale']['rmse']:.2%} |")
    for order in ORDERS:

        def draw(axes: "Axes", order: str = order) -> None:
            for number, name in enumerate(MODELS):
                curve, color = found[order, name]["stale"], f"C{number}"
                t = np.array(curve["t_ms"]) / curve["t_ms"][-1]  # each to its own horizon
                axes.plot(t, curve["predicted"], color=color)
                axes.plot(t, curve["measured"], "o", color=color, markersize=4, label=name)
            axes.set(xlabel="time since the write, by three times the longest mean", ylabel="P(a read is stale)")
            axes.legend(title=f"order {order}; lines: predicted")

        save(out / f"staleness-{order}.svg", svg(draw))


@main.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=HERE)
@click.option("--reads", type=click.IntRange(100, 200_000), default=8000)
def example(out: Path, reads: int) -> None:
    """The report of one experiment."""
    from lab.report import page

    with Lab.temporary() as lab:
        save(out / "example-report.html", page.page(staleness(lab, "arrival", "exponential", reads, 1)))


@main.command()
@click.option("--out", type=click.Path(path_type=Path), default=HERE / "console.png")
@click.option(
    "--chromium",
    type=click.Path(exists=True, dir_okay=False, executable=True),
    default=lambda: shutil.which("chromium") or shutil.which("google-chrome"),
    help="The browser; by default the one on the PATH.",
)
def console(out: Path, chromium: str | None) -> None:
    """A screenshot of the console under a light load, with some reads."""
    if chromium is None:
        advice = "install it so that it is on the PATH, or pass --chromium PATH"
        raise click.ClickException(f"The picture needs Chromium: {advice}.")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        raise click.ClickException("The picture needs playwright: run `make check`, which installs it.") from None

    with Lab.temporary() as lab, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1920, "height": 1080})
        page.goto(f"{lab.client_url}/")
        page.wait_for_selector("#connection[data-state=open]")
        post(f"{lab.client_url}/write-and-wait", {"key": "greeting", "value": "hello"})
        for number in range(20):
            post(f"{lab.client_url}/write", {"key": "greeting", "value": f"hello {number}"})
            get(f"{lab.client_url}/read/greeting?level={'session' if number % 4 == 3 else 'eventual'}")
            page.wait_for_timeout(300)
        page.screenshot(path=out)
        browser.close()
    click.echo(f"wrote {out}", err=True)


@main.command()
@click.argument("found", type=click.File())
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=HERE / "performance.md")
def performance(found: TextIO, out: Path) -> None:
    """The performance table, from the output of lab bench --json in the file FOUND."""
    parts = re.split(r"(?m)^(?=\| figure)(?:\|.*\n)+", out.read_text(encoding="utf-8"), maxsplit=1)
    if len(parts) != 2:
        raise click.ClickException(f"{out} has no table whose first column is 'figure'")
    save(out, parts[0] + bench_table(json.load(found)["figures"]) + parts[1].rstrip("\n"))


def bench_table(figures: list[dict[str, Any]]) -> str:
    lines = ["| figure | unit | lab | baseline | ratio | target |", "| --- | --- | --- | --- | --- | --- |"]
    for group, members in itertools.groupby(figures, key=lambda figure: figure["group"]):
        lines.append(f"| **{group}** | | | | | |")
        for figure in members:
            cells = [figure["name"], figure["unit"], *(spread(figure[name]) for name in ("lab", "baseline", "ratio"))]
            cells[3] = f"{cells[3]} {figure['baseline_name']}".strip()
            wanted = ""
            if target := figure["target"]:
                sign = "≥" if target["bound"] == "at least" else "≤"
                wanted = f"{sign} {target['value']:g}{'' if figure['reached'] else ', not reached'}"
            lines.append(f"| {' | '.join([*cells, wanted])} |")
    return "\n".join(lines) + "\n"


def delays(lab: Lab, order: str) -> list[tuple[float, float]]:
    """The time of each commit after the first, and the delay until it was due: both in milliseconds."""
    settings = {"model": {"kind": "exponential", "mean_ms": MEAN_MS}, "order": order, "seed": SEED}
    post(f"{lab.primary_url}/admin/replication-delay", {"replica": REPLICA, **settings})
    epoch = post(f"{lab.primary_url}/admin/reset", {})["epoch"]
    began, written = time.monotonic(), []
    for number, moment in enumerate(moments(Random(SEED), ENTRIES, RATE)):  # noqa: S311
        time.sleep(max(0.0, began + moment - time.monotonic()))
        answer = post(f"{lab.primary_url}/data", {"key": f"k{number}", "value": number})
        written.append(datetime.fromisoformat(answer["write_timestamp"]))
    last = f"{lab.replica_urls[REPLICA]}/version?min_position={epoch}-{ENTRIES}&timeout_ms=60000"
    if not get(last, timeout_seconds=70)["reached"]:
        raise click.ClickException("the replica did not apply everything within a minute")
    applied = get(f"{lab.replica_urls[REPLICA]}/applied?limit=10000")["applied"]
    due_ms = {entry["position"]: entry["applied_after_ms"] - entry["lateness_ms"] for entry in applied}
    ages = [(at - written[0]) / timedelta(milliseconds=1) for at in written]
    return [(at_ms, due_ms[f"{epoch}-{version}"]) for version, at_ms in enumerate(ages, 1)]


def staleness(lab: Lab, order: str, name: str, reads: int, seed: int) -> dict[str, Any]:
    chosen = zip(lab.replica_urls, MODELS[name], strict=True)
    settings = {replica: {"model": model, "order": order, "seed": seed} for replica, model in chosen}
    spec = {"kind": "staleness", "reads": reads, "reads_per_second": READS_PER_SECOND, "seed": seed}
    submitted = submit(lab.client_url, {**spec, "rate": WRITES_PER_SECOND[order], "settings": settings})
    finish(lab.client_url, submitted, Console(quiet=True))
    found = complete(lab.client_url, submitted)
    if found["state"] != "finished":
        raise click.ClickException(f"{order}, {name}: {found['reason']}")
    return found


def save(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
    click.echo(f"wrote {path}", err=True)


if __name__ == "__main__":
    main()
