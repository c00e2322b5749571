"""What `/metrics` told, read by Prometheus' own parser."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

TOKEN = "a-token-of-the-tests-that-is-long-enough"


@dataclass
class Scrape:
    """One answer."""

    families: dict[str, Metric]

    @classmethod
    def of(cls, text: str) -> Scrape:
        """Read it; no family comes twice."""
        found = list(text_string_to_metric_families(text))
        assert len({family.name for family in found}) == len(found)
        return cls({family.name: family for family in found})

    def value(self, name: str, **labels: str) -> float:
        """Give the one sample of a name that has these labels, among others."""
        found = [
            sample.value
            for family in self.families.values()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        assert len(found) == 1, f"{name}{labels} is there {len(found)} times"
        return found[0]

    def total(self, name: str, **labels: str) -> float:
        """Add up all samples of a name that have these labels."""
        return sum(
            sample.value
            for family in self.families.values()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )
