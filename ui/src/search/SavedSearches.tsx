import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { Button } from 'react-aria-components/Button';
import { Dialog } from 'react-aria-components/Dialog';
import { Heading } from 'react-aria-components/Heading';
import { Modal, ModalOverlay } from 'react-aria-components/Modal';

import { post } from '../api/client';
import { savedSearches } from '../api/lists';
import type { Sort } from '../api/queries';
import { ErrorMessage } from '../parts/Message';

interface Properties {
  question: string;
  sort: Sort;
  onOpen: (question: string, sort: Sort) => void;
}

/** Keeps the question that is asked under a name, and asks one that was kept. */
export function SavedSearches({ question, sort, onOpen }: Properties) {
  const saved = useQuery(savedSearches);
  const [naming, setNaming] = useState(false);
  const [told, setTold] = useState('');
  return (
    <>
      <Button className="quiet" isDisabled={question === ''} onPress={() => setNaming(true)}>
        Save this search
      </Button>
      {(saved.data ?? []).length > 0 && (
        <label>
          Saved
          <select
            value=""
            onChange={(event) => {
              const chosen = saved.data?.find((each) => each.name === event.target.value);
              if (chosen !== undefined) onOpen(chosen.question, chosen.sort);
            }}
          >
            <option value="" disabled>
              Open …
            </option>
            {(saved.data ?? []).map((each) => (
              <option key={each.name} value={each.name}>
                {each.name}
              </option>
            ))}
          </select>
        </label>
      )}
      <span role="status" className="quiet-text">
        {told && `Saved as ${told}`}
      </span>
      {naming && (
        <Naming
          question={question}
          sort={sort}
          onDone={(name) => {
            setNaming(false);
            setTold(name);
          }}
        />
      )}
    </>
  );
}

interface NamingProperties {
  question: string;
  sort: Sort;
  onDone: (name: string) => void;
}

function Naming({ question, sort, onDone }: NamingProperties) {
  const queries = useQueryClient();
  const [name, setName] = useState('');
  const [note, setNote] = useState('');
  const [error, setError] = useState<unknown>(null);
  const save = async () => {
    try {
      await post('/saved', { name: name.trim(), question, sort, note });
      await queries.invalidateQueries({ queryKey: ['saved'] });
      onDone(name.trim());
    } catch (reason) {
      setError(reason);
    }
  };
  return (
    <ModalOverlay className="overlay" isOpen isDismissable onOpenChange={() => onDone('')}>
      <Modal className="dialog">
        <Dialog>
          <Heading slot="title">Save this search</Heading>
          <form
            onSubmit={(event) => {
              event.preventDefault();
              void save();
            }}
          >
            <p className="query">{question}</p>
            <label>
              Name
              <input value={name} maxLength={200} autoFocus onChange={(event) => setName(event.target.value)} />
            </label>
            <label>
              Note
              <textarea value={note} maxLength={4000} rows={3} onChange={(event) => setNote(event.target.value)} />
            </label>
            {error !== null && <ErrorMessage error={error} what="The search was not saved" />}
            <p className="actions">
              <Button type="submit" isDisabled={!name.trim()}>
                Save
              </Button>
              <Button slot="close">Cancel</Button>
            </p>
          </form>
        </Dialog>
      </Modal>
    </ModalOverlay>
  );
}
