import '../style/lists.css';

import { useQuery, useQueryClient } from '@tanstack/react-query';
import { getRouteApi, Link } from '@tanstack/react-router';
import { useEffect, useRef, useState } from 'react';
import { Button } from 'react-aria-components/Button';

import { post } from '../api/client';
import { exportOf, type OpenedList, type TeachingEntry, teachingList } from '../api/lists';
import { ErrorMessage, Waiting } from '../parts/Message';
import { Thumbnail } from '../parts/Thumbnail';

const route = getRouteApi('/teaching');
const MOST_PICTURES = 3;

type Act = (path: string, body: unknown) => Promise<void>;
type Way = 'up' | 'down';
type Move = (entry: TeachingEntry, way: Way, place: number) => void;

/** One teaching list: its entries in their order, and handing it over. */
export function TeachingPage() {
  const { name = '' } = route.useSearch();
  const answer = useQuery(teachingList(name));
  if (answer.isPending) return <Waiting what="Opening the list" />;
  if (answer.isError) return <ErrorMessage error={answer.error} what="This list cannot be shown" />;
  return <Opened key={name} opened={answer.data} />;
}

function Opened({ opened: { about, entries } }: { opened: OpenedList }) {
  const queries = useQueryClient();
  const [error, setError] = useState<unknown>(null);
  const act: Act = async (path, body) => {
    try {
      await post(path, body);
      setError(null);
    } catch (reason) {
      setError(reason);
    }
    await queries.invalidateQueries({ queryKey: ['teaching'] });
  };
  // An element that is moved loses the focus, which is to stay with the button that was pressed; at an end of the list
  // that does nothing more, and the other one of the entry has it.
  const pressed = useRef<[way: Way, entryId: string] | null>(null);
  useEffect(() => {
    if (pressed.current === null) return;
    const [way, id] = pressed.current;
    const [same, other] = [way, way === 'up' ? 'down' : 'up'].map((each) =>
      document.querySelector<HTMLButtonElement>(`[data-move="${each} ${id}"]`),
    );
    (same?.disabled === true ? other : same)?.focus();
    pressed.current = null;
  }, [entries]);
  const move: Move = (entry, way, place) => {
    pressed.current = [way, entry.entry_id];
    void act('/teaching/entries/change', { entry_id: entry.entry_id, place });
  };
  return (
    <div className="page teaching-page">
      <p>
        <Link to="/lists">All lists</Link>
      </p>
      <h1>{about.name}</h1>
      <p className="note">{about.note}</p>
      <HandOver name={about.name} empty={entries.length === 0} />
      {error !== null && <ErrorMessage error={error} what="That did not work" />}
      {entries.length === 0 && (
        <p className="message">
          Nothing is on this list yet: studies, images, the viewer and answers have a button that puts them on one.
        </p>
      )}
      <ol className="entries" aria-label="Entries">
        {entries.map((entry, index) => (
          <li key={entry.entry_id}>
            <Entry entry={entry} number={index + 1} last={index === entries.length - 1} act={act} move={move} />
          </li>
        ))}
      </ol>
    </div>
  );
}

interface EntryProperties {
  entry: TeachingEntry;
  number: number;
  last: boolean;
  act: Act;
  move: Move;
}

