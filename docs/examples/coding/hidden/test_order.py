import unittest

from shelf.order import CircularError, reading_order


class Order(unittest.TestCase):
    def test_the_alphabetically_first_of_several(self):
        self.assertEqual(reading_order({"a": ["z"], "b": [], "c": ["b"]}), ["b", "c", "z", "a"])

    def test_volumes_that_only_others_name(self):
        self.assertEqual(reading_order({"b": ["a"]}), ["a", "b"])

    def test_a_circle_is_named(self):
        for requires in (
            {"a": ["b"], "b": ["c"], "c": ["a"]},
            {"a": ["a"]},
            {"x": ["a"], "a": ["b"], "b": ["a"]},
        ):
            with self.assertRaises(CircularError) as caught:
                reading_order(requires)
            circle = caught.exception.volumes
            self.assertEqual(circle[0], circle[-1])
            for volume, before in zip(circle, circle[1:]):
                self.assertIn(before, requires[volume])

    def test_a_long_series(self):
        names = [f"{n:05}" for n in range(5000)]
        series = {later: [earlier] for earlier, later in zip(names, names[1:])}
        self.assertEqual(reading_order(series), names)
