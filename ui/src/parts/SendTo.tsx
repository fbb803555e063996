import '../style/sending.css';

import { useQuery, useQueryClient } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { useEffect, useEffectEvent, useRef, useState } from 'react';
import { Button } from 'react-aria-components/Button';
import { Dialog } from 'react-aria-components/Dialog';
import { Heading } from 'react-aria-components/Heading';
import { Modal, ModalOverlay } from 'react-aria-components/Modal';

import { post } from '../api/client';
import type { Job } from '../api/records';
import { countOf, type Selection, type SelectionCount, stations } from '../api/sending';
import { bytes, counted, standing } from '../library/say';
import { Echo } from './Echo';
import { ErrorMessage, Waiting } from './Message';
import { SentFiles } from './SentFiles';
import { hasEnded, useJobEvents } from './useJobEvents';

interface Properties {
  what: Selection;
  /** What is sent, as a person reads it. */
  of: string;
}

/** A button that sends a study, a series, an image or what a question finds to another DICOM station. */
export function SendTo({ what, of }: Properties) {
  const [open, setOpen] = useState(false);
  return (
    <>
      <Button className="quiet" aria-label={`Send ${of} to a station`} onPress={() => setOpen(true)}>
        Send to …
      </Button>
      {open && <SendDialog what={what} of={of} onClose={() => setOpen(false)} />}
    </>
  );
}

function SendDialog({ what, of, onClose }: Properties & { onClose: () => void }) {
  const queries = useQueryClient();
  const known = useQuery(stations);
  const count = useQuery(countOf(what));
  const [chosen, choose] = useState('');
  const [job, setJob] = useState<Job | null>(null);
  const [goesOn, setGoesOn] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const names = (known.data ?? []).map((each) => each.name);
  // One station is the usual case; then a press of Enter is all it takes.
  const station = names.includes(chosen) ? chosen : names.length === 1 ? (names[0] ?? '') : '';
  const send = async (selection: Selection) => {
    try {
      setJob(await post<Job>('/send', { ...selection, station }));
      setGoesOn(true);
      setError(null);
      await queries.invalidateQueries({ queryKey: ['jobs'] });
    } catch (reason) {
      setError(reason);
    }
  };
  return (
    <ModalOverlay className="overlay" isOpen isDismissable onOpenChange={onClose}>
      <Modal className="dialog">
        <Dialog>
          <Heading slot="title">Send {of} to a station</Heading>
          <form
            onSubmit={(event) => {
              event.preventDefault();
              void send(what);
            }}
          >
            <p role="status">{count.isSuccess ? amount(count.data) : count.isPending ? 'Counting …' : ''}</p>
            {count.isError && <ErrorMessage error={count.error} what="There is nothing to send" />}
            {known.isPending && <Waiting what="Looking for stations" />}
            {known.isError && <ErrorMessage error={known.error} what="The stations are not known" />}
            {known.isSuccess && names.length === 0 && (
              <p className="message">
                No station is remembered at this machine. <Link to="/library">Add one on the Library page</Link>, or by{' '}
                <kbd>medsearch echo AE@HOST:PORT --remember NAME</kbd>.
              </p>
            )}
            {names.length > 0 && (
              <label>
                Station
                <select value={station} autoFocus disabled={goesOn} onChange={(event) => choose(event.target.value)}>
                  <option value="" disabled>
                    Choose one
                  </option>
                  {(known.data ?? []).map((each) => (
                    <option key={each.name} value={each.name}>
                      {each.name} ({each.ae_title}, {each.host}:{each.port}
                      {each.encrypted ? ', encrypted' : ''})
                    </option>
                  ))}
                </select>
              </label>
            )}
            {station !== '' && <Echo key={station} name={station} />}
            {error !== null && <ErrorMessage error={error} what="Nothing was sent" />}
            {job !== null && (
              <Progress
                key={job.job_id}
                begun={job}
                onAgain={(id) => void send({ again: id })}
                onEnded={() => setGoesOn(false)}
              />
            )}
            <p className="actions">
              {job === null && (
                <Button type="submit" isDisabled={station === '' || !count.isSuccess}>
                  {count.isSuccess ? `Send ${counted(count.data.files, 'file')}` : 'Send'}
                </Button>
              )}
              <Button slot="close">{job === null ? 'Cancel' : 'Close'}</Button>
            </p>
          </form>
        </Dialog>
      </Modal>
    </ModalOverlay>
  );
}

const amount = (count: SelectionCount): string =>
  `${counted(count.files, 'file')} of ${counted(count.studies, 'study', 'studies')}, ${bytes(count.bytes)}. ${count.files === 1 ? 'It goes as it is' : 'They go as they are'}, with all that is said in ${count.files === 1 ? 'it' : 'them'} of the patient.`;

interface ProgressProperties {
  begun: Job;
  onAgain: (job: string) => void;
  onEnded: () => void;
}

function Progress({ begun, onAgain, onEnded }: ProgressProperties) {
  const job = useJobEvents(begun);
  const now = job.progress;
  const ended = hasEnded(job);
  const refused = now?.failed ?? 0;
  const left = ended && (job.state !== 'done' || refused > 0);
  const [error, setError] = useState<unknown>(null);
  const box = useRef<HTMLElement>(null);
  const tell = useEffectEvent(onEnded);
  useEffect(() => {
    if (ended) tell();
  }, [ended]);
  // The button that began it is gone.
  useEffect(() => box.current?.focus(), []);
  return (
    <section aria-label="Sending" ref={box} tabIndex={-1}>
      {!ended && (
        <p className="actions">
          <progress
            aria-label="Files sent"
            max={now !== null && now.total > 0 ? now.total : undefined}
            value={now !== null && now.total > 0 ? now.settled : undefined}
          />
          <Button
            onPress={() => {
              post(`/jobs/${encodeURIComponent(job.job_id)}/cancel`).catch(setError);
            }}
          >
            Stop
          </Button>
        </p>
      )}
      <p role="status" className={job.state === 'failed' ? 'message bad' : undefined}>
        {standing(job)}
      </p>
      {!ended && <p className="quiet-text">It goes on when this is closed; the Library page shows it.</p>}
      {error !== null && <ErrorMessage error={error} what="It was not stopped" />}
      {ended && refused > 0 && <SentFiles job={job.job_id} failed />}
      {ended && refused === 0 && (now?.settled ?? 0) > 0 && (
        <details>
          <summary>Files</summary>
          <SentFiles job={job.job_id} failed={false} />
        </details>
      )}
      {left && <Button onPress={() => onAgain(job.job_id)}>Send what was not sent</Button>}
    </section>
  );
}
