import { describe, expect, it } from 'vitest';

import { complete, parseAddress, readSearch, writeAddress } from './address';

describe('the address', () => {
  it('gives back the state that was written into it', () => {
    const state = { q: 'a & b "c" é', f: ['present:J90', 'label:x y'], sort: 'date', view: 'wall' } as const;
    expect(complete(readSearch(parseAddress(writeAddress(state))))).toEqual(state);
  });

  it('gives back a single choice as a list, and a number as text', () => {
    expect(complete(readSearch(parseAddress('?q=123&f=sex%3AF')))).toMatchObject({ q: '123', f: ['sex:F'] });
  });

  it('is short where all is as at first', () => {
    expect(writeAddress(readSearch({ q: '', f: [], sort: 'score', view: 'rows' }))).toBe('');
  });

  it('takes what it does not know for what is there at first', () => {
    expect(complete(readSearch({ sort: 'upwards', view: '3d', f: [7] }))).toEqual({
      q: '',
      f: [],
      sort: 'score',
      view: 'rows',
    });
  });
});
