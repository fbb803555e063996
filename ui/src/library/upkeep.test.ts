import { expect, it } from 'vitest';

import type { Receiver, WatchedFolder } from '../api/records';
import { folderWords, foldersOf, receiverWords } from './upkeep';

const folder = (more: Partial<WatchedFolder>): WatchedFolder => ({
  path: '/a',
  state: 'watching',
  job_id: '',
  taken_at: 0,
  counts: {},
  error: null,
  ...more,
});
const counts = { received: 3, duplicates: 1, refused: 2, bytes: 1500, associations: 4, rejected: 1 };
const receiver = (more: Partial<Receiver>): Receiver =>
  ({
    state: 'listening',
    port: 11112,
    listening: { ae_title: 'HERE', host: '127.0.0.1', port: 0, tls_cert: '', reserve_mb: 1024 },
    counts,
    waiting: 0,
    taken: folder({ state: 'listening' }),
    room: true,
    error: null,
    ...more,
  }) as Receiver;

it('says how a folder is kept current', () => {
  expect(folderWords(folder({}))).toBe('is watched');
  expect(folderWords(folder({ job_id: 'x', counts: { indexed: 2, failed: 1 } }))).toBe(
    'is watched; taking in what is new; 2 indexed, 1 failed',
  );
  expect(folderWords(folder({ taken_at: 1 }))).toMatch(/^is watched; last taken in at /);
  const error = { kind: 'source', message: 'cannot be read', item: '/a' };
  expect(folderWords(folder({ error }))).toBe('is watched; /a: cannot be read; tried again');
  expect(folderWords(folder({ state: 'failed', error }))).toBe('is not watched; /a: cannot be read');
});

it('says how receiving stands', () => {
  expect(receiverWords(receiver({ waiting: 2 })).lines).toEqual([
    'Receiving as HERE at 127.0.0.1, port 11112, from this machine alone.',
    '3 received (1.5 kB), 1 were there already, 2 refused; 4 connections, 1 turned away.',
    '2 not yet taken in.',
  ]);
  const open = receiver({});
  open.listening.host = '10.1.2.3';
  expect(receiverWords(open).lines[0]).toContain('from other machines, without encryption');
  expect(receiverWords(receiver({ state: 'off', room: false }))).toEqual({
    lines: ['It is off: nothing can be sent here.'],
    wrong: [],
  });
  const taken = { kind: 'source', message: 'cannot listen there', item: '127.0.0.1:1', remedy: 'Choose another port' };
  expect(receiverWords(receiver({ state: 'failed', room: false, error: taken })).wrong).toEqual([
    'The disk is nearly full: less than 1024 MB are left. What is sent is refused',
    'It cannot receive: 127.0.0.1:1: cannot listen there: Choose another port. It is tried again',
  ]);
});

it('shows a watched folder that holds nothing yet', () => {
  const sources = [{ path: '/a', online: true, files: 3 }];
  expect(foldersOf(sources, [folder({}), folder({ path: '/b', state: 'away' })])).toEqual([
    ...sources,
    { path: '/b', online: false, files: 0 },
  ]);
});
