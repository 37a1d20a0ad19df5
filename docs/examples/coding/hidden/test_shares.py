import unittest

from shelf.money import parse
from shelf.shares import bill, shares


class Shares(unittest.TestCase):
    def test_add_up(self):
        for cents in (*range(-60, 60), 99_999, -100_001):
            for weights in ([1, 1, 1], [3, 5, 0, 7], [1], [2, 2, 3]):
                self.assertEqual(sum(shares(cents, weights)), cents)

    def test_the_rest_goes_to_the_largest_remainders(self):
        self.assertEqual(shares(100, [1, 1, 1]), [34, 33, 33])
        self.assertEqual(shares(10, [1, 2, 4]), [1, 3, 6])

    def test_refunds_mirror_charges(self):
        self.assertEqual(shares(-100, [1, 1, 1]), [-34, -33, -33])

    def test_bills_with_a_refund(self):
        self.assertEqual(parse("-0.05"), -5)
        self.assertEqual(parse("-12.5"), -1250)
        self.assertEqual(bill("-1.00", [1, 1, 1]), ["-0.34", "-0.33", "-0.33"])
