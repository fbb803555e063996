import '../style/lists.css';

import { useQuery, useQueryClient } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { useState } from 'react';
import { Button } from 'react-aria-components/Button';
import { FileTrigger } from 'react-aria-components/FileTrigger';

import { post } from '../api/client';
import { importList, type SavedSearch, savedSearches, type TeachingList, teachingLists } from '../api/lists';
import { ErrorMessage, Waiting } from '../parts/Message';
import { Sure } from '../parts/Sure';
import { NameAndNote } from './NameAndNote';

type Act = (work: () => Promise<unknown>) => Promise<void>;

/** What is kept in this library: saved searches and teaching lists. */
export function ListsPage() {
  const queries = useQueryClient();
  const [error, setError] = useState<unknown>(null);
  const act: Act = async (work) => {
    try {
      await work();
      setError(null);
    } catch (reason) {
      setError(reason);
    }
    await Promise.all([
      queries.invalidateQueries({ queryKey: ['saved'] }),
      queries.invalidateQueries({ queryKey: ['teaching'] }),
    ]);
  };
  return (
    <div className="page lists-page">
      <h1>Lists</h1>
      {error !== null && <ErrorMessage error={error} what="That did not work" />}
      <Saved act={act} />
      <Teaching act={act} />
    </div>
  );
}

function Saved({ act }: { act: Act }) {
  const saved = useQuery(savedSearches);
  return (
    <section aria-labelledby="saved">
      <h2 id="saved">Saved searches</h2>
      {saved.isPending && <Waiting what="Looking" />}
      {saved.isError && <ErrorMessage error={saved.error} what="The saved searches are not known" />}
      {saved.data?.length === 0 && (
        <p className="quiet-text">
          None yet. The <Link to="/">search page</Link> saves the question that it shows.
        </p>
      )}
      <ul className="list" aria-label="Saved searches">
        {(saved.data ?? []).map((each) => (
          <li key={each.name}>
            <SavedRow saved={each} act={act} />
          </li>
        ))}
      </ul>
    </section>
  );
}

function SavedRow({ saved, act }: { saved: SavedSearch; act: Act }) {
  const sort = saved.sort === 'score' ? undefined : saved.sort;
  return (
    <>
      <Link className="name" to="/" search={{ q: saved.question, sort }}>
        {saved.name}
      </Link>
      <code>{saved.question}</code>
      <NameAndNote
        name={saved.name}
        note={saved.note}
        onChange={(to, note) => act(() => post('/saved/change', { name: saved.name, to, note }))}
      />
      <Sure
        what={`the saved search ${saved.name}`}
        onSure={() => void act(() => post('/saved/remove', { name: saved.name }))}
      />
    </>
  );
}

function Teaching({ act }: { act: Act }) {
  const lists = useQuery(teachingLists);
  const [name, setName] = useState('');
  return (
    <section aria-labelledby="teaching">
      <h2 id="teaching">Teaching lists</h2>
      <form
        className="actions"
        onSubmit={(event) => {
          event.preventDefault();
          void act(() => post('/teaching', { name: name.trim() })).then(() => setName(''));
        }}
      >
        <label>
          New list <input value={name} maxLength={200} onChange={(event) => setName(event.target.value)} />
        </label>
        <Button type="submit" isDisabled={!name.trim()}>
          Begin the list
        </Button>
        <FileTrigger
          acceptedFileTypes={['application/json', '.json']}
          onSelect={(files) => {
            const file = files?.[0];
            if (file !== undefined) void act(() => importList(file, name.trim()));
          }}
        >
          <Button>Take over a list.json</Button>
        </FileTrigger>
      </form>
      <p className="quiet-text">
        A list.json of an export is taken over under the name that is written here, or else its own; what it lists is
        found where the same images are.
      </p>
      {lists.isError && <ErrorMessage error={lists.error} what="The teaching lists are not known" />}
      <ul className="list" aria-label="Teaching lists">
        {(lists.data ?? []).map((each) => (
          <li key={each.name}>
            <TeachingRow list={each} act={act} />
          </li>
        ))}
      </ul>
    </section>
  );
}

function TeachingRow({ list, act }: { list: TeachingList; act: Act }) {
  return (
    <>
      <Link className="name" to="/teaching" search={{ name: list.name }}>
        {list.name}
      </Link>
      <span>
        {list.entries} {list.entries === 1 ? 'entry' : 'entries'}
        {list.missing > 0 && `, ${list.missing} not here`}
      </span>
      <NameAndNote
        name={list.name}
        note={list.note}
        onChange={(to, note) => act(() => post('/teaching/change', { name: list.name, to, note }))}
      />
      <Sure
        what={`the teaching list ${list.name}`}
        onSure={() => void act(() => post('/teaching/remove', { name: list.name }))}
      />
    </>
  );
}
