"""The measurements of a benchmark: lines of round, system, operation and value, separated by tabs."""

import collections
import statistics


class Measured:
    def __init__(self, path):
        self.values = collections.defaultdict(dict)
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                number, system, operation, value = line.rstrip("\n").split("\t")
                self.values[system, operation][number] = float(value)

    def median(self, system, operation):
        """The median of all rounds, in the unit of the measurement; None where nothing was measured."""
        found = self.values.get((system, operation))
        return statistics.median(found.values()) if found else None

    def ratio(self, above, below):
        """The median of the ratios within the rounds, of two pairs of system and operation."""
        first, second = self.values.get(above, {}), self.values.get(below, {})
        both = [first[number] / second[number] for number in first if number in second]
        return statistics.median(both) if both else None
