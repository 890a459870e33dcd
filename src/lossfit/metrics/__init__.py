"""The user's own metrics, which are measured beside the task's: the option `custom` of conf/metrics."""
