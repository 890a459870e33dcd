"""The console of a running sweep: a line for each job that has ended, and the running jobs with epoch and metric."""

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from lossfit import runs
from lossfit.runs import names
from lossfit.sweeps.pool import Job


class Progress:
    """Prints a line for each job that ends and, in a terminal, redraws a line for each running job.

    total: the number of jobs. metric: the metric to show, by its name in metrics.csv and result.json.
    """

    def __init__(self, total: int, metric: str) -> None:
        self.total, self.metric = total, metric
        self.console = Console()  # not rich's shared one, whose drawing the jobs' processes would inherit
        self.live = Live(
            console=self.console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,  # jobs would inherit the redirection
            redirect_stderr=False,
        )
        self.start_time = 0.0
        self.counts: Counter[str] = Counter()

    def __enter__(self) -> "Progress":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.live.stop()

    def started(self, job: Job) -> None:
        """Start the clock at the first job."""
        self.start_time = self.start_time or time.monotonic()

    def ended(self, job: Job, result: Mapping[str, Any]) -> None:
        """Print how a job ended, and how much is left."""
        self.counts[result["status"]] += 1
        value = result.get("metrics", {}).get(self.metric)
        line = f"#{job.folder.name} {job.text}: {result['status']}"
        if result["status"] == "failed":
            line += f" after {_time(job.seconds)}: {result['reason']} ({job.folder / names.CONSOLE})"
        else:
            line += f" in {_time(job.seconds)}" + (f", {self.metric} {value:.4f}" if value is not None else "")
        line += f" | {self._summary(sum(self.counts.values()))}"
        self.console.print(line, soft_wrap=True, markup=False, highlight=False)

    def tick(self, running: list[Job]) -> None:
        """Redraw the running jobs."""
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
        self.live.update(Group(*lines, Text(self._summary(done), style="bold")), refresh=True)

    def _summary(self, done: float) -> str:
        """Say how many jobs have ended, and how long the rest takes if all go as fast as the `done` jobs did."""
        counts = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        left = ""
        if 0 < done < self.total:
            left = f", about {_time((time.monotonic() - self.start_time) / done * (self.total - done))} left"
        return f"{sum(self.counts.values())} of {self.total}" + (f" ({counts})" if counts else "") + left


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
