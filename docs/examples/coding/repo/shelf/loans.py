"""Periods during which a book is out."""


def merged(periods):
    """Return periods, given as (first day, last day), with those that overlap or adjoin merged, in order.

    Days are whole numbers: (1, 3) and (4, 6) adjoin.
    """
    result = []
    for first, last in sorted(periods):
        if result and first <= result[-1][1]:
            result[-1] = (result[-1][0], last)
        else:
            result.append((first, last))
    return result
