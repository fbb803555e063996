import { expect, it } from 'vitest';

import { between, readRegion, writeRegion } from './region';

const size = { width: 100, height: 50 };

it('reads what it writes, and nothing else', () => {
  const region = { x: 1, y: 2, width: 3, height: 4 };
  expect(readRegion(writeRegion(region))).toEqual(region);
  for (const text of ['', '1,2,3', '1,2,3,x', '1,2,0,4', '-1,2,3,4', '1.5,2,3,4', '1,2,3,4,5']) {
    expect(readRegion(text)).toBeNull();
  }
});

it('takes two corners in any order', () => {
  expect(between([30.4, 40.9], [10.6, 20.2], size)).toEqual({ x: 10, y: 20, width: 21, height: 21 });
});

it('keeps to the image', () => {
  expect(between([-20, -5], [300, 70], size)).toEqual({ x: 0, y: 0, width: 100, height: 50 });
  expect(between([200, 10], [300, 20], size)).toBeNull();
});
