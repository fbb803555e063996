import { expect, it } from 'vitest';

import type { Job, Progress } from '../api/records';
import { bytes, duration, faultsOf, nameOf, standing } from './say';

const job = (more: Partial<Job>): Job =>
  ({ state: 'running', progress: null, summary: null, error: null, ...more }) as Job;
const summary = (more: Partial<Job['summary']>) => ({ indexed: 0, failed: 0, removed: 0, ...more }) as Job['summary'];
const found = {
  ok: false,
  stopped: false,
  seconds: 1,
  checked: { images: 4, files: 6 },
  faults: 3,
  kinds: { 'file-gone': 2, 'text-index': 1 },
  listed: [{ kind: 'file-gone', item: '/a', message: 'is gone', remedy: 'ingest' }],
  recall: 1,
  notes: [],
};
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
  const looking = { ...progress, stage: 'files', failed: 0 };
  expect(standing(job({ progress: looking }))).toBe('10 of 30 files, 4.0 a second, 5 s left');
  expect(standing(job({ progress: { ...progress, stage: 'records', settled: 2, total: 4 } }))).toBe(
    'records: 2 of 4 done',
  );
  expect(standing(job({ state: 'done', summary: found }))).toBe('3 faults; 4 images, 6 files looked at');
  const mended = { mended: { 'vector-without-image': 2 }, requeued: 1, rebuilt: ['text index'], seconds: 1 };
  expect(standing(job({ state: 'done', summary: mended }))).toBe(
    '2 mended: vector-without-image; the text index was made anew; 1 files are read again when their folder is',
  );
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

it('tells faults by their kind', () => {
  expect(faultsOf(found)).toEqual([
    { kind: 'file-gone', count: 2, example: '/a: is gone', remedy: 'ingest' },
    { kind: 'text-index', count: 1, example: '', remedy: '' },
  ]);
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
