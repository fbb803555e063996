/** Numbers of the library page as a person reads them. */

import type { Job } from '../api/records';

const COUNTS = ['indexed', 'updated', 'unchanged', 'removed', 'duplicates', 'failed'] as const;
const UNITS = ['B', 'kB', 'MB', 'GB', 'TB'];

export function bytes(count: number): string {
  let value = count;
  let unit = 0;
  while (value >= 1000 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value.toFixed(unit > 0 && value < 10 ? 1 : 0)} ${UNITS[unit] ?? ''}`;
}

export function duration(seconds: number): string {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** How a job stands: what is done, how fast it goes, how long it will take, what it came to. */
export function standing(job: Job): string {
  const now = job.progress;
  if (job.state === 'waiting') return 'waiting for its turn';
  if (job.state === 'running' && now !== null) {
    if (now.stage === 'discovered' || now.total === 0) return `${now.total} files found so far`;
    const left = now.rate > 0 ? `, ${duration(now.left / now.rate)} left` : '';
    return `${now.settled} of ${now.total} files, ${now.rate.toFixed(1)} a second${left}, ${now.failed} failed`;
  }
  if (job.error !== null) return [job.error.item, job.error.message, job.error.remedy].filter(Boolean).join(': ');
  if (job.summary !== null) {
    const { summary } = job;
    const parts = COUNTS.filter((name) => summary[name] > 0).map((name) => `${summary[name]} ${name}`);
    return parts.join(', ') || 'nothing to do';
  }
  return job.state;
}
