import { expect, it } from 'vitest';

import { aboutOf, ageOf } from './about';

it('says ages in the unit that a person would', () => {
  const years = [64, 64.9, 2, Math.fround(23 / 12), Math.fround(2 / 12), Math.fround(10 / 365.25), 1 / 365.25, 0];
  expect(years.map(ageOf)).toEqual([
    '64 years',
    '64 years',
    '2 years',
    '23 months',
    '2 months',
    '10 days',
    '1 day',
    '0 days',
  ]);
  expect(ageOf(null)).toBe('');
});

it('says what is known of patient and study, and nothing else', () => {
  const told = { patient_sex: 'F', patient_age: 54, modalities: ['CT', 'DX'], study_description: 'CHEST 2 VIEWS' };
  expect(aboutOf(told)).toBe('F, 54 years, CT + DX, CHEST 2 VIEWS');
  expect(aboutOf({ patient_sex: '', patient_age: null, modalities: [], study_description: '' })).toBe('');
});
