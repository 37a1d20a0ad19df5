import unittest

from shelf.batches import batches
from shelf.loans import merged
from shelf.money import parse, shown
from shelf.order import reading_order
from shelf.recent import Recent
from shelf.rows import fields
from shelf.shares import shares
from shelf.slugs import slug


class Shelf(unittest.TestCase):
    def test_batches(self):
        self.assertEqual(batches([1, 2, 3, 4], 2), [[1, 2], [3, 4]])
        with self.assertRaises(ValueError):
            batches([1], 0)

    def test_slugs(self):
        self.assertEqual(slug("Crème brûlée, by hand!"), "creme-brulee-by-hand")

    def test_loans(self):
        self.assertEqual(merged([(8, 9), (1, 3), (2, 4)]), [(1, 4), (8, 9)])

    def test_recent(self):
        recent = Recent(2)
        recent.put("a", 1)
        self.assertEqual((recent.get("a"), recent.get("b", 0), len(recent)), (1, 0, 1))

    def test_rows(self):
        self.assertEqual(fields('a,"b, c",'), ["a", "b, c", ""])

    def test_money(self):
        self.assertEqual((parse("1,204.50"), shown(-5)), (120450, "-0.05"))

    def test_shares(self):
        self.assertEqual(shares(100, [1, 1]), [50, 50])

    def test_order(self):
        self.assertEqual(reading_order({"b": ["a"], "a": []}), ["a", "b"])


if __name__ == "__main__":
    unittest.main()
