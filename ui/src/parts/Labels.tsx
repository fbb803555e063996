import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useId, useRef, useState } from 'react';
import { Button } from 'react-aria-components/Button';

import { post } from '../api/client';
import { labelCounts } from '../api/lists';
import type { Label } from '../api/records';
import { ErrorMessage } from './Message';

interface Properties {
  kind: Label['target_kind'];
  id: string;
  /** The labels to show, those of other things than `id` with what these are. */
  labels: Label[];
  /** What it is that is labelled, as a person reads it; without it there is one on the page, which is always open. */
  of?: string;
}

/** The user's own words on one thing, with a way to take each off and to put one on. */
export function Labels({ kind, id, labels, of }: Properties) {
  const queries = useQueryClient();
  const known = useId();
  const [word, setWord] = useState('');
  const [open, setOpen] = useState(of === undefined);
  const [error, setError] = useState<unknown>(null);
  const box = useRef<HTMLDivElement>(null);
  const named = (text: string) => (of === undefined ? text : `${text} of ${of}`);
  const change = async (path: string, label: Label) => {
    try {
      await post(path, label);
      setError(null);
      setWord('');
      await queries.invalidateQueries();
    } catch (reason) {
      setError(reason);
    }
    // What was pressed may be gone: whoever works by the keyboard goes on from here.
    box.current?.querySelector<HTMLElement>('input, .opener')?.focus();
  };
  return (
    <div className="labels" ref={box}>
      <ul aria-label={named('Labels')}>
        {labels.map((label) => (
          <li key={`${label.target_kind} ${label.target_id} ${label.label}`} className="chip">
            {label.label}
            {label.target_kind !== kind && <span className="code">{label.target_kind}</span>}
            <Button
              className="quiet small"
              aria-label={named(`Remove the label ${label.label}`)}
              onPress={() => void change('/labels/remove', label)}
            >
              ×
            </Button>
          </li>
        ))}
      </ul>
      {open ? (
        <form
          onSubmit={(event) => {
            event.preventDefault();
            if (word.trim()) void change('/labels', { target_kind: kind, target_id: id, label: word.trim() });
          }}
        >
          <label>
            <span className="hidden">{named('New label')}</span>
            <input
              value={word}
              maxLength={200}
              placeholder="New label"
              list={known}
              autoComplete="off"
              // Whoever has just asked for the box wants to write into it.
              autoFocus={of !== undefined}
              onChange={(event) => setWord(event.target.value)}
              onKeyDown={(event) => {
                if (event.key === 'Escape' && of !== undefined) setOpen(false);
              }}
            />
          </label>
          <Proposals id={known} />
          <Button
            type="submit"
            isDisabled={!word.trim()}
            aria-label={of === undefined ? 'Add' : `Add a label to ${of}`}
          >
            Add
          </Button>
        </form>
      ) : (
        <Button className="quiet small opener" aria-label={`Label ${of ?? ''}`} onPress={() => setOpen(true)}>
          + label
        </Button>
      )}
      {error !== null && <ErrorMessage error={error} what="The label was not changed" />}
    </div>
  );
}

/** What the browser completes a label to: those that are in use. */
function Proposals({ id }: { id: string }) {
  const counts = useQuery(labelCounts);
  return (
    <datalist id={id}>
      {(counts.data ?? []).map((each) => (
        <option key={each.label} value={each.label} />
      ))}
    </datalist>
  );
}
