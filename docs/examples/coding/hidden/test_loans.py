import unittest

from shelf.loans import merged


class Loans(unittest.TestCase):
    def test_one_within_another(self):
        self.assertEqual(merged([(1, 9), (2, 3)]), [(1, 9)])

    def test_adjoining_days(self):
        self.assertEqual(merged([(4, 6), (1, 3), (8, 8)]), [(1, 6), (8, 8)])
