"""What the console says of a sweep while it runs: each job that ends, and those that run with epoch and metric."""

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from lossfit import runs
from lossfit.sweeps.pool import Job


class Progress:
    """A line for each job that ends, and in a terminal a picture of those that run.

    total: how many jobs there are. metric: the one shown, by its name in metrics.csv and result.json.
    """

    def __init__(self, total: int, metric: str) -> None:
        self.total, self.metric = total, metric
        self.console = Console()  # of its own: the processes of jobs inherit what is drawn on the shared one
        self.live = Live(
            console=self.console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,  # jobs would inherit that
            redirect_stderr=False,
        )
        self.begun = 0.0
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.live.stop()

    def started(self, job: Job) -> None:
        """Start the clock with the first."""
        self.begun = self.begun or time.monotonic()

    def ended(self, job: Job, result: Mapping[str, Any]) -> None:
        """Say how, and how much is left."""
        self.counts[result["status"]] += 1
        value = result.get("metrics", {}).get(self.metric)
        said = f"#{job.folder.name} {job.text}: {result['status']}"
        if result["status"] == "failed":
            said += f" after {_time(job.seconds)}: {result['reason']} ({job.folder}/console.log)"
        else:
            said += f" in {_time(job.seconds)}" + (f", {self.metric} {value:.4f}" if value is not None else "")
        standing = self._standing(sum(self.counts.values()))
        self.console.print(f"{said} | {standing}", soft_wrap=True, markup=False, highlight=False)

    def tick(self, running: list[Job]) -> None:
        """Draw the jobs that run."""
        if not self.console.is_terminal:
            return
        lines, done = [], float(sum(self.counts.values()))
        for job in running:
            line = f"#{job.folder.name} {job.text}: {_time(job.seconds)}"
            epochs = runs.read_config(job.folder)["trainer"].get("max_epochs") or -1
            if values := runs.curve(job.folder, self.metric):
                line += f", epoch {max(values)}/{epochs}, {self.metric} {values[max(values)]:.4f}"
                done += max(0, max(values) / epochs)
            lines.append(Text(line, no_wrap=True, overflow="ellipsis"))
        self.live.update(Group(*lines, Text(self._standing(done), style="bold")), refresh=True)

    def _standing(self, done: float) -> str:
        """Say how many jobs have ended, and how long the rest takes if `done` jobs took as long as it is now."""
        counts = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        left = ""
        if 0 < done < self.total:
            left = f", about {_time((time.monotonic() - self.begun) / done * (self.total - done))} left"
        return f"{sum(self.counts.values())} of {self.total}" + (f" ({counts})" if counts else "") + left


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
