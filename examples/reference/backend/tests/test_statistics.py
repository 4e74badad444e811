import unittest

from reports.statistics import summarise


class SummariseTest(unittest.TestCase):
    def test_describes_the_values(self):
        self.assertEqual(
            summarise([4, 1, 3, 2]),
            {
                "count": 4,
                "min": 1,
                "max": 4,
                "sum": 10.0,
                "mean": 2.5,
                "median": 2.5,
                "stdev": 1.25**0.5,
            },
        )

    def test_takes_a_single_value(self):
        self.assertEqual(summarise([7.0])["stdev"], 0.0)
