/** What a row of an answer says of patient and study beside their names. */

import type { Hit } from '../api/records';

type Told = Pick<Hit, 'patient_sex' | 'patient_age' | 'modalities' | 'study_description'>;

/** An age in years as a person says it; below two years in months, below two months in days. */
export function ageOf(years: number | null): string {
  if (years === null) return '';
  if (years >= 2) return counted(years, 'year');
  return years * 12 >= 2 ? counted(years * 12, 'month') : counted(years * 365.25, 'day');
}

function counted(value: number, unit: string): string {
  // Headers count in whole units: what a division by twelve has lost is no month less.
  const count = Math.floor(value + 0.02);
  return `${count} ${unit}${count === 1 ? '' : 's'}`;
}

/** Sex, age, modalities and description, without what is not known. */
export const aboutOf = (hit: Told): string =>
  [hit.patient_sex, ageOf(hit.patient_age), hit.modalities.join(' + '), hit.study_description]
    .filter(Boolean)
    .join(', ');
