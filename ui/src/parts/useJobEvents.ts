import { useEffect, useState } from 'react';

import { get } from '../api/client';
import type { Job } from '../api/records';

const ENDED = new Set(['done', 'failed', 'stopped']);

export const hasEnded = (job: Job): boolean => ENDED.has(job.state);

/** Listen to a job until it has ended or the returned function is called. */
export function followJob(id: string, onJob: (job: Job) => void, onBroken: () => void): () => void {
  const events = new EventSource(`/api/jobs/${encodeURIComponent(id)}/events`);
  events.onmessage = (event: MessageEvent<string>) => {
    const job = JSON.parse(event.data) as Job;
    // The stream ends with its job; the browser would ask for it again.
    if (hasEnded(job)) events.close();
    onJob(job);
  };
  events.onerror = onBroken;
  return () => events.close();
}

/** A job as the server's events tell of it, from how it stood when it was begun. */
export function useJobEvents(begun: Job): Job {
  const [job, setJob] = useState(begun);
  const id = begun.job_id;
  useEffect(
    () =>
      followJob(id, setJob, () => {
        get<Job>(`/jobs/${encodeURIComponent(id)}`).then(setJob, () => undefined);
      }),
    [id],
  );
  return job;
}
