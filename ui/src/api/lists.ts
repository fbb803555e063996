/** What a person keeps in a library: labels, saved searches, teaching lists; asking for it and changing it. */

import { queryOptions } from '@tanstack/react-query';

import { address, get, request } from './client';
import type { Sort } from './queries';

export interface LabelCount {
  label: string;
  count: number;
}

export interface SavedSearch {
  name: string;
  question: string;
  sort: Sort;
  note: string;
  created_at: string;
}

export interface TeachingList {
  name: string;
  note: string;
  created_at: string;
  entries: number;
  missing: number;
}

export type ListedKind = 'study' | 'image';

export interface TeachingEntry {
  entry_id: string;
  target_kind: ListedKind;
  target_id: string;
  note: string;
  missing: boolean;
  study_uid: string;
  study_date: string | null;
  study_description: string;
  modalities: string[];
  view_positions: string[];
  image_ids: string[];
  images: number;
}

export interface OpenedList {
  about: TeachingList;
  entries: TeachingEntry[];
}

export const labelCounts = queryOptions({
  queryKey: ['labels'],
  queryFn: async ({ signal }) => (await get<{ labels: LabelCount[] }>('/labels', {}, signal)).labels,
});

export const savedSearches = queryOptions({
  queryKey: ['saved'],
  queryFn: async ({ signal }) => (await get<{ saved: SavedSearch[] }>('/saved', {}, signal)).saved,
});

export const teachingLists = queryOptions({
  queryKey: ['teaching'],
  queryFn: async ({ signal }) => (await get<{ lists: TeachingList[] }>('/teaching', {}, signal)).lists,
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
