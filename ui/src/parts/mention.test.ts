import { expect, it } from 'vitest';

import type { Assertion, Entity } from '../api/records';
import { statedCodes } from './mention';

const entity = (icd10cm: string, assertion: Assertion): Entity =>
  ({ icd10cm, assertion, text: icd10cm, title: icd10cm }) as Entity;

it('states each code once, the strongest state first', () => {
  const stated = statedCodes([
    entity('J90', 'absent'),
    entity('I51.7', 'uncertain'),
    entity('', 'present'),
    entity('J90', 'present'),
    entity('J93.9', 'historical'),
    entity('J18.9', 'absent'),
  ]);
  expect(stated.map(({ icd10cm, assertion }) => [icd10cm, assertion])).toEqual([
    ['J90', 'present'],
    ['I51.7', 'uncertain'],
    ['J18.9', 'absent'],
  ]);
});
