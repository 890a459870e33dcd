"""One run, from config.yaml to result.json."""
