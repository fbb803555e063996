import { useState } from 'react';
import { Button } from 'react-aria-components/Button';

import type { HealthAnswer, Job } from '../api/records';
import { hasEnded } from '../parts/useJobEvents';
import type { Act } from './act';
import { faultsOf, standing } from './say';

const ofChecking = (job: Job): boolean => job.kind === 'verify' || job.kind === 'repair';

/** Is all of the library there, and does it agree with itself; and setting right what is not. */
export function Checking({ jobs, act }: { jobs: readonly Job[]; act: Act }) {
  const [files, setFiles] = useState(false);
  const last = jobs.filter(ofChecking).at(-1);
  const busy = last !== undefined && !hasEnded(last);
  const found = last?.summary && 'kinds' in last.summary ? last.summary : null;
  const now = last?.progress ?? null;
  return (
    <section aria-labelledby="checking">
      <h2 id="checking">Is everything sound?</h2>
      <p className="actions">
        <Button isDisabled={busy} onPress={() => void act('/health/verify', { files })}>
          Check the library
        </Button>
        <label>
          <input type="checkbox" checked={files} onChange={(event) => setFiles(event.target.checked)} /> Read every file
          and compare it, which may take hours
        </label>
      </p>
      {last !== undefined && (
        <p className="actions" role="status">
          {busy && (
            <progress
              aria-label="Progress of the check"
              max={now?.total ? now.total : undefined}
              value={now?.total ? now.settled : undefined}
            />
          )}
          <span className="standing">{standing(last)}</span>
          {busy && <Button onPress={() => void act(`/jobs/${last.job_id}/cancel`)}>Stop</Button>}
        </p>
      )}
      {found !== null && found.faults > 0 && <Faults found={found} files={files} act={act} />}
      {found?.notes.map((note) => (
        <p key={note}>{note}.</p>
      ))}
    </section>
  );
}

function Faults({ found, files, act }: { found: HealthAnswer; files: boolean; act: Act }) {
  return (
    <>
      <div className="scroll" tabIndex={0} role="region" aria-label="What is not sound">
        <table>
          <thead>
            <tr>
              <th scope="col">Fault</th>
              <th scope="col">How many</th>
              <th scope="col">Such as</th>
              <th scope="col">What to do</th>
            </tr>
          </thead>
          <tbody>
            {faultsOf(found).map((row) => (
              <tr key={row.kind}>
                <td>{row.kind}</td>
                <td>{row.count}</td>
                <td>{row.example}</td>
                <td>{row.remedy}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <p className="actions">
        <Button onPress={() => void act('/health/repair', { files })}>Set it right</Button>
        Labels and corrections are never touched, nor is any file.
      </p>
    </>
  );
}