function Entry({ entry, number, last, act, move }: EntryProperties) {
  const id = entry.entry_id;
  return (
    <article className="entry">
      <div className="pictures">
        {entry.image_ids.slice(0, MOST_PICTURES).map((image, index) => (
          <Thumbnail
            key={image}
            imageId={image}
            study={entry.study_uid}
            name={`Image ${index + 1} of entry ${number}`}
          />
        ))}
        {entry.images > MOST_PICTURES && <span className="more">+{entry.images - MOST_PICTURES}</span>}
        {entry.image_ids.length === 0 && <span className="blank">no picture</span>}
      </div>
      <div className="said">
        <h2>
          {number}.{' '}
          {entry.missing ? (
            `${entry.target_kind} that is not in this library`
          ) : (
            <Link to="/study/$uid" params={{ uid: entry.study_uid }}>
              {titleOf(entry)}
            </Link>
          )}
        </h2>
        {entry.missing && (
          <p className="offline">
            Its source was removed, or never was here. The entry is kept, and shows it again once it comes in.
          </p>
        )}
        <Note entry={entry} number={number} act={act} />
        <p className="actions">
          <Button
            data-move={`up ${id}`}
            aria-label={`Move entry ${number} up`}
            isDisabled={number === 1}
            onPress={() => move(entry, 'up', number - 1)}
          >
            ↑
          </Button>
          <Button
            data-move={`down ${id}`}
            aria-label={`Move entry ${number} down`}
            isDisabled={last}
            onPress={() => move(entry, 'down', number + 1)}
          >
            ↓
          </Button>
          <Button
            aria-label={`Take entry ${number} off the list`}
            onPress={() => void act('/teaching/entries/remove', { entry_id: id })}
          >
            Take off
          </Button>
        </p>
      </div>
    </article>
  );
}

function Note({ entry, number, act }: { entry: TeachingEntry; number: number; act: Act }) {
  const [text, setText] = useState(entry.note);
  return (
    <form
      className="actions"
      onSubmit={(event) => {
        event.preventDefault();
        // The button that was pressed goes.
        event.currentTarget.querySelector('textarea')?.focus();
        void act('/teaching/entries/change', { entry_id: entry.entry_id, note: text });
      }}
    >
      <label className="wide">
        <span className="hidden">Note of entry {number}</span>
        <textarea
          value={text}
          maxLength={4000}
          rows={2}
          placeholder="Note"
          onChange={(event) => setText(event.target.value)}
        />
      </label>
      {text !== entry.note && (
        <Button type="submit" aria-label={`Keep the note of entry ${number}`}>
          Keep the note
        </Button>
      )}
    </form>
  );
}

function HandOver({ name, empty }: { name: string; empty: boolean }) {
  const [reports, setReports] = useState(false);
  const [folder, setFolder] = useState('');
  const [told, setTold] = useState('');
  const [error, setError] = useState<unknown>(null);
  if (empty) return null;
  const write = async () => {
    try {
      setTold('Writing …');
      await post('/teaching/export', { name, folder: folder.trim(), reports });
      setTold(`Written to ${folder.trim()}`);
      setError(null);
    } catch (reason) {
      setTold('');
      setError(reason);
    }
  };
  return (
    <details className="hand-over">
      <summary>Hand over</summary>
      <p>
        A web page, a table, JSON and PNG. Left out are names, patient and accession numbers, identifiers, descriptions,
        and of dates all but the year. <strong>Burned-in text is not removed from pictures</strong>: look at each. Your
        names and notes go along as they are.
      </p>
      <label>
        <input type="checkbox" checked={reports} onChange={(event) => setReports(event.target.checked)} /> With the text
        of reports
      </label>
      {reports && (
        <p className="message bad" role="alert">
          The text of reports goes along as it was written: it may hold names, dates and numbers of patients.
        </p>
      )}
      <p>
        <a href={exportOf(name, reports)} download>
          Download as a ZIP file
        </a>
        , in a browser: the program’s own window downloads nothing.
      </p>
      <form
        className="actions"
        onSubmit={(event) => {
          event.preventDefault();
          void write();
        }}
      >
        <label className="wide">
          Or a new folder on this machine, by its whole path
          <input value={folder} maxLength={4096} onChange={(event) => setFolder(event.target.value)} />
        </label>
        <Button type="submit" isDisabled={!folder.trim()}>
          Write
        </Button>
      </form>
      <p role="status">{told}</p>
      {error !== null && <ErrorMessage error={error} what="It was not written" />}
    </details>
  );
}

const titleOf = (entry: TeachingEntry): string =>
  [
    entry.study_description || 'Study',
    entry.modalities.join(' '),
    entry.view_positions.join(' '),
    entry.study_date ?? 'no date',
    entry.target_kind === 'image' ? 'one image' : `${entry.images} ${entry.images === 1 ? 'image' : 'images'}`,
  ]
    .filter(Boolean)
    .join(', ');
