"""The mean and standard deviation of the pixels that pretrained weights were trained with.

A model with pretrained weights has them as its attribute `pixel_statistics`; a run then normalises its images so, in
place of the statistics of its own data, and saves them in its checkpoints.
"""

Statistics = tuple[tuple[float, ...], tuple[float, ...]]  # mean and standard deviation of each channel, pixels 0 to 1


def for_channels(statistics: Statistics, channels: int) -> Statistics:
    """Return the statistics for another number of channels: their average for each."""
    if len(statistics[0]) == channels:
        return statistics
    mean, std = (sum(values) / len(values) for values in statistics)
    return (mean,) * channels, (std,) * channels
