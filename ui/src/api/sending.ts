/** Stations that are remembered at this machine, and sending to them; versions of reports. */

import { infiniteQueryOptions, queryOptions } from '@tanstack/react-query';

import { get, post } from './client';
import type { components } from './schema';

type Schemas = components['schemas'];

export type Station = Schemas['StationRow'];
export type Selection = Schemas['Selection'];
export type SelectionCount = Schemas['SelectionCount'];
export type Echoed = Schemas['Echoed'];
export type SentFiles = Schemas['SentFiles'];
export type VersionNote = Schemas['VersionNote'];
export type Version = Schemas['Version'];

export const stations = queryOptions({
  queryKey: ['stations'],
  queryFn: async ({ signal }) => (await get<Schemas['StationList']>('/stations', {}, signal)).stations,
});

/** What a selection comes to; nothing is sent. */
export const countOf = (what: Selection) =>
  queryOptions({
    queryKey: ['send', 'count', what],
    queryFn: () => post<SelectionCount>('/send/count', what),
    retry: false,
  });

/** What became of each file of a job of sending, or of those alone that were not taken. */
export const sentFiles = (job: string, failed: boolean) =>
  infiniteQueryOptions({
    queryKey: ['send', 'files', job, failed],
    queryFn: ({ pageParam, signal }) =>
      get<SentFiles>(`/jobs/${encodeURIComponent(job)}/files`, { k: 100, cursor: pageParam, failed }, signal),
    initialPageParam: '',
    getNextPageParam: (last) => last.next || undefined,
  });

const versionsRoute = (report: string): string => `/reports/${encodeURIComponent(report)}/versions`;

export const versionsOf = (report: string) =>
  queryOptions({
    queryKey: ['versions', report],
    queryFn: async ({ signal }) => (await get<Schemas['Versions']>(versionsRoute(report), {}, signal)).versions,
  });

/** One version with its text. */
export const versionOf = (report: string, number: number) =>
  queryOptions({
    queryKey: ['versions', report, number],
    queryFn: ({ signal }) => get<Schemas['VersionText']>(`${versionsRoute(report)}/${number}`, {}, signal),
  });
