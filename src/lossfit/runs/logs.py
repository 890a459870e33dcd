"""Where log messages go while a run is trained: to the console and to train.log."""

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich import get_console

from lossfit.runs import names

NOT_APPLICABLE = (  # Lightning's warnings that do not apply here
    r".*does not have many workers.*",  # the batches come from memory
    r".*smaller than the logging interval.*",
    r".*recommended to use `self.log\(.*sync_dist=True.*",  # values are reduced before they are logged
    r".*exists and is not empty.*",  # the run folder was made for this run
    r".*could not find the monitored key.*",  # before the first validation; the name of the metric has been checked
    r".*is in `eval\(\)` mode.*",
    r".*in eval mode at the start of training.*",
    r".*isinstance\(treespec, LeafSpec\).*",
)


@contextmanager
def logging_into(
    folder: Path | None, main: bool, before: Iterable[logging.LogRecord] = ()
) -> Iterator[list[logging.LogRecord]]:
    """Send log messages to the console and, with tracebacks, to the folder's train.log.

    folder: None for the console alone. main: false for other ranks than 0, of which only warnings are shown. before:
    messages for train.log from the time when there was no folder. The handlers that Hydra and Lightning have set up are
    replaced while the block runs. Yields the list of the messages on the console.
    """
    console = _Console(logging.INFO if main else logging.WARNING)
    handlers: list[logging.Handler] = [console]
    if main and folder is not None:
        file = logging.FileHandler(folder / names.LOG, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        for record in before:
            file.handle(record)
        handlers.append(file)
    root = logging.getLogger()
    saved = root.level, root.handlers
    root.setLevel(logging.INFO)
    root.handlers = handlers
    ours, fonts = logging.getLogger("lossfit"), logging.getLogger("matplotlib.font_manager")
    levels = [(logger, logger.level) for logger in (ours, fonts)]
    ours.setLevel(logging.DEBUG)
    fonts.setLevel(logging.WARNING)  # at the first use it says that it has listed the fonts
    logging.captureWarnings(True)
    try:
        with quiet():
            yield console.records
    finally:
        logging.captureWarnings(False)
        for logger, level in levels:
            logger.setLevel(level)
        root.setLevel(saved[0])
        root.handlers = saved[1]
        for handler in handlers:
            handler.close()


@contextmanager
def quiet() -> Iterator[None]:
    """Hide Lightning's INFO lines and its warnings that do not apply here."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    before = [(logger, logger.level, logger.handlers) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
        logger.handlers = []
    try:
        with warnings.catch_warnings():
            for message in NOT_APPLICABLE:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, level, old in before:
            logger.setLevel(level)
            logger.handlers = old


class _Console(logging.Handler):
    """Prints above a progress bar that is being drawn on the same console, and keeps the messages."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        text = record.getMessage()
        if record.levelno >= logging.WARNING:
            text = f"{record.levelname.capitalize()}: {text}"
        get_console().print(text, soft_wrap=True, markup=False, highlight=False)
