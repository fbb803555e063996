/** Frames as the viewer shows them: full-depth values in the unit of the modality, or 8-bit pictures. */

import { ApiError, request } from '../api/client';

export type Values = Uint8Array | Uint16Array | Int16Array | Float32Array;

export interface FrameWindow {
  center: number;
  width: number;
}

/** One frame, row by row; with three `components` red, green and blue take turns. */
export interface Frame {
  values: Values;
  rows: number;
  columns: number;
  components: 1 | 3;
  lowest: number;
  highest: number;
  /** The window of its header, in the unit of the values. */
  window: FrameWindow | null;
  /** Whether low values are bright. */
  inverted: boolean;
  bitsStored: number;
  /** Millimetres between rows and between columns, where the header says. */
  spacing: [number, number] | null;
  /** Whether these were measured at the detector, where things seem larger than they are. */
  atDetector: boolean;
}

/** The route of a frame; `frame` counts from 1, undefined is the image's own. */
export function frameRoute(imageId: string, frame: number | undefined, format: 'raw' | 'png'): string {
  const number = frame === undefined ? '' : `&frame=${frame}`;
  return `/api/images/${encodeURIComponent(imageId)}/frame?format=${format}${number}`;
}

/**
 * Load a frame in full depth; one that is given as a picture only (colour, PNG, JPEG) comes in 8 bits.
 *
 * Throws ApiError.
 */
export async function loadFrame(imageId: string, frame: number | undefined): Promise<Frame> {
  try {
    // The viewer keeps frames itself; the browser's cache would keep each a second time.
    const response = await request(frameRoute(imageId, frame, 'raw'), { cache: 'no-store' });
    return readRaw(await response.arrayBuffer(), response.headers);
  } catch (error) {
    if (!(error instanceof ApiError) || error.body.kind !== 'unsupported_pixels') throw error;
  }
  const response = await request(frameRoute(imageId, frame, 'png'));
  return readPicture(await response.blob());
}

/** A frame out of the raw answer: 16-bit little-endian values, described by headers. */
export function readRaw(bytes: ArrayBuffer, headers: Headers): Frame {
  const number = (name: string, otherwise: number): number => {
    const text = headers.get(name);
    const value = text === null ? otherwise : Number(text);
    if (!Number.isFinite(value)) throw new Error(`the server's header ${name} is no number`);
    return value;
  };
  const rows = number('x-rows', 0);
  const columns = number('x-columns', 0);
  if (rows * columns * 2 !== bytes.byteLength) throw new Error('the server sent less or more than one frame');
  const stored = number('x-signed', 0) === 1 ? new Int16Array(bytes) : new Uint16Array(bytes);
  const values = inUnits(stored, number('x-slope', 1), number('x-intercept', 0));
  const [lowest, highest] = rangeOf(values);
  const width = number('x-window-width', 0);
  const spacing: [number, number] = [number('x-row-spacing', 0), number('x-column-spacing', 0)];
  return {
    values,
    rows,
    columns,
    components: 1,
    lowest,
    highest,
    window: width > 0 ? { center: number('x-window-center', 0), width } : null,
    inverted: number('x-dark-is-high', 0) === 1,
    bitsStored: number('x-bits-stored', 16),
    spacing: spacing.every((each) => each > 0) ? spacing : null,
    atDetector: number('x-at-detector', 0) === 1,
  };
}

/** Stored values as `value x slope + intercept`, in 16 bits where all of them fit. */
export function inUnits(stored: Uint16Array | Int16Array, slope: number, intercept: number): Values {
  if (slope === 1 && intercept === 0) return stored;
  const [low, high] = rangeOf(stored);
  const ends = [low * slope + intercept, high * slope + intercept];
  const whole = Number.isInteger(slope) && Number.isInteger(intercept);
  const fits = whole && Math.min(...ends) >= -32768 && Math.max(...ends) <= 32767;
  const values = fits ? new Int16Array(stored.length) : new Float32Array(stored.length);
  for (let index = 0; index < stored.length; index++) values[index] = (stored[index] ?? 0) * slope + intercept;
  return values;
}

export function rangeOf(values: Values): [number, number] {
  let low = Infinity;
  let high = -Infinity;
  // By index: the iterator of an array takes ten times as long, 50 ms for a film.
  for (let at = 0; at < values.length; at++) {
    const value = values[at] as number;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return values.length > 0 ? [low, high] : [0, 0];
}

async function readPicture(picture: Blob): Promise<Frame> {
  const bitmap = await createImageBitmap(picture, { colorSpaceConversion: 'none' });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext('2d');
  if (context === null) throw new Error('this browser draws no pictures');
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  return { ...fromColours(data), rows: canvas.height, columns: canvas.width };
}

/** Values out of red, green, blue, opacity: one a pixel where all of them are grey. */
export function fromColours(data: Uint8ClampedArray): Omit<Frame, 'rows' | 'columns'> {
  const pixels = data.length / 4;
  let grey = true;
  for (let at = 0; grey && at < data.length; at += 4) grey = data[at] === data[at + 1] && data[at] === data[at + 2];
  const components = grey ? 1 : 3;
  const values = new Uint8Array(pixels * components);
  for (let pixel = 0; pixel < pixels; pixel++) {
    for (let part = 0; part < components; part++) {
      values[pixel * components + part] = data[pixel * 4 + part] ?? 0;
    }
  }
  const whole = { lowest: 0, highest: 255, window: { center: 128, width: 256 } };
  return { values, components, ...whole, inverted: false, bitsStored: 8, spacing: null, atDetector: false };
}
