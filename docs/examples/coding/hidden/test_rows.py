import unittest

from shelf.rows import fields


class Rows(unittest.TestCase):
    def test_quotes_written_twice(self):
        self.assertEqual(fields('"say ""hi"", twice",x'), ['say "hi", twice', "x"])
        self.assertEqual(fields('"",""""'), ["", '"'])

    def test_a_quote_that_is_not_closed(self):
        with self.assertRaises(ValueError):
            fields('a,"b')
        with self.assertRaises(ValueError):
            fields('a,"b""')
