import unittest

from stats import mean


class Mean(unittest.TestCase):
    def test_of_three(self):
        self.assertEqual(mean([1, 2, 3]), 2)

    def test_of_one(self):
        self.assertEqual(mean([5]), 5)


if __name__ == "__main__":
    unittest.main()
