"""The rules: pure functions History -> Finding or None, whose keyword arguments are their thresholds."""
