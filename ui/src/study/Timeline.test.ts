import { expect, it } from 'vitest';

import { distance } from './Timeline';

it.each([
  ['2024-03-01', '2024-03-01', 'same day'],
  ['2024-03-01', '2024-02-29', '1 d before'],
  ['2024-03-01', '2024-07-01', '4 mo after'],
  ['2024-03-01', '2019-03-01', '5 y before'],
  [null, '2024-01-01', ''],
])('says how far %s is from %s', (here, other, text) => {
  expect(distance(here, other)).toBe(text);
});
