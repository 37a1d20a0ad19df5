"""The order in which volumes have to be read."""

import heapq


class CircularError(ValueError):
    """Raised when volumes require each other; `volumes` is the circle, first and last the same."""

    def __init__(self, volumes):
        super().__init__(" -> ".join(volumes))
        self.volumes = volumes


def reading_order(requires):
    """Return all volumes, each after those it requires; of several possible, the alphabetically first.

    `requires` maps a volume to the volumes that have to be read before it.
    """
    volumes = set(requires).union(*requires.values())
    waiting = {volume: len(set(requires.get(volume, ()))) for volume in volumes}
    followers = {volume: [] for volume in volumes}
    for volume, before in requires.items():
        for earlier in set(before):
            followers[earlier].append(volume)
    ready = [volume for volume, count in waiting.items() if not count]
    heapq.heapify(ready)
    result = []
    while ready:
        result.append(heapq.heappop(ready))
        for volume in followers[result[-1]]:
            waiting[volume] -= 1
            if not waiting[volume]:
                heapq.heappush(ready, volume)
    left = volumes - set(result)
    if left:
        path = [min(left)]
        while path[-1] not in path[:-1]:
            path.append(min(v for v in requires[path[-1]] if v in left))
        raise CircularError(path[path.index(path[-1]) :])
    return result
