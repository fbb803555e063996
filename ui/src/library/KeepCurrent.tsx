import { useQueryClient } from '@tanstack/react-query';
import { useEffect } from 'react';
import { Button } from 'react-aria-components/Button';

import * as ask from '../api/queries';
import type { WatchedFolder } from '../api/records';
import type { Act } from './act';
import { folderWords, rests } from './upkeep';

/** Ask anew for what has changed when the server took something in by itself. */
export function useTakenIn(folders: readonly WatchedFolder[]): void {
  const queries = useQueryClient();
  const now = JSON.stringify(folders.map(({ job_id, taken_at }) => [job_id, taken_at]));
  useEffect(() => {
    for (const { queryKey } of [ask.jobs, ask.sources, ask.status, ask.failures])
      void queries.invalidateQueries({ queryKey });
  }, [now, queries]);
}

/** The switch that keeps the library current with a folder, and how that stands. */
export function KeepCurrent({ path, folder, act }: { path: string; folder: WatchedFolder | undefined; act: Act }) {
  return (
    <>
      <span className="kept">{folder === undefined ? '' : folderWords(folder)}</span>
      <span className="actions">
        {folder !== undefined && rests(folder.state) && (
          <Button onPress={() => void act('/watched/on', { path })}>Go on</Button>
        )}
        <label>
          <input
            type="checkbox"
            role="switch"
            aria-label={`Keep current with ${path}`}
            checked={folder !== undefined}
            onChange={(event) => void act(event.target.checked ? '/watched/on' : '/watched/off', { path })}
          />{' '}
          Keep current
        </label>
      </span>
    </>
  );
}
