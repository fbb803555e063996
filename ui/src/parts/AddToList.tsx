import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useId, useState } from 'react';
import { Button } from 'react-aria-components/Button';
import { Dialog } from 'react-aria-components/Dialog';
import { Heading } from 'react-aria-components/Heading';
import { Modal, ModalOverlay } from 'react-aria-components/Modal';

import { post } from '../api/client';
import { type ListedKind, teachingLists } from '../api/lists';
import { ErrorMessage } from './Message';

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
  const [note, setNote] = useState('');
  const [error, setError] = useState<unknown>(null);
  // One list is the usual case; then a press of Enter is all it takes.
  const list = name ?? (lists.data?.length === 1 ? (lists.data[0]?.name ?? '') : '');
  const add = async () => {
    try {
      await post('/teaching/entries', { list: list.trim(), ...target, note });
      await queries.invalidateQueries({ queryKey: ['teaching'] });
      onDone(list.trim());
    } catch (reason) {
      setError(reason);
    }
  };
  return (
    <ModalOverlay className="overlay" isOpen isDismissable onOpenChange={() => onDone('')}>
      <Modal className="dialog">
        <Dialog>
          <Heading slot="title">Put {of} on a teaching list</Heading>
          <form
            onSubmit={(event) => {
              event.preventDefault();
              void add();
            }}
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
            <label>
              Note
              <textarea value={note} maxLength={4000} rows={3} onChange={(event) => setNote(event.target.value)} />
            </label>
            {error !== null && <ErrorMessage error={error} what="It was not put on the list" />}
            <p className="actions">
              <Button type="submit" isDisabled={!list.trim()}>
                Put on the list
              </Button>
              <Button slot="close">Cancel</Button>
            </p>
          </form>
        </Dialog>
      </Modal>
    </ModalOverlay>
  );
}
