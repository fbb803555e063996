/** The answers of the server that the pages share. */

import { QueryClient } from '@tanstack/react-query';

import { ApiError } from './api/client';

export const queries = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 30_000,
      // Answers of pages left long ago need not stay in memory.
      gcTime: 120_000,
      refetchOnWindowFocus: false,
      // What the server has judged, it will judge the same again.
      retry: (failures, error) => !(error instanceof ApiError) && failures < 2,
    },
  },
});
