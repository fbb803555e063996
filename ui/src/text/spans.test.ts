import { describe, expect, it } from 'vitest';

import { pieces } from './spans';

describe('pieces', () => {
  it('cuts at each end and keeps the whole text', () => {
    const cut = pieces('no effusion seen', [{ start: 3, end: 11, value: 'a' }]);
    expect(cut.map(({ text, values }) => [text, values.join('')])).toEqual([
      ['no ', ''],
      ['effusion', 'a'],
      [' seen', ''],
    ]);
  });

  it('lets spans overlap', () => {
    const cut = pieces('abcdef', [
      { start: 0, end: 4, value: 1 },
      { start: 2, end: 6, value: 2 },
    ]);
    expect(cut.map(({ text, values }) => [text, values])).toEqual([
      ['ab', [1]],
      ['cd', [1, 2]],
      ['ef', [2]],
    ]);
  });

  it('counts code points, not UTF-16 units', () => {
    const cut = pieces('😀 nodule', [{ start: 2, end: 8, value: 'n' }]);
    expect(cut.find(({ values }) => values.length > 0)?.text).toBe('nodule');
  });

  it('survives spans that lie outside', () => {
    const cut = pieces('abc', [
      { start: 1, end: 99, value: 1 },
      { start: 7, end: 9, value: 2 },
      { start: -1, end: -1, value: 3 },
    ]);
    expect(cut.map(({ text }) => text).join('')).toBe('abc');
    expect(cut.at(-1)).toMatchObject({ text: 'bc', values: [1] });
  });

  it('gives nothing for an empty text', () => {
    expect(pieces('', [])).toEqual([]);
  });
});
