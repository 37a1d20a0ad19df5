import unittest

from shelf.slugs import slug


class Slugs(unittest.TestCase):
    def test_a_cut_slug_does_not_end_with_a_dash(self):
        self.assertEqual(slug("one two three", limit=8), "one-two")
        self.assertEqual(slug("one two three", limit=7), "one-two")
        self.assertEqual(slug("  -- "), "")
