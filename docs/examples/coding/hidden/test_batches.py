import unittest

from shelf.batches import batches


class Batches(unittest.TestCase):
    def test_the_last_may_be_shorter(self):
        self.assertEqual(batches([1, 2, 3, 4, 5], 2), [[1, 2], [3, 4], [5]])
        self.assertEqual(batches([1], 3), [[1]])
        self.assertEqual(batches([], 3), [])
