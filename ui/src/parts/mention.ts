/** How mentions of a report look: each assertion has a colour, and a mark and a line for who sees no colour. */

import type { Assertion, Entity } from '../api/records';

export const ASSERTION_MARKS: Record<Assertion, string> = {
  present: '+',
  absent: '−',
  uncertain: '?',
  historical: '↶',
  family: '⚭',
  hypothetical: '~',
};

export const ASSERTION_NAMES: Record<Assertion, string> = {
  present: 'present',
  absent: 'ruled out',
  uncertain: 'uncertain',
  historical: 'historical',
  family: 'family history',
  hypothetical: 'hypothetical',
};

export const ASSERTIONS = Object.keys(ASSERTION_MARKS) as Assertion[];

const STATED = new Set<Assertion>(['present', 'uncertain', 'absent']);
const ORDER: Record<string, number> = { present: 0, uncertain: 1, absent: 2 };

/** The codes that a report states, each once in its strongest state: present before uncertain before ruled out. */
export function statedCodes(entities: readonly Entity[]): Entity[] {
  const strongest = new Map<string, Entity>();
  for (const entity of entities) {
    if (!entity.icd10cm || !STATED.has(entity.assertion)) continue;
    const known = strongest.get(entity.icd10cm);
    if (known === undefined || rank(entity) < rank(known)) strongest.set(entity.icd10cm, entity);
  }
  return [...strongest.values()].sort((a, b) => rank(a) - rank(b));
}

const rank = (entity: Entity): number => ORDER[entity.assertion] ?? 3;

const FINDINGS = new Set(['Sign', 'Diagnosis', 'Symptom']);

/** The class by which a mention is drawn: a place, a device or a procedure that is there is no finding. */
export const lookOf = (entity: Entity): string =>
  entity.assertion === 'present' && !FINDINGS.has(entity.category) ? 'neutral' : entity.assertion;

/** The sign that stands before a mention. */
export const signOf = (entity: Entity): string =>
  lookOf(entity) === 'neutral' ? '' : ASSERTION_MARKS[entity.assertion];
