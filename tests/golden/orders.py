"""An order of channels in which alike ones share a group, and the clip with the least error (SKVQ, arXiv 2405.06219), in numpy and plain loops."""

import numpy as np

CLIPS = [c / 100 for c in range(60, 101)]


def order(low, high, group):
    """k-means with clusters of one size over (least, largest), from the channels by how wide they are."""
    dim = len(low)
    count = dim // group
    if count < 2:
        return list(range(dim))
    points = np.stack([low, high], 1).astype(np.float64)
    wide = points[:, 1] - points[:, 0]
    of = np.empty(dim, int)
    of[np.lexsort((np.arange(dim), wide))] = np.arange(dim) // group
    best, least = None, np.inf
    for _ in range(64):
        centers = np.stack([points[of == c].sum(0) / group for c in range(count)])
        apart = ((points[:, None] - centers[None]) ** 2).sum(-1)
        cost = apart[np.arange(dim), of].sum()
        if cost >= least * (1 - 1e-9):
            break
        best, least = of.copy(), cost
        # The nearest pairs of a channel and a cluster with room first.
        room, placed = [group] * count, set()
        for _, channel, cluster in sorted((apart[c, k], c, k) for c in range(dim) for k in range(count)):
            if channel not in placed and room[cluster] > 0:
                of[channel] = cluster
                placed.add(channel)
                room[cluster] -= 1
    clusters = [[c for c in range(dim) if best[c] == k] for k in range(count)]
    return [channel for members in sorted(clusters) for channel in members]


def orders(rows, group):
    """Of `[T, heads, d]`, head by head."""
    return [order(rows[:, h].min(0), rows[:, h].max(0), group) for h in range(rows.shape[1])]


def ordered(rows, order):
    return np.stack([rows[:, h, order[h]] for h in range(rows.shape[1])], 1)


def restored(rows, order):
    out = np.empty_like(rows)
    for h, channels in enumerate(order):
        out[:, h, channels] = rows[:, h]
    return out


def errors(samples, order, bits, group, per_entry):
    """The squared error of the codes of all samples, for each clip."""
    parts = [ordered(rows, order) for rows in samples]
    return [sum(float(((per_entry(x, bits, group, clip) - x) ** 2).sum()) for x in parts) for clip in CLIPS]


def clip(errors):
    """Of equal ones the one that cuts off least."""
    return max(c for c, e in zip(CLIPS, errors) if e == min(errors))
