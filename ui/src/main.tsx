import './style/base.css';
import './style/search.css';
import './style/study.css';

import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { RouterProvider } from '@tanstack/react-router';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';

import { ApiError } from './api/client';
import { router } from './router';
import { restoreTheme } from './theme';

const queries = new QueryClient({
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

restoreTheme();
const root = document.getElementById('root');
if (root === null) throw new Error('index.html lacks #root');
createRoot(root).render(
  <StrictMode>
    <QueryClientProvider client={queries}>
      <RouterProvider router={router} />
    </QueryClientProvider>
  </StrictMode>,
);
