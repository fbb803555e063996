import '../style/library.css';

import { useInfiniteQuery, useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { Button } from 'react-aria-components/Button';

import { post } from '../api/client';
import * as ask from '../api/queries';
import type { Job } from '../api/records';
import { ErrorMessage, Waiting } from '../parts/Message';
import { SentFiles } from '../parts/SentFiles';
import { hasEnded } from '../parts/useJobEvents';
import type { Act } from './act';
import { Checking } from './Checking';
import { KeepCurrent, useTakenIn } from './KeepCurrent';
import { Receiving } from './Receiving';
import { bytes, nameOf, standing } from './say';
import { Stations } from './Stations';
import { foldersOf, watched } from './upkeep';
import { useLiveJobs } from './useJob';

/** The library itself: where its studies come from, what is going on, what failed, models, codes, room. */
export function LibraryPage() {
  const queries = useQueryClient();
  const [error, setError] = useState<unknown>(null);
  const act: Act = async (path, body) => {
    try {
      await post(path, body);
      setError(null);
    } catch (reason) {
      setError(reason);
    }
    await queries.invalidateQueries();
  };
  return (
    <div className="page library-page">
      <h1>Library</h1>
      {error !== null && <ErrorMessage error={error} what="That did not work" />}
      <Folders act={act} />
      <Receiving act={act} />
      <Stations />
      <Failures act={act} />
      <Checks act={act} />
      <Models act={act} />
      <Holdings />
    </div>
  );
}

function Checks({ act }: { act: Act }) {
  const jobs = useQuery(ask.jobs);
  return <Checking jobs={jobs.data ?? []} act={act} />;
}

function Folders({ act }: { act: Act }) {
  const sources = useQuery(ask.sources);
  const known = useQuery(ask.jobs);
  const kept = useQuery(watched).data ?? [];
  const jobs = known.data ?? [];
  const [path, setPath] = useState('');
  const [removing, setRemoving] = useState('');
  useLiveJobs(jobs);
  useTakenIn(kept);
  const busy = jobs.some((job) => job.kind !== 'send' && !hasEnded(job));
  return (
    <section aria-labelledby="folders">
      <h2 id="folders">Folders</h2>
      <form
        className="actions"
        onSubmit={(event) => {
          event.preventDefault();
          void act('/jobs', { paths: [path.trim()] }).then(() => setPath(''));
        }}
      >
        <label className="wide">
          Add a folder, by its whole path
          <input value={path} maxLength={4096} placeholder="/archive/chest" onChange={(e) => setPath(e.target.value)} />
        </label>
        <Button type="submit" isDisabled={!path.trim()}>
          Add and index
        </Button>
      </form>
      {sources.isError && <ErrorMessage error={sources.error} what="The folders are not known" />}
      <ul className="list">
        {foldersOf(sources.data ?? [], kept).map((source) => (
          <li key={source.path}>
            <span className="path">{source.path}</span>
            <span>{source.files} files</span>
            {!source.online && <span className="offline">offline: its records are kept</span>}
            <KeepCurrent path={source.path} folder={kept.find((each) => each.path === source.path)} act={act} />
            <span className="actions">
              <Button onPress={() => void act('/jobs', { paths: [source.path] })}>Look again</Button>
              {removing === source.path ? (
                <>
                  <Button
                    onPress={() => {
                      setRemoving('');
                      void act('/sources/remove', { path: source.path });
                    }}
                  >
                    Forget its {source.files} files
                  </Button>
                  <Button onPress={() => setRemoving('')}>Keep</Button>
                </>
              ) : (
                <Button isDisabled={busy} onPress={() => setRemoving(source.path)}>
                  Remove
                </Button>
              )}
            </span>
          </li>
        ))}
      </ul>
      {jobs.length > 0 && <h3>Jobs</h3>}
      <ul className="list" aria-label="Jobs">
        {jobs
          .filter(isShown)
          .reverse()
          .map((job) => (
            <li key={job.job_id} data-state={job.state}>
              <JobRow job={job} act={act} />
            </li>
          ))}
      </ul>
    </section>
  );
}

/** What the server does by itself, every few seconds, is shown only while there is something to see. */
const isShown = (job: Job): boolean => job.begun_by === 'user' || job.state !== 'done';

/** What begins the same job once more. */
const AGAIN: Record<Job['kind'], (job: Job) => Parameters<Act>> = {
  ingest: ({ paths, metadata_only }) => ['/jobs', { paths, metadata_only }],
  retry: () => ['/failures/retry'],
  reprocess: ({ dry_run, everything }) => ['/reports/reprocess', { dry_run, everything }],
  calibrate: () => ['/model/calibrate'],
  verify: () => ['/health/verify', {}],
  repair: () => ['/health/repair', {}],
  send: ({ station, job_id }) => ['/send', { station, again: job_id }],
};
/** What was stopped of that which the server began by itself, it goes on with when it is told. */
const again = (job: Job): Parameters<Act> =>
  job.begun_by === 'watch'
    ? ['/watched/on', { path: job.within || job.paths[0] }]
    : job.begun_by === 'receive'
      ? ['/receiver/on', {}]
      : AGAIN[job.kind](job);

function JobRow({ job, act }: { job: Job; act: Act }) {
  const what = nameOf(job);
  const now = job.progress;
  // The match meter, once begun, is measured to its end: a minute at most.
  const stoppable = !hasEnded(job) && (job.kind !== 'calibrate' || job.state === 'waiting');
  const unsent = job.kind === 'send' && (job.state === 'failed' || (job.state === 'done' && (now?.failed ?? 0) > 0));
  const [listed, list] = useState(false);
  return (
    <>
      <span className="path">{what}</span>
      <span className="state">{job.state}</span>
      {job.state === 'running' && (
        <progress
          aria-label={`Progress: ${what}`}
          max={now !== null && now.stage !== 'discovered' && now.total > 0 ? now.total : undefined}
          value={now !== null && now.stage !== 'discovered' && now.total > 0 ? now.settled : undefined}
        />
      )}
      <span className="standing">{standing(job)}</span>
      <span className="actions">
        {stoppable && <Button onPress={() => void act(`/jobs/${job.job_id}/cancel`)}>Pause</Button>}
        {job.state === 'stopped' && <Button onPress={() => void act(...again(job))}>Go on</Button>}
        {unsent && <Button onPress={() => void act(...AGAIN[job.kind](job))}>Send what was not sent</Button>}
        {job.kind === 'send' && hasEnded(job) && (now?.settled ?? 0) > 0 && (
          <Button aria-expanded={listed} aria-label={`Files: ${what}`} onPress={() => list(!listed)}>
            Files
          </Button>
        )}
      </span>
      {listed && <SentFiles job={job.job_id} failed={false} />}
    </>
  );
}

function Failures({ act }: { act: Act }) {
  const answer = useInfiniteQuery(ask.failures);
  const total = answer.data?.pages[0]?.total ?? 0;
  const rows = answer.data?.pages.flatMap((page) => page.failures) ?? [];
  return (
    <section aria-labelledby="failures">
      <h2 id="failures">What could not be indexed</h2>
      {answer.isPending && <Waiting what="Looking" />}
      {answer.isError && <ErrorMessage error={answer.error} what="The failures are not known" />}
      {answer.isSuccess && total === 0 && <p>Everything that was found could be indexed.</p>}
      {total > 0 && (
        <>
          <p className="actions">
            {total} {total === 1 ? 'file' : 'files'}
            <Button onPress={() => void act('/failures/retry')}>Try again</Button>
          </p>
          <div className="scroll" tabIndex={0} role="region" aria-label="Files that could not be indexed">
            <table>
              <thead>
                <tr>
                  <th scope="col">File</th>
                  <th scope="col">Why</th>
                </tr>
              </thead>
              <tbody>
                {rows.map((row) => (
                  <tr key={row.path}>
                    <td>{row.path}</td>
                    <td>{row.reason}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
          {answer.hasNextPage && <Button onPress={() => void answer.fetchNextPage()}>Show more</Button>}
        </>
      )}
    </section>
  );
}

function Models({ act }: { act: Act }) {
  const answer = useQuery(ask.models);
  if (!answer.isSuccess) return null;
  const change = answer.data.switch;
  return (
    <section aria-labelledby="models">
      <h2 id="models">Models</h2>
      <ul className="list">
        {answer.data.models.map((model) => (
          <li key={model.model_id}>
            <span className="path">{model.model_id}</span>
            <span>{model.role || 'not used here'}</span>
            <span>{model.vectors} vectors</span>
            <span className="actions">
              {model.registered && model.role !== 'in use' && (
                <Button
                  isDisabled={change?.running ?? false}
                  onPress={() => void act('/models/use', { model_id: model.model_id })}
                >
                  Use
                </Button>
              )}
            </span>
          </li>
        ))}
      </ul>
      <p className="actions">
        <Button onPress={() => void act('/model/calibrate')}>Measure the match meter</Button>
        <Button onPress={() => void act('/reports/reprocess', {})}>Read reports again with this release</Button>
      </p>
      {answer.data.problems.map((problem, index) => (
        <p key={index} className="message bad">
          {[problem.item, problem.message, problem.remedy].filter(Boolean).join(': ')}
        </p>
      ))}
      {change?.running && (
        <p className="actions" role="status">
          Changing to {change.model_id}
          <progress
            aria-label="Images embedded"
            max={Math.max(1, change.progress.total)}
            value={change.progress.settled}
          />
          {change.progress.settled} of {change.progress.total} images
          <Button onPress={() => void act('/models/cancel')}>Stop</Button>
        </p>
      )}
      {change?.error && <p className="message bad">{change.error.message}</p>}
    </section>
  );
}

function Holdings() {
  const answer = useQuery(ask.status);
  if (answer.isPending) return <Waiting what="Counting" />;
  if (answer.isError) return <ErrorMessage error={answer.error} what="The library cannot be described" />;
  const { totals, disk, ...rest } = answer.data;
  const rows: [string, string][] = [
    ...Object.entries(totals).map(([name, count]): [string, string] => [name, count.toLocaleString('en')]),
    ['images that wait for a vector', rest.waiting_images.toLocaleString('en')],
    ['codes', rest.terminology],
    ['model', rest.model_id],
    ['folder', rest.path],
    ...Object.entries(disk).map(([name, size]): [string, string] => [
      name === 'free' ? 'free on its disk' : name,
      bytes(size),
    ]),
    ['release', rest.version],
  ];
  return (
    <section aria-labelledby="holdings">
      <h2 id="holdings">Holdings and room</h2>
      <dl className="holdings">
        {rows.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}
