/** What the pages ask the server, cached by what was asked. */

import { infiniteQueryOptions, keepPreviousData, queryOptions } from '@tanstack/react-query';

import { address, get, request } from './client';
import type {
  Completions,
  Facets,
  FailurePage,
  JobList,
  ModelList,
  SearchPage,
  SourceList,
  Status,
  Study,
  VisualAnswer,
} from './records';

export type Sort = 'score' | 'date' | 'oldest' | 'patient';

const PAGE = 20;

/** Pages of one question; the facets of all that match come with the first. */
export const searchPages = (question: string, sort: Sort) =>
  infiniteQueryOptions({
    queryKey: ['search', question, sort],
    queryFn: ({ pageParam, signal }) =>
      get<SearchPage>('/search', { q: question, sort, k: PAGE, cursor: pageParam, facets: pageParam === '' }, signal),
    initialPageParam: '',
    getNextPageParam: (last) => last.next || undefined,
    placeholderData: keepPreviousData,
  });

/** What the end of a question may become. */
export const completions = (question: string) =>
  queryOptions({
    queryKey: ['complete', question],
    queryFn: async ({ signal }) => (await get<Completions>('/complete', { q: question, k: 8 }, signal)).completions,
    placeholderData: keepPreviousData,
  });

/** How codes, findings and fields stand in all that matches. */
export const facetsOf = (question: string) =>
  queryOptions({
    queryKey: ['facets', question],
    queryFn: ({ signal }) => get<Facets>('/facets', { q: question }, signal),
    placeholderData: keepPreviousData,
  });

export const study = (uid: string) =>
  queryOptions({
    queryKey: ['study', uid],
    queryFn: ({ signal }) => get<Study>(`/studies/${encodeURIComponent(uid)}`, {}, signal),
  });

/** The images nearest to one of the library, or to the region "X,Y,W,H" of it. */
export const similar = (image: string, { k = 12, roi = '', where = '' } = {}) =>
  queryOptions({
    queryKey: ['similar', image, k, roi, where],
    queryFn: ({ signal }) => get<VisualAnswer>('/similar', { image, k, roi, where }, signal),
  });

/** The images nearest to a file that is not of the library, which is sent and not kept. */
export const outside = (file: File | null, number: number, { k = 12, roi = '', where = '' } = {}) =>
  queryOptions({
    queryKey: ['outside', number, k, roi, where],
    queryFn: async ({ signal }) => {
      const headers = { 'content-type': 'application/octet-stream' };
      const response = await request(address('/similar', { k, roi, where }), {
        method: 'POST',
        body: file,
        headers,
        signal,
      });
      return (await response.json()) as VisualAnswer;
    },
  });

/** The address of an image's thumbnail. */
export const thumbnailOf = (imageId: string): string => `/api/images/${encodeURIComponent(imageId)}/thumbnail`;

export const status = queryOptions({
  queryKey: ['status'],
  queryFn: ({ signal }) => get<Status>('/status', {}, signal),
});

export const sources = queryOptions({
  queryKey: ['sources'],
  queryFn: async ({ signal }) => (await get<SourceList>('/sources', {}, signal)).sources,
});

export const jobs = queryOptions({
  queryKey: ['jobs'],
  queryFn: async ({ signal }) => (await get<JobList>('/jobs', {}, signal)).jobs,
});

export const failures = infiniteQueryOptions({
  queryKey: ['failures'],
  queryFn: ({ pageParam, signal }) => get<FailurePage>('/failures', { k: 50, cursor: pageParam }, signal),
  initialPageParam: '',
  getNextPageParam: (last) => last.next || undefined,
});

export const models = queryOptions({
  queryKey: ['models'],
  queryFn: ({ signal }) => get<ModelList>('/models', {}, signal),
  // A change of model goes on beside everything else.
  refetchInterval: (query) => (query.state.data?.switch?.running ? 1000 : false),
});
