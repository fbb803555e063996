/** What the pages ask the server, cached by what was asked. */

import { infiniteQueryOptions, keepPreviousData, queryOptions } from '@tanstack/react-query';

import { get } from './client';
import type { Completion, Facets, SearchPage, Study, VisualAnswer } from './records';

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
    queryFn: async ({ signal }) =>
      (await get<{ completions: Completion[] }>('/complete', { q: question, k: 8 }, signal)).completions,
    placeholderData: keepPreviousData,
  });

/** How codes, findings and fields stand in all that matches. */
export const facetsOf = (question: string) =>
  queryOptions({
    queryKey: ['facets', question],
    queryFn: ({ signal }) => get<Partial<Facets>>('/facets', { q: question }, signal),
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

/** The address of an image's thumbnail. */
export const thumbnailOf = (imageId: string): string => `/api/images/${encodeURIComponent(imageId)}/thumbnail`;
