import unittest

from shelf.recent import Recent


class RecentlyUsed(unittest.TestCase):
    def test_reading_is_using(self):
        recent = Recent(2)
        recent.put("a", 1)
        recent.put("b", 2)
        recent.get("a")
        recent.put("c", 3)
        self.assertEqual((recent.get("a"), recent.get("b"), recent.get("c")), (1, None, 3))

    def test_replacing_makes_no_room(self):
        recent = Recent(2)
        recent.put("a", 1)
        recent.put("b", 2)
        recent.put("b", 3)
        self.assertEqual((recent.get("a"), recent.get("b")), (1, 3))

    def test_a_miss_is_no_use(self):
        recent = Recent(1)
        self.assertEqual(recent.get("x", 7), 7)
        self.assertEqual(len(recent), 0)
