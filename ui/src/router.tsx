/** The pages and their addresses. */

import { createRootRoute, createRoute, createRouter, lazyRouteComponent } from '@tanstack/react-router';

import { parseAddress, readSearch, writeAddress } from './search/address';
import { SearchPage } from './search/SearchPage';
import { NotFound, Shell } from './Shell';
import { fetchAhead, whenIdle } from './viewer/ahead';

const text = (value: unknown): string | undefined => (typeof value === 'string' && value !== '' ? value : undefined);

const root = createRootRoute({ component: Shell, notFoundComponent: NotFound });

const search = createRoute({
  getParentRoute: () => root,
  path: '/',
  validateSearch: readSearch,
  component: SearchPage,
});

const viewer = () => import('./viewer/ViewerPage');

const study = createRoute({
  getParentRoute: () => root,
  path: '/study/$uid',
  // Whoever looks at a study is likely to look at its images next.
  onEnter: () =>
    whenIdle(() => {
      // What does not come now is asked for again when it is needed, and then told.
      viewer().then(
        ({ warmUp }) => whenIdle(warmUp),
        () => undefined,
      );
    }),
  component: lazyRouteComponent(() => import('./study/StudyPage'), 'StudyPage'),
});

const view = createRoute({
  getParentRoute: () => root,
  path: '/view',
  validateSearch: (values): { study?: string; image?: string; beside?: string } => ({
    study: text(values.study),
    image: text(values.image),
    beside: text(values.beside),
  }),
  // The pixels come beside the program that shows them, not after it.
  loaderDeps: ({ search: { study: uid, image } }) => ({ uid, image }),
  loader: ({ deps: { uid, image } }) => {
    if (image !== undefined) fetchAhead(image, uid);
  },
  component: lazyRouteComponent(viewer, 'ViewerPage'),
});

const ask = createRoute({
  getParentRoute: () => root,
  path: '/ask',
  validateSearch: (values): { image?: string; roi?: string; where?: string } => ({
    image: text(values.image),
    roi: text(values.roi),
    where: text(values.where),
  }),
  component: lazyRouteComponent(() => import('./ask/AskPage'), 'AskPage'),
});

const library = createRoute({
  getParentRoute: () => root,
  path: '/library',
  component: lazyRouteComponent(() => import('./library/LibraryPage'), 'LibraryPage'),
});

const lists = createRoute({
  getParentRoute: () => root,
  path: '/lists',
  component: lazyRouteComponent(() => import('./lists/ListsPage'), 'ListsPage'),
});

const teaching = createRoute({
  getParentRoute: () => root,
  path: '/teaching',
  validateSearch: (values): { name?: string } => ({ name: text(values.name) }),
  component: lazyRouteComponent(() => import('./lists/TeachingPage'), 'TeachingPage'),
});

export const router = createRouter({
  routeTree: root.addChildren([search, study, view, ask, lists, teaching, library]),
  parseSearch: parseAddress,
  stringifySearch: writeAddress,
  scrollRestoration: true,
  // A pointer that rests on a link, and the focus, are signs enough to begin with what is behind it.
  defaultPreload: 'intent',
  // Pixels fetched ahead are kept for one image only: going to another and back fetches them again.
  defaultPreloadStaleTime: 0,
  defaultPreloadGcTime: 0,
});

declare module '@tanstack/react-router' {
  interface Register {
    router: typeof router;
  }
}
