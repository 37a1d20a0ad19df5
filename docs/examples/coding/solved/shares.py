"""Costs shared by several branches."""

from shelf.money import parse, shown


def shares(cents, weights):
    """Return `cents` divided by weights, in whole cents that add up to `cents` exactly.

    What rounding leaves over goes to the largest remainders, the earlier of equal ones first. Works for refunds
    (negative amounts) alike: the shares of -x are the negated shares of x.
    """
    total = sum(weights)
    if total <= 0 or min(weights) < 0:
        raise ValueError("weights must not be negative, and not all zero")
    if cents < 0:
        return [-share for share in shares(-cents, weights)]
    result = [cents * weight // total for weight in weights]
    rest = cents - sum(result)
    by_remainder = sorted(range(len(weights)), key=lambda i: -(cents * weights[i] % total))
    for i in by_remainder[:rest]:
        result[i] += 1
    return result


def bill(text, weights):
    """Return the shares of an amount written as text, as text."""
    return [shown(share) for share in shares(parse(text), weights)]
