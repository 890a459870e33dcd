"""The names of the files of a run folder. Code elsewhere uses these names; messages may spell them."""

CONFIG = "config.yaml"  # the resolved config, as run; written last, so a folder without it holds no run yet
OVERRIDES = "overrides.yaml"  # the overrides that were typed
RESULT = "result.json"  # how the run ended, its metrics, timings and versions
METRICS = "metrics.csv"  # the curves, a row an epoch
DIAGNOSIS = "diagnosis.json"  # what the run suffers from, and the series that show it
DIAGNOSIS_PICTURE = "diagnosis.png"  # the series behind the findings
LOG = "train.log"  # the console's lines with times, and tracebacks
CONSOLE = "console.log"  # stdout and stderr of a sweep's job
CORRUPTIONS = "data_changes.json"  # what was done to the training data on purpose
SPLITS = "splits.csv"  # which image of the user's own was in which split
SKIPPED = "skipped_images.csv"  # which of them could not be read
CALIBRATION = "calibration.json"  # the temperature that was fitted on the validation split
NOISE = "noise.json"  # the shares of wrong labels that scripts/noise_matrix.py estimated
EVALUATION = "evaluation_{split}.json"  # what scripts/evaluate.py measured on a split
REPORT = "report.html"  # of a run, or of a sweep
STREAM = "stream.sha256"  # the digest of the stream.json that it was trained on
SIGNATURE = ".signature"  # which account composed the config

CHECKPOINTS = "checkpoints"
BEST = f"{CHECKPOINTS}/best.ckpt"  # of the best epoch, for use
LAST = f"{CHECKPOINTS}/last.ckpt"  # of the last save, to go on from

# what a run writes, but for its config and logs of its loggers
WRITTEN = (OVERRIDES, RESULT, METRICS, DIAGNOSIS, LOG, CONSOLE, CORRUPTIONS, SPLITS, SKIPPED, STREAM, BEST, LAST)

MEASURED = "measured.json"  # what a study measured of the run

STUDY_RESULT = "study.json"  # of the folder of a study: all of its numbers
STUDY_PICTURE = "study.png"
STUDY = "study.db"  # of the folder of a search: Optuna's study
COMMAND = "sweep.yaml"  # of a sweep folder: the overrides of its command
