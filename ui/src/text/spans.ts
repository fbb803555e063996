/** Ranges of a text as React can draw them. The server counts code points, JavaScript UTF-16 units. */

export interface Span<Value> {
  start: number;
  end: number;
  value: Value;
}

/** A stretch of text in which the same spans hold; `start` counts code points of the whole text. */
export interface Piece<Value> {
  text: string;
  start: number;
  values: Value[];
}

/**
 * Cut `text` at the ends of all spans. Spans may overlap; those beyond the text are cut off, empty ones left out.
 */
export function pieces<Value>(text: string, spans: readonly Span<Value>[]): Piece<Value>[] {
  const points = Array.from(text);
  const sound = spans.filter(({ start, end }) => start >= 0 && end > start && start < points.length);
  const edges = new Set([0, points.length]);
  for (const { start, end } of sound) {
    edges.add(start);
    edges.add(Math.min(end, points.length));
  }
  const ordered = [...edges].sort((a, b) => a - b);
  return ordered.slice(0, -1).map((start, index) => {
    const end = ordered[index + 1] ?? points.length;
    return {
      text: points.slice(start, end).join(''),
      start,
      values: sound.filter((span) => span.start <= start && span.end >= end).map((span) => span.value),
    };
  });
}
