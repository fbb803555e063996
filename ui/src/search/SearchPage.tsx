import { useInfiniteQuery, useQueries } from '@tanstack/react-query';
import { getRouteApi } from '@tanstack/react-router';
import { useCallback, useEffect, useRef } from 'react';
import { Button } from 'react-aria-components/Button';
import { ToggleButton } from 'react-aria-components/ToggleButton';

import { ApiError } from '../api/client';
import { facetsOf, searchPages, type Sort } from '../api/queries';
import { ErrorMessage, Waiting } from '../parts/Message';
import { SendTo } from '../parts/SendTo';
import { complete, readSearch, type SearchState } from './address';
import { Charts } from './Charts';
import { Facets } from './Facets';
import { compose, readChoice, STATE_NAMES } from './question';
import { Rows, Wall } from './Results';
import { SavedSearches } from './SavedSearches';
import { SearchBox } from './SearchBox';
import { useTyped } from './useTyped';

const route = getRouteApi('/');

const SORTS: [Sort, string][] = [
  ['score', 'Best match first'],
  ['date', 'Newest first'],
  ['oldest', 'Oldest first'],
  ['patient', 'By patient'],
];

const FIELDS = ['modality', 'view', 'sex', 'age', 'year', 'label'] as const;

/** The search page: all of its state is in the address. */
export function SearchPage() {
  const state = complete(route.useSearch());
  const navigate = route.useNavigate();
  // The first change of a visit to the box makes an entry of the history, what follows changes it.
  const typing = useRef(false);
  const change = useCallback(
    (part: Partial<SearchState>, replace = false) =>
      void navigate({
        search: (before) => readSearch({ ...complete(before), ...part }),
        replace,
        resetScroll: false,
      }),
    [navigate],
  );
  const settle = useCallback(
    (q: string) => {
      change({ q }, typing.current);
      typing.current = true;
    },
    [change],
  );
  const [typed, setTyped] = useTyped(state.q, settle);
  const choose = (f: string[]) => change({ f });

  const question = compose(state.q, state.f);
  const answer = useInfiniteQuery(searchPages(question, state.sort));
  const pages = answer.data?.pages ?? [];
  // Of a field in which something is chosen, all values are shown with what choosing them too would find.
  const fields = FIELDS.filter((field) => state.f.some((text) => readChoice(text)?.key === field));
  const without = useQueries({
    queries: fields.map((field) =>
      facetsOf(
        compose(
          state.q,
          state.f.filter((text) => readChoice(text)?.key !== field),
        ),
      ),
    ),
  });
  const facets = { ...pages[0]?.facets };
  fields.forEach((field, index) => {
    facets[field] = without[index]?.data?.[field] ?? facets[field];
  });
  const hits = pages.flatMap((page) => page.hits);
  const total = pages[0]?.total ?? 0;

  return (
    <div className="search-page">
      <search
        onBlur={() => {
          typing.current = false;
        }}
      >
        <SearchBox text={typed} onChange={setTyped} />
      </search>
      <h1 className="hidden">Search</h1>
      <aside aria-label="Narrow the search">
        <Facets facets={facets} chosen={state.f} onChange={choose} />
      </aside>
      <div className="answer">
        <Charts codes={facets.icd10cm ?? []} chosen={state.f} onChange={choose} />
        <Chosen chosen={state.f} onChange={choose} />
        <div className="bar-of-answer">
          <p role="status" className="total" data-testid="total">
            {answer.isSuccess ? `${total.toLocaleString('en')} ${total === 1 ? 'answer' : 'answers'}` : ''}
          </p>
          <label>
            Order
            <select value={state.sort} onChange={(event) => change({ sort: event.target.value as Sort })}>
              {SORTS.map(([sort, name]) => (
                <option key={sort} value={sort}>
                  {name}
                </option>
              ))}
            </select>
          </label>
          <SavedSearches
            question={question}
            sort={state.sort}
            onOpen={(kept, order) => change({ q: kept, f: [], sort: order })}
          />
          {question.trim() !== '' && total > 0 && <SendTo what={{ question }} of="all that was found" />}
          <ToggleButton
            className="quiet"
            isSelected={state.view === 'wall'}
            onChange={(wall) => change({ view: wall ? 'wall' : 'rows' })}
          >
            Wall of images
          </ToggleButton>
        </div>
        {pages[0]?.notes.map((note) => (
          <p key={note} className="message">
            {note}
          </p>
        ))}
        {answer.isError && !isStale(answer.error) && <ErrorMessage error={answer.error} what="No answer" />}
        {answer.isPending && <Waiting what="Searching" />}
        {answer.isSuccess && total === 0 && <p className="message">Nothing in this library matches.</p>}
        <div aria-busy={answer.isPlaceholderData} className={answer.isPlaceholderData ? 'stale' : undefined}>
          {state.view === 'wall' ? (
            <Wall hits={hits} />
          ) : (
            <Rows
              hits={hits}
              onChoose={(choice) => choose(state.f.includes(choice) ? state.f : [...state.f, choice])}
            />
          )}
        </div>
        {isStale(answer.error) && (
          <p className="message" role="status">
            The library has changed since.{' '}
            <Button onPress={() => void answer.refetch()}>Ask again from the first page</Button>
          </p>
        )}
        {answer.hasNextPage && !answer.isError && (
          <More busy={answer.isFetchingNextPage} onMore={() => void answer.fetchNextPage()} />
        )}
      </div>
    </div>
  );
}

const isStale = (error: unknown): boolean => error instanceof ApiError && error.body.kind === 'stale_cursor';

/** Asks for the next page when it comes near the lower edge of the window, or is pressed. */
function More({ busy, onMore }: { busy: boolean; onMore: () => void }) {
  const mark = useRef<HTMLDivElement>(null);
  const latest = useRef(onMore);
  useEffect(() => {
    latest.current = onMore;
  }, [onMore]);
  useEffect(() => {
    const watched = mark.current;
    if (watched === null || busy) return;
    const observer = new IntersectionObserver(
      (entries) => {
        if (entries.some((entry) => entry.isIntersecting)) latest.current();
      },
      { rootMargin: '400px' },
    );
    observer.observe(watched);
    return () => observer.disconnect();
  }, [busy]);
  return (
    <div ref={mark} className="more-of-answer">
      <Button isDisabled={busy} onPress={onMore}>
        {busy ? 'More is on its way …' : 'Show more'}
      </Button>
    </div>
  );
}

/** What is chosen, each with a way to undo it, wherever it was chosen. */
function Chosen({ chosen, onChange }: { chosen: string[]; onChange: (chosen: string[]) => void }) {
  if (chosen.length === 0) return null;
  return (
    <ul className="chosen" aria-label="Chosen filters">
      {chosen.map((text) => (
        <li key={text}>
          <Button
            className="chip"
            aria-label={`Remove the filter ${nameOf(text)}`}
            onPress={() => onChange(chosen.filter((each) => each !== text))}
          >
            {nameOf(text)} <span aria-hidden="true">×</span>
          </Button>
        </li>
      ))}
      <li>
        <Button className="quiet" onPress={() => onChange([])}>
          Remove all
        </Button>
      </li>
    </ul>
  );
}

function nameOf(text: string): string {
  const choice = readChoice(text);
  if (choice === null) return text;
  const states: Record<string, string> = STATE_NAMES;
  return `${states[choice.key] ?? choice.key} ${choice.value.replaceAll('_', ' ')}`;
}
