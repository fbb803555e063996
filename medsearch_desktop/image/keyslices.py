"""Which slices of a volume stand for it: evenly spaced places, whatever the order in which they came."""

from __future__ import annotations

from collections.abc import Sequence

from medsearch_desktop.records import Place

# Beyond this many, telling where each frame lies would take seconds; they are taken to be in order.
MOST_PLACED_FRAMES = 5_000


def select_frames(number_of_frames: int, max_frames: int) -> tuple[int, ...]:
    """Return up to `max_frames` frame indices, ascending and evenly spaced, the middle one among them."""
    if number_of_frames <= max_frames:
        return tuple(range(number_of_frames))
    middle = number_of_frames // 2
    chosen = [(2 * i + 1) * number_of_frames // (2 * max_frames) for i in range(max_frames)]
    if middle not in chosen:
        nearest = min(range(max_frames), key=lambda i: abs(chosen[i] - middle))
        chosen[nearest] = middle
    return tuple(chosen)


def key_slices(places: Sequence[Place], numbers: Sequence[tuple[int, int, str]], wanted: int) -> tuple[int, ...]:
    """Return the indices of up to `wanted` slices that are spread evenly over a volume, from one end to the other.

    `numbers` tells slices at one place apart, the instance number first. Slices at one place (phases,
    echoes, diffusion weights) count as one, of which the middle one is taken. Planes of another direction follow each
    other. Where one slice has no place, all are taken in the order of `numbers`. The same slices give the same
    answer in any order.
    """
    order = sorted(range(len(places)), key=numbers.__getitem__)
    if all(place.position is not None for place in places):
        stations: dict[tuple[str, float], list[int]] = {}
        for index in order:
            place = places[index]
            stations.setdefault((place.orientation, place.position or 0.0), []).append(index)
        order = [stations[key][len(stations[key]) // 2] for key in sorted(stations)]
    return tuple(order[station] for station in select_frames(len(order), wanted))
