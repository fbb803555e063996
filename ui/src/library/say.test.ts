import { expect, it } from 'vitest';

import type { Job, Progress } from '../api/records';
import { bytes, duration, nameOf, standing } from './say';

const job = (more: Partial<Job>): Job =>
  ({ state: 'running', progress: null, summary: null, error: null, ...more }) as Job;
const summary = (more: Partial<Job['summary']>) => ({ indexed: 0, failed: 0, removed: 0, ...more }) as Job['summary'];
const progress = { stage: 'file', total: 30, settled: 10, left: 20, rate: 4, failed: 1 } as Progress;

it('says sizes and times in units of their size', () => {
  expect([bytes(999), bytes(1500), bytes(25_300_000), bytes(3.2e12)]).toEqual(['999 B', '1.5 kB', '25 MB', '3.2 TB']);
  expect([duration(0.2), duration(61), duration(600), duration(9000)]).toEqual(['1 s', '61 s', '10 min', '2.5 h']);
});

it('says how a job stands', () => {
  expect(standing(job({ progress }))).toBe('10 of 30 files, 4.0 a second, 5 s left, 1 failed');
  expect(standing(job({ state: 'waiting' }))).toBe('waiting for its turn');
  expect(standing(job({ state: 'done', summary: summary({ indexed: 4, removed: 1 }) }))).toBe('4 indexed, 1 removed');
  expect(standing(job({ state: 'done', summary: summary({}) }))).toBe('nothing to do');
  const reading = { ...progress, stage: 'report' };
  expect(standing(job({ progress: reading }))).toBe('10 of 30 reports, 4.0 a second, 5 s left');
  const read = { read: 30, changed_reports: 4 } as Job['summary'];
  expect(standing(job({ state: 'done', summary: read }))).toBe('30 reports read, 4 of them are understood otherwise');
  const curve = { scores: [0.1], queries: 40 } as Job['summary'];
  expect(standing(job({ state: 'done', summary: curve }))).toBe('measured by 40 images');
  const sent = (more: object) => ({ station: 'archive', sent: 1, failed: 0, left: 0, ...more }) as Job['summary'];
  expect(standing(job({ state: 'done', summary: sent({}) }))).toBe('1 file sent');
  expect(standing(job({ state: 'stopped', summary: sent({ sent: 2, failed: 3, left: 4 }) }))).toBe(
    '2 files sent, 3 not taken, 4 left',
  );
  expect(standing(job({ progress: { ...progress, stage: 'sent' } }))).toBe(
    '10 of 30 files, 4.0 a second, 5 s left, 1 failed',
  );
  expect(standing(job({ state: 'failed', error: { kind: 'source', message: 'is away', item: '/a' } }))).toBe(
    '/a: is away',
  );
});

it('says what a job does', () => {
  const kinds = ['ingest', 'retry', 'reprocess', 'calibrate', 'send'] as const;
  expect(kinds.map((kind) => nameOf(job({ kind, paths: ['/a', '/b'], station: 'archive' })))).toEqual([
    '/a, /b',
    'What failed, again',
    'Reports, read again',
    'Match meter',
    'To archive',
  ]);
});
