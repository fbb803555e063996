import { useQueryClient } from '@tanstack/react-query';
import { useEffect } from 'react';

import { jobs as allJobs } from '../api/queries';
import type { Job } from '../api/records';
import { followJob, hasEnded } from '../parts/useJobEvents';

/** Keep the jobs that run up to date by the server's events, and all that an ingest changes once it has ended. */
export function useLiveJobs(jobs: readonly Job[]): void {
  const queries = useQueryClient();
  // Sending has a turn of its own: of each turn the first that has not ended is the one that runs.
  const live = [true, false]
    .map((sends) => jobs.find((job) => !hasEnded(job) && (job.kind === 'send') === sends)?.job_id)
    .filter((id) => id !== undefined)
    .join(' ');
  useEffect(() => {
    const ends = live
      .split(' ')
      .filter(Boolean)
      .map((id) =>
        followJob(
          id,
          (job) => {
            queries.setQueryData(allJobs.queryKey, (before) =>
              before?.map((each) => (each.job_id === job.job_id ? job : each)),
            );
            if (hasEnded(job)) void queries.invalidateQueries();
          },
          // Where a stream broke, the list says how its job stands.
          () => void queries.invalidateQueries({ queryKey: allJobs.queryKey }),
        ),
      );
    return () => ends.forEach((end) => end());
  }, [live, queries]);
}
