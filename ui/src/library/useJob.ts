import { useQueryClient } from '@tanstack/react-query';
import { useEffect } from 'react';

import { jobs as allJobs } from '../api/queries';
import type { Job } from '../api/records';

const ENDED = new Set(['done', 'failed', 'stopped']);

export const hasEnded = (job: Job): boolean => ENDED.has(job.state);

/** Keep the job that runs up to date by the server's events, and all that an ingest changes once it has ended. */
export function useLiveJobs(jobs: readonly Job[]): void {
  const queries = useQueryClient();
  const live = jobs.find((job) => !hasEnded(job))?.job_id;
  useEffect(() => {
    if (live === undefined) return;
    const events = new EventSource(`/api/jobs/${encodeURIComponent(live)}/events`);
    events.onmessage = (event: MessageEvent<string>) => {
      const job = JSON.parse(event.data) as Job;
      queries.setQueryData(allJobs.queryKey, (before) =>
        before?.map((each) => (each.job_id === job.job_id ? job : each)),
      );
      if (hasEnded(job)) {
        events.close();
        void queries.invalidateQueries();
      }
    };
    // The stream ends with its job; where it broke, the list says how the job stands.
    events.onerror = () => void queries.invalidateQueries({ queryKey: allJobs.queryKey });
    return () => events.close();
  }, [live, queries]);
}
