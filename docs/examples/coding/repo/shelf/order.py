"""The order in which volumes have to be read."""


class CircularError(ValueError):
    """Raised when volumes require each other; `volumes` is the circle, first and last the same."""

    def __init__(self, volumes):
        super().__init__(" -> ".join(volumes))
        self.volumes = volumes


def reading_order(requires):
    """Return all volumes, each after those it requires; of several possible, the alphabetically first.

    `requires` maps a volume to the volumes that have to be read before it.
    """
    done, result = set(), []

    def read(volume):
        if volume in done:
            return
        done.add(volume)
        for before in sorted(requires.get(volume, ())):
            read(before)
        result.append(volume)

    for volume in sorted(requires):
        read(volume)
    return result
