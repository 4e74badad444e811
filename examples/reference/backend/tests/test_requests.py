import unittest

from reports.requests import Invalid, parse


class ParseTest(unittest.TestCase):
    def test_accepts_numbers_and_an_address(self):
        document = {"title": "Sales", "values": [1, 2.5], "mail": "a@example.com"}
        self.assertEqual(parse(document), ("Sales", [1.0, 2.5], "a@example.com"))

    def test_refuses_what_is_not_a_report(self):
        good = {"title": "Sales", "values": [1]}
        for bad in (
            None,
            [],
            {},
            {**good, "title": ""},
            {**good, "title": "two\nlines"},
            {**good, "title": "x" * 201},
            {**good, "values": []},
            {**good, "values": "1"},
            {**good, "values": [True]},
            {**good, "values": [float("nan")]},
            {**good, "values": [10**400]},
            {**good, "mail": "nobody"},
            {**good, "mail": "a@b\r\nBcc: c@d"},
            {**good, "colour": "red"},
        ):
            with self.subTest(bad=bad), self.assertRaises(Invalid):
                parse(bad)
