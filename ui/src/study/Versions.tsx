import { useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { Button } from 'react-aria-components/Button';

import { type Version, type VersionNote, versionOf, versionsOf } from '../api/sending';
import { ErrorMessage, Waiting } from '../parts/Message';

/** How far along a report is, with a mark where it was corrected or cancelled, and its earlier versions on demand. */
export function Versions({ note }: { note: VersionNote }) {
  const [open, setOpen] = useState(false);
  const marked = note.status !== 'final';
  return (
    <div className="versions">
      <p>
        <span className={marked ? `chip status ${note.status}` : undefined}>{note.status}</span>
        {note.effective && ` as of ${timeOf(note.effective)}`}
      </p>
      {(note.versions > 1 || note.status === 'cancelled') && (
        <details onToggle={(event) => setOpen(event.currentTarget.open)}>
          <summary>
            {note.versions} {note.versions === 1 ? 'version' : 'versions'}
          </summary>
          {open && <All report={note.report_id} />}
        </details>
      )}
    </div>
  );
}

/** A report that was cancelled: nothing finds it, and its study says so. */
export function Withdrawn({ note }: { note: VersionNote }) {
  return (
    <article className="report" aria-label={`Report ${note.report_id}, cancelled`}>
      <h2>Report {note.report_id}</h2>
      <p className="message">This report was cancelled: it is not searched. What it said before is kept below.</p>
      <Versions note={note} />
    </article>
  );
}

function All({ report }: { report: string }) {
  const answer = useQuery(versionsOf(report));
  if (answer.isPending) return <Waiting what="Looking" />;
  if (answer.isError) return <ErrorMessage error={answer.error} what="The versions are not known" />;
  return (
    <ol aria-label={`Versions of report ${report}`}>
      {answer.data.map((version, index) => (
        <li key={version.version_no}>
          <Row report={report} version={version} place={index + 1} />
        </li>
      ))}
    </ol>
  );
}

function Row({ report, version, place }: { report: string; version: Version; place: number }) {
  const [shown, show] = useState(false);
  const times = [
    version.effective && `as of ${timeOf(version.effective)}`,
    version.sent && `sent ${timeOf(version.sent)}`,
  ];
  return (
    <>
      <p className="actions">
        <span className={version.is_current ? 'searched' : undefined}>{version.status}</span>
        {version.is_current && <strong>searched</strong>}
        <span className="quiet-text">{times.filter(Boolean).join(', ')}</span>
        {version.characters > 0 && (
          <Button
            className="quiet"
            aria-expanded={shown}
            aria-label={`${shown ? 'Hide' : 'Show'} the text of version ${place}`}
            onPress={() => show(!shown)}
          >
            {shown ? 'Hide its text' : 'Show its text'}
          </Button>
        )}
      </p>
      <p className="quiet-text path">{version.path}</p>
      {shown && <Text report={report} number={version.version_no} />}
    </>
  );
}

function Text({ report, number }: { report: string; number: number }) {
  const answer = useQuery(versionOf(report, number));
  if (answer.isPending) return <Waiting what="Reading" />;
  if (answer.isError) return <ErrorMessage error={answer.error} what="The text cannot be shown" />;
  return <p className="earlier">{answer.data.text}</p>;
}

/** A time as a person reads it; without its fraction of a second. */
export const timeOf = (text: string): string => text.replace('T', ' ').replace(/\.\d+$/, '');
