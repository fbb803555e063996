/** What keeps the library current by itself: what is asked of it, and how it stands in words. */

import { queryOptions } from '@tanstack/react-query';

import { get } from '../api/client';
import type { ErrorBody, Receiver, Source, WatchedFolder, WatchedFolders } from '../api/records';
import { bytes } from './say';

/** Nothing tells a page of what a server does by itself: it asks now and then while it is looked at. */
const MILLISECONDS = 2000;

export const watched = queryOptions({
  queryKey: ['watched'],
  queryFn: async ({ signal }) => (await get<WatchedFolders>('/watched', {}, signal)).folders,
  refetchInterval: MILLISECONDS,
});

export const receiver = queryOptions({
  queryKey: ['receiver'],
  queryFn: ({ signal }) => get<Receiver>('/receiver', {}, signal),
  refetchInterval: MILLISECONDS,
});

const STATES: Record<WatchedFolder['state'], string> = {
  off: '',
  resting: 'rests: this program was begun without --watch',
  beginning: 'is being looked at',
  watching: 'is watched',
  polling: 'is listed every minute, as no events come of its drive',
  listening: 'is received into',
  away: 'its drive is away, and is waited for',
  paused: 'is paused',
  failed: 'is not watched',
};

const told = (error: ErrorBody): string => [error.item, error.message, error.remedy].filter(Boolean).join(': ');

const taken = (folder: WatchedFolder): string[] => {
  const counts = Object.entries(folder.counts).map(([name, count]) => `${count} ${name}`);
  const at = folder.taken_at > 0 ? `last taken in at ${new Date(folder.taken_at * 1000).toLocaleTimeString()}` : '';
  return [folder.job_id ? 'taking in what is new' : '', at, counts.length > 0 ? counts.join(', ') : ''];
};

/** How a watched folder stands. */
export function folderWords(folder: WatchedFolder): string {
  const error = folder.error === null ? '' : `${told(folder.error)}${folder.state === 'failed' ? '' : '; tried again'}`;
  return [STATES[folder.state], ...taken(folder), error].filter(Boolean).join('; ');
}

/** Whether a switched-on folder, or receiving, has to be told to go on. */
export const rests = (state: WatchedFolder['state']): boolean => state === 'paused' || state === 'resting';

/** How receiving stands, a sentence a line; what is wrong last. */
export function receiverWords(now: Receiver): { lines: string[]; wrong: string[] } {
  const { listening, counts } = now;
  const wrong = [
    now.room ? '' : `The disk is nearly full: less than ${listening.reserve_mb} MB are left. What is sent is refused`,
    now.error === null ? '' : `It cannot receive: ${told(now.error)}. It is tried again`,
    now.taken.error === null ? '' : `What has come could not be taken in: ${told(now.taken.error)}. It is tried again`,
  ].filter(Boolean);
  if (now.state === 'off') return { lines: ['It is off: nothing can be sent here.'], wrong: [] };
  if (now.state === 'resting') return { lines: ['It rests: this program was begun without --watch.'], wrong: [] };
  const lines: string[] = [];
  if (now.state === 'beginning') lines.push('It is about to begin.');
  if (now.state === 'listening' || now.state === 'paused') {
    const loopback = listening.host === '::1' || listening.host.startsWith('127.');
    const how = listening.tls_cert ? ', encrypted' : loopback ? '' : ', without encryption';
    const whence = `from ${loopback ? 'this machine alone' : 'other machines'}${how}`;
    lines.push(`Receiving as ${listening.ae_title} at ${listening.host}, port ${now.port}, ${whence}.`);
    if (now.state === 'paused') lines.push('It is paused: what comes is kept, and taken in once it goes on.');
    lines.push(
      `${counts.received} received (${bytes(counts.bytes)}), ${counts.duplicates} were there already, ` +
        `${counts.refused} refused; ${counts.associations} connections, ${counts.rejected} turned away.`,
    );
    const standing = [now.waiting > 0 ? `${now.waiting} not yet taken in` : '', ...taken(now.taken)].filter(Boolean);
    if (standing.length > 0) lines.push(`${standing.join('; ')}.`);
  }
  return { lines, wrong };
}

/** The folders to show: those that were ingested, and those that are watched and hold nothing yet. */
export function foldersOf(sources: readonly Source[], folders: readonly WatchedFolder[]): Source[] {
  const known = new Set(sources.map((source) => source.path));
  const more = folders.filter((folder) => !known.has(folder.path));
  return [...sources, ...more.map(({ path, state }) => ({ path, online: state !== 'away', files: 0 }))];
}
