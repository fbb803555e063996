"""Short codes of vectors: their coordinates along the directions in which a library varies most.

Principal components. A code stands for its vector where memory counts, in the graph; what is found by it is compared
in full afterwards.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# As many directions as hold this share of the variance, but no more than MOST. Vectors of real films by the shipped
# model need 760; 255 hold 86 %, and with 400 candidates compared in full nothing is missed for it.
SHARE = 0.99
MOST = 255
# Of that many vectors the directions are learnt; twice as many give the same, and take 64 MB more.
SAMPLE = 8192
# Lengths of codes are multiples of it, for the instructions that take 16 numbers at once.
_STEP = 16

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Directions:
    """`mean` (dim,), `axes` (n, dim) of length one at right angles, and `lost`, the variance that they leave out."""

    mean: Floats
    axes: Floats
    lost: float

    @classmethod
    def learn(cls, vectors: Floats) -> Directions:
        """Return the directions of `vectors`, shape (n, dim)."""
        mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
        centred = vectors - mean
        variances, axes = np.linalg.eigh((centred.T @ centred).astype(np.float64) / len(vectors))
        variances, axes = np.maximum(variances[::-1], 0), axes[:, ::-1]
        left = variances.sum() - np.cumsum(variances)
        enough = int(np.argmax(left <= (1 - SHARE) * variances.sum())) + 1
        # One place of a code is for the length of what the directions leave out.
        count = min(-(-(enough + 1) // _STEP) * _STEP - 1, MOST, vectors.shape[1])
        return cls(mean, np.ascontiguousarray(axes[:, :count].T, np.float32), max(0.0, float(left[count - 1])))

    @property
    def width(self) -> int:
        """Numbers in a code."""
        return len(self.axes) + 1

    def codes(self, vectors: Floats) -> Floats:
        """Return the codes of `vectors`, shape (n, width): coordinates, then the length of what these leave out.

        Two codes are never further apart than their vectors.
        """
        codes = np.empty((len(vectors), self.width), np.float32)
        centred = vectors - self.mean
        codes[:, :-1] = centred @ self.axes.T
        left = np.einsum("ij,ij->i", centred, centred) - np.einsum("ij,ij->i", codes[:, :-1], codes[:, :-1])
        codes[:, -1] = np.sqrt(np.maximum(left, 0))
        return codes

    def probe(self, query: Floats) -> Floats:
        """Return what asks for vectors near `query`, shape (dim,), among codes: shape (width,).

        What the directions leave out of two vectors is at right angles, nearly: its squares add up. As a code the
        query would be nearest to those that have as much of it as itself; so it finds 99.8 % among 100 candidates, and
        96 % otherwise.
        """
        code = self.codes(query[None])[0]
        code[-1] = 0
        return np.asarray(code)

    def fit(self, vectors: Floats) -> bool:
        """Whether `vectors` lie along these directions about as well as those of which they were learnt."""
        return float(np.square(self.codes(vectors)[:, -1]).mean()) <= 2 * self.lost + 1e-3

    def save(self, file: Path) -> int:
        """Write them to `file` and return the CRC-32 of that. Raises OSError."""
        content = np.concatenate([[self.lost], self.mean, self.axes.ravel()]).astype("<f4").tobytes()
        file.touch(mode=0o600)
        file.write_bytes(content)
        return zlib.crc32(content)

    @classmethod
    def load(cls, file: Path, *, dim: int, crc32: int) -> Directions | None:
        """Return what `save` wrote, None where `file` does not hold it any more."""
        try:
            content = file.read_bytes()
        except OSError:
            return None
        if zlib.crc32(content) != crc32:
            return None
        numbers = np.frombuffer(content, "<f4")
        return cls(numbers[1 : dim + 1], numbers[dim + 1 :].reshape(-1, dim), float(numbers[0]))
