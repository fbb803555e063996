/** The state of the search page as its address holds it, and addresses as readable query strings. */

import type { Sort } from '../api/queries';

export type View = 'rows' | 'wall';

export interface SearchState {
  q: string;
  f: string[];
  sort: Sort;
  view: View;
}

const SORTS: readonly Sort[] = ['score', 'date', 'oldest', 'patient'];

/** The state that an address holds; what it lacks or misspells is as at first. */
export function readSearch(values: Record<string, unknown>): Partial<SearchState> {
  const state: Partial<SearchState> = {};
  if (typeof values.q === 'string' && values.q !== '') state.q = values.q;
  const chosen = [values.f].flat().filter((each): each is string => typeof each === 'string' && each !== '');
  if (chosen.length > 0) state.f = chosen;
  const sort = SORTS.find((each) => each === values.sort);
  if (sort !== undefined && sort !== 'score') state.sort = sort;
  if (values.view === 'wall') state.view = 'wall';
  return state;
}

export const complete = (state: Partial<SearchState>): SearchState => ({
  q: state.q ?? '',
  f: state.f ?? [],
  sort: state.sort ?? 'score',
  view: state.view ?? 'rows',
});

/** A query string as an object: strings, and lists of strings where a name comes more than once. */
export function parseAddress(text: string): Record<string, string | string[]> {
  const values: Record<string, string | string[]> = {};
  const query = new URLSearchParams(text);
  for (const name of new Set(query.keys())) {
    const all = query.getAll(name);
    values[name] = all.length > 1 ? all : (all[0] ?? '');
  }
  return values;
}

export function writeAddress(values: Record<string, unknown>): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    for (const each of Array.isArray(value) ? (value as unknown[]) : [value]) {
      if (typeof each === 'string' || typeof each === 'number') query.append(name, String(each));
    }
  }
  const text = query.toString();
  return text ? `?${text}` : '';
}
