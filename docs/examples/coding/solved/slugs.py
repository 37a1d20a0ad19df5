"""Names for URLs."""

import re
import unicodedata


def slug(title, limit=40):
    """Return a title in lower case, words joined by single dashes, accents dropped, at most `limit` long.

    A slug never begins or ends with a dash.
    """
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")[:limit].strip("-")
