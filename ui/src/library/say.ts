/** Numbers of the library page as a person reads them. */

import type { HealthAnswer, Job } from '../api/records';

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

/** "1 file", "4 files". */
export const counted = (count: number, one: string, many = `${one}s`): string =>
  `${count.toLocaleString('en')} ${count === 1 ? one : many}`;

const whatOf = (stage: string): string => (stage === 'report' ? 'reports' : stage === 'vector' ? 'images' : 'files');

/** What a job does. */
export function nameOf(job: Job): string {
  switch (job.kind) {
    case 'ingest':
      return job.within ? `New in ${job.within}` : job.paths.join(', ');
    case 'retry':
      return 'What failed, again';
    case 'reprocess':
      return 'Reports, read again';
    case 'calibrate':
      return 'Match meter';
    case 'verify':
      return 'The library, checked';
    case 'repair':
      return 'The library, set right';
    case 'send':
      return `To ${job.station}`;
  }
}

function checked(found: HealthAnswer): string {
  if (found.stopped) return 'stopped before the end';
  const looked = `${found.checked.images ?? 0} images, ${found.checked.files ?? 0} files looked at`;
  return found.faults > 0 ? `${found.faults} faults; ${looked}` : `sound; ${looked}`;
}

/** What is wrong by kind: how many, the first of them, and what to do. */
export function faultsOf(found: HealthAnswer): { kind: string; count: number; example: string; remedy: string }[] {
  return Object.entries(found.kinds).map(([kind, count]) => {
    const first = found.listed.find((fault) => fault.kind === kind);
    return { kind, count, example: first ? `${first.item}: ${first.message}` : '', remedy: first?.remedy ?? '' };
  });
}

/** How a job stands: what is done, how fast it goes, how long it will take, what it came to. */
export function standing(job: Job): string {
  const now = job.progress;
  if (job.state === 'waiting') return 'waiting for its turn';
  if (job.state === 'running' && now !== null) {
    if (now.stage === 'records' || now.stage === 'indexes') return `${now.stage}: ${now.settled} of ${now.total} done`;
    if (now.stage === 'discovered' || now.total === 0) return `${now.total} files found so far`;
    const left = now.rate > 0 ? `, ${duration(now.left / now.rate)} left` : '';
    const failed = now.stage === 'report' || now.stage === 'files' ? '' : `, ${now.failed} failed`;
    return `${now.settled} of ${now.total} ${whatOf(now.stage)}, ${now.rate.toFixed(1)} a second${left}${failed}`;
  }
  if (job.error !== null) return [job.error.item, job.error.message, job.error.remedy].filter(Boolean).join(': ');
  if (job.summary !== null) {
    const { summary } = job;
    if ('scores' in summary) return `measured by ${summary.queries} images`;
    if ('kinds' in summary) return checked(summary);
    if ('mended' in summary) {
      const mended = Object.entries(summary.mended).map(([kind, count]) => `${count} mended: ${kind}`);
      const read = summary.requeued > 0 ? [`${summary.requeued} files are read again when their folder is`] : [];
      const made = summary.rebuilt.map((name) => `the ${name} was made anew`);
      return [...mended, ...made, ...read].join('; ') || 'nothing was to be done';
    }
    if ('left' in summary)
      return [
        `${counted(summary.sent, 'file')} sent`,
        summary.failed > 0 ? `${summary.failed} not taken` : '',
        summary.left > 0 ? `${summary.left} left` : '',
      ]
        .filter(Boolean)
        .join(', ');
    if ('changed_reports' in summary)
      return `${summary.read} reports read, ${summary.changed_reports} of them are understood otherwise`;
    const parts = COUNTS.filter((name) => summary[name] > 0).map((name) => `${summary[name]} ${name}`);
    return parts.join(', ') || 'nothing to do';
  }
  return job.state;
}
