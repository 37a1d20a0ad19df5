"""Amounts in cents."""


def parse(text):
    """Return the cents of an amount such as "12", "12.5", "-0.05" or "1,204.50"."""
    sign = -1 if text.startswith("-") else 1
    whole, _, part = text.strip().lstrip("-").replace(",", "").partition(".")
    if len(part) > 2 or not (whole + part).isdigit():
        raise ValueError(f"{text!r} is no amount")
    return sign * (int(whole or 0) * 100 + int(part.ljust(2, "0")))


def shown(cents):
    """Return cents as text with two digits behind the point."""
    sign = "-" if cents < 0 else ""
    return f"{sign}{abs(cents) // 100}.{abs(cents) % 100:02}"
