/** What a person keeps in a library: labels, saved searches, teaching lists; asking for it and changing it. */

import { queryOptions } from '@tanstack/react-query';

import { address, get, request } from './client';
import type { components } from './schema';

type Schemas = components['schemas'];

export type LabelCount = Schemas['LabelCount'];
export type SavedSearch = Schemas['SavedSearch'];
export type TeachingList = Schemas['TeachingList'];
export type TeachingEntry = Schemas['TeachingEntry'];
export type OpenedList = Schemas['OpenedList'];
export type ListedKind = TeachingEntry['target_kind'];

export const labelCounts = queryOptions({
  queryKey: ['labels'],
  queryFn: async ({ signal }) => (await get<Schemas['Labels']>('/labels', {}, signal)).labels,
});

export const savedSearches = queryOptions({
  queryKey: ['saved'],
  queryFn: async ({ signal }) => (await get<Schemas['SavedSearches']>('/saved', {}, signal)).saved,
});

export const teachingLists = queryOptions({
  queryKey: ['teaching'],
  queryFn: async ({ signal }) => (await get<Schemas['TeachingLists']>('/teaching', {}, signal)).lists,
});

export const teachingList = (name: string) =>
  queryOptions({
    queryKey: ['teaching', name],
    queryFn: ({ signal }) => get<OpenedList>('/teaching/list', { name }, signal),
  });

/** The address of a list as a ZIP file. */
export const exportOf = (name: string, reports: boolean): string => address('/teaching/export', { name, reports });

/** Takes over the list.json of an export as a new list, under its own name or another. */
export async function importList(file: File, name: string): Promise<TeachingList> {
  const response = await request(address('/teaching/import', { name }), {
    method: 'POST',
    body: file,
    headers: { 'content-type': 'application/json' },
  });
  return (await response.json()) as TeachingList;
}
