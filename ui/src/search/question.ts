/** From what is typed and chosen to one question in the query language, and back to what is chosen. */

export const STATES = ['present', 'absent', 'uncertain', 'never'] as const;
export type State = (typeof STATES)[number];

/** How a state reads to a person, and the mark that tells it without colour. */
export const STATE_NAMES: Record<State, string> = {
  present: 'present',
  absent: 'ruled out',
  uncertain: 'uncertain',
  never: 'never mentioned',
};
export const STATE_MARKS: Record<State, string> = { present: '+', absent: '−', uncertain: '?', never: '∅' };

/**
 * One choice in the facets, as the address holds it: "present:J90", "modality:CR", "age:60-69", "from:2024-01-31".
 */
export interface Choice {
  key: string;
  value: string;
}

const STATE_KEYS: ReadonlySet<string> = new Set(STATES);
const PLAIN = /^[\p{L}\p{N}_.#-]+$/u;

export function readChoice(text: string): Choice | null {
  const colon = text.indexOf(':');
  return colon > 0 && colon < text.length - 1 ? { key: text.slice(0, colon), value: text.slice(colon + 1) } : null;
}

export const writeChoice = (choice: Choice): string => `${choice.key}:${choice.value}`;

/** The question that means `typed` and, of each field, any of the values that are chosen. */
export function compose(typed: string, chosen: readonly string[]): string {
  const fields = new Map<string, string[]>();
  for (const choice of chosen.map(readChoice)) {
    if (choice === null) continue;
    // States of one code are alternatives; two codes have to hold together.
    const field = STATE_KEYS.has(choice.key) ? `code ${choice.value}` : choice.key;
    fields.set(field, [...(fields.get(field) ?? []), term(choice)]);
  }
  const parts = [...fields.values()].map((terms) => (terms.length > 1 ? `(${terms.join(' OR ')})` : (terms[0] ?? '')));
  const words = typed.trim();
  if (parts.length === 0) return words;
  return words ? `(${words}) ${parts.join(' ')}` : parts.join(' ');
}

/** `chosen` with one choice more or less. */
export function toggle(chosen: readonly string[], choice: Choice): string[] {
  const text = writeChoice(choice);
  return chosen.includes(text) ? chosen.filter((each) => each !== text) : [...chosen, text];
}

/** `chosen` with `value` as the only one of its key; without any where it is empty. */
export function replace(chosen: readonly string[], key: string, value: string): string[] {
  const others = chosen.filter((each) => readChoice(each)?.key !== key);
  return value ? [...others, writeChoice({ key, value })] : others;
}

function term({ key, value }: Choice): string {
  switch (key) {
    // A report that says both counts once, as facets do: present before uncertain before ruled out.
    case 'present':
      return `present:${said(value)}`;
    case 'uncertain':
      return `(uncertain:${said(value)} NOT present:${said(value)})`;
    case 'absent':
      return `(absent:${said(value)} NOT present:${said(value)} NOT uncertain:${said(value)})`;
    case 'never':
      return `NOT (present:${said(value)} OR absent:${said(value)} OR uncertain:${said(value)})`;
    case 'age':
      return `age:${value.replace('-', '..')}`;
    case 'year':
      return `date:${value}`;
    case 'from':
      return `date:>=${value}`;
    case 'to':
      return `date:<=${value}`;
    default:
      return `${key}:${quoted(value)}`;
  }
}

/** A finding of ChestX-ray14 has underscores in its name and is asked for by its words. */
const said = (value: string): string => quoted(value.replaceAll('_', ' '));

const quoted = (value: string): string => (PLAIN.test(value) ? value : `"${value.replaceAll('"', ' ')}"`);
