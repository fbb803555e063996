/** Rectangles on an image, in its pixels: as they are drawn, and as the server and the address take them. */

export interface Region {
  x: number;
  y: number;
  width: number;
  height: number;
}

export interface Size {
  width: number;
  height: number;
}

export const writeRegion = ({ x, y, width, height }: Region): string => [x, y, width, height].join(',');

/** The region that "X,Y,W,H" says, or null for what says none. */
export function readRegion(text: string): Region | null {
  const parts = text.split(',').map(Number);
  const [x, y, width, height] = parts;
  if (parts.length !== 4 || x === undefined || y === undefined || width === undefined || height === undefined) {
    return null;
  }
  const sound = parts.every(Number.isInteger) && x >= 0 && y >= 0 && width > 0 && height > 0;
  return sound ? { x, y, width, height } : null;
}

/** The whole pixels between two corners, given in pixels, as far as they lie on an image of that size. */
export function between(a: [number, number], b: [number, number], size: Size): Region | null {
  const left = Math.max(0, Math.floor(Math.min(a[0], b[0])));
  const top = Math.max(0, Math.floor(Math.min(a[1], b[1])));
  const right = Math.min(size.width, Math.ceil(Math.max(a[0], b[0])));
  const bottom = Math.min(size.height, Math.ceil(Math.max(a[1], b[1])));
  return right > left && bottom > top ? { x: left, y: top, width: right - left, height: bottom - top } : null;
}
