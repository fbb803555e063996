import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useId, useState } from 'react';
import { Button } from 'react-aria-components/Button';

import { post } from '../api/client';
import { type ListedKind, teachingLists } from '../api/lists';
import { NoteDialog } from './NoteDialog';

interface Properties {
  kind: ListedKind;
  id: string;
  /** What is put on a list, as a person reads it. */
  of: string;
}

/** A button that puts a study or an image on a teaching list. */
export function AddToList({ kind, id, of }: Properties) {
  const [open, setOpen] = useState(false);
  const [added, setAdded] = useState('');
  return (
    <>
      <Button className="quiet" aria-label={`Put ${of} on a teaching list`} onPress={() => setOpen(true)}>
        + teaching list
      </Button>
      <span role="status" className="quiet-text">
        {added && `On the list ${added}`}
      </span>
      {open && (
        <Choosing
          target={{ target_kind: kind, target_id: id }}
          of={of}
          onDone={(list) => {
            setOpen(false);
            setAdded(list);
          }}
        />
      )}
    </>
  );
}

interface ChoosingProperties {
  target: { target_kind: ListedKind; target_id: string };
  of: string;
  onDone: (list: string) => void;
}

function Choosing({ target, of, onDone }: ChoosingProperties) {
  const queries = useQueryClient();
  const known = useId();
  const lists = useQuery(teachingLists);
  const [name, setName] = useState<string | null>(null);
  // One list is the usual case; then a press of Enter is all it takes.
  const list = name ?? (lists.data?.length === 1 ? (lists.data[0]?.name ?? '') : '');
  const add = async (note: string) => {
    await post('/teaching/entries', { list: list.trim(), ...target, note });
    await queries.invalidateQueries({ queryKey: ['teaching'] });
    onDone(list.trim());
  };
  return (
    <NoteDialog
      title={`Put ${of} on a teaching list`}
      action="Put on the list"
      refused="It was not put on the list"
      isReady={list.trim() !== ''}
      submit={add}
      onClose={() => onDone('')}
    >
      <label>
        List, or the name of a new one
        <input
          value={list}
          maxLength={200}
          list={known}
          autoComplete="off"
          autoFocus
          onChange={(event) => setName(event.target.value)}
        />
      </label>
      <datalist id={known}>
        {(lists.data ?? []).map((each) => (
          <option key={each.name} value={each.name} />
        ))}
      </datalist>
    </NoteDialog>
  );
}
