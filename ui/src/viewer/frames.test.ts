import { describe, expect, it } from 'vitest';

import { frameRoute, fromColours, inUnits, rangeOf, readRaw } from './frames';

const headers = (more: Record<string, string> = {}) =>
  new Headers({ 'x-rows': '1', 'x-columns': '3', 'x-signed': '0', 'x-bits-stored': '12', ...more });

describe('raw frames', () => {
  it('keeps all sixteen bits', () => {
    const frame = readRaw(new Uint16Array([0, 4095, 65535]).buffer, headers());
    expect([...frame.values]).toEqual([0, 4095, 65535]);
    expect(frame).toMatchObject({ lowest: 0, highest: 65535, window: null, inverted: false, spacing: null });
  });

  it('reads signed values, the window, inversion and spacing', () => {
    const told = { 'x-signed': '1', 'x-window-center': '40.0', 'x-window-width': '400.0', 'x-dark-is-high': '1' };
    const frame = readRaw(
      new Int16Array([-1000, 0, 1]).buffer,
      headers({ ...told, 'x-row-spacing': '0.5', 'x-column-spacing': '0.25', 'x-at-detector': '1' }),
    );
    expect([...frame.values]).toEqual([-1000, 0, 1]);
    expect(frame).toMatchObject({
      window: { center: 40, width: 400 },
      inverted: true,
      spacing: [0.5, 0.25],
      atDetector: true,
    });
  });

  it('refuses what is not one frame', () => {
    expect(() => readRaw(new Uint16Array([1, 2]).buffer, headers())).toThrow('less or more');
  });
});

describe('units of the modality', () => {
  it('are the stored values without a rescale', () => {
    const stored = new Uint16Array([7]);
    expect(inUnits(stored, 1, 0)).toBe(stored);
  });

  it('stay whole where they fit', () => {
    const values = inUnits(new Uint16Array([0, 1024, 4095]), 1, -1024);
    expect(values).toBeInstanceOf(Int16Array);
    expect([...values]).toEqual([-1024, 0, 3071]);
  });

  it('are fractions where the slope is one, or too large for 16 bits', () => {
    expect([...inUnits(new Uint16Array([3]), 0.5, 0)]).toEqual([1.5]);
    expect([...inUnits(new Uint16Array([60000]), 1, -1)]).toEqual([59999]);
  });
});

describe('pictures', () => {
  it('are grey or coloured by what is in them', () => {
    expect([...fromColours(new Uint8ClampedArray([5, 5, 5, 255, 9, 9, 9, 255])).values]).toEqual([5, 9]);
    expect([...fromColours(new Uint8ClampedArray([5, 5, 5, 255, 9, 0, 9, 255])).values]).toEqual([5, 5, 5, 9, 0, 9]);
  });
});

it('finds the range of any values', () => {
  expect(rangeOf(new Int16Array([3, -2, 9]))).toEqual([-2, 9]);
  expect(rangeOf(new Uint8Array())).toEqual([0, 0]);
});

it('escapes the identifier of a frame', () => {
  expect(frameRoute('1.2#3', 3, 'raw')).toBe('/api/images/1.2%233/frame?format=raw&frame=3');
});
