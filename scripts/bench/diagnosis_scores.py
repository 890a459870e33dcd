"""How right the findings of the benchmark's runs are, and the tables that say it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from diagnosis_table import Planted


@dataclass(frozen=True)
class Outcome:
    """What was found in a run: severities by the names of the findings."""

    run: Planted
    found: Mapping[str, str]

    @property
    def right(self) -> list[str]:
        """For each set of expected findings of which one was found, the first of them."""
        hits = [[name for name in alternatives if name in self.found] for alternatives in self.run.expected]
        return [hit[0] for hit in hits if hit]

    @property
    def missed(self) -> list[tuple[str, ...]]:
        """The sets of expected findings of which none was found."""
        return [alternatives for alternatives in self.run.expected if not self.found.keys() & set(alternatives)]

    @property
    def false(self) -> list[str]:
        """The findings that are not true of the run."""
        return [name for name in self.found if name not in self.run.allowed]


@dataclass
class Score:
    """Counts of a finding, or of all of them.

    right: how often it was expected and found. missed: expected and not found. false: found and not true.
    """

    right: int = 0
    missed: int = 0
    false: int = 0

    @property
    def precision(self) -> float | None:
        """The share of findings that are right; None if nothing was found."""
        return self.right / (self.right + self.false) if self.right + self.false else None

    @property
    def recall(self) -> float | None:
        """The share of faults that are found; None if none is planted."""
        return self.right / (self.right + self.missed) if self.right + self.missed else None


@dataclass
class Scores:
    """The scores of a half. findings: by name. healthy: how many runs are; critical, any: those with such a finding."""

    findings: dict[str, Score]
    total: Score
    faulty: int
    healthy: int
    critical: list[str] = field(default_factory=list)
    any: list[str] = field(default_factory=list)


def score(outcomes: Sequence[Outcome], names: Sequence[str]) -> Scores:
    """Count. names: of all findings, in the order of the table. A miss counts for the first of its alternatives."""
    findings = {name: Score() for name in names}
    healthy = [outcome for outcome in outcomes if outcome.run.healthy]
    for outcome in outcomes:
        for name in outcome.right:
            findings[name].right += 1
        for alternatives in outcome.missed:
            findings[alternatives[0]].missed += 1
        for name in outcome.false:
            findings[name].false += 1
    total = Score(*(sum(getattr(one, key) for one in findings.values()) for key in ("right", "missed", "false")))
    found = Scores(findings, total, len(outcomes) - len(healthy), len(healthy))
    found.critical = [outcome.run.name for outcome in healthy if "critical" in outcome.found.values()]
    found.any = [outcome.run.name for outcome in healthy if outcome.false]
    return found


def confusion(outcomes: Sequence[Outcome], names: Sequence[str]) -> dict[str, tuple[int, dict[str, int]]]:
    """Return by planted fault (of alternatives the first) how many runs have it, and in how many each finding is."""
    rows: dict[str, tuple[int, dict[str, int]]] = {}
    for name in (*names, "none"):
        having = [one for one in outcomes if name in ([group[0] for group in one.run.expected] or ["none"])]
        if having:
            rows[name] = len(having), {column: sum(column in one.found for one in having) for column in names}
    return rows


def score_table(scores: Scores) -> str:
    """Return the scores as a table in Markdown, and a line about the healthy runs."""
    lines = ["| finding | right | missed | false alarms | precision | recall |", "|---|---|---|---|---|---|"]
    for name, one in [*scores.findings.items(), ("**all**", scores.total)]:
        shares = [f"{share:.2f}" if share is not None else "" for share in (one.precision, one.recall)]
        lines.append(f"| {name} | {one.right} | {one.missed} | {one.false} | {' | '.join(shares)} |")
    critical, any_false = len(scores.critical), len(scores.any)
    have = "has" if critical == 1 else "have"
    lines += [
        "",
        f"Of {scores.healthy} healthy runs, {critical} {have} a critical finding and {any_false} a false alarm.",
    ]
    return "\n".join(lines)


def confusion_table(rows: Mapping[str, tuple[int, Mapping[str, int]]], names: Sequence[str]) -> str:
    """Return the confusion of faults as a table in Markdown."""
    lines = [f"| planted | runs | {' | '.join(names)} |", f"|---|---|{'---|' * len(names)}"]
    for name, (count, found) in rows.items():
        lines.append(f"| {name} | {count} | {' | '.join(str(found[column] or '') for column in names)} |")
    return "\n".join(lines)


def mistakes(outcomes: Sequence[Outcome]) -> str:
    """Return a line for each run with a miss or a false alarm."""
    lines = []
    for one in outcomes:
        said = [f"missed {'|'.join(alternatives)}" for alternatives in one.missed]
        said += [f"false {name} ({one.found[name]})" for name in one.false]
        if said:
            lines.append(f"- `{one.run.name}`: {', '.join(said)}; found {' '.join(one.found) or 'nothing'}")
    return "\n".join(lines)
