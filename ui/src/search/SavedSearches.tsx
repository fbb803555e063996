import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { Button } from 'react-aria-components/Button';

import { post } from '../api/client';
import { savedSearches } from '../api/lists';
import type { Sort } from '../api/queries';
import { NoteDialog } from '../parts/NoteDialog';

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
  const save = async (note: string) => {
    await post('/saved', { name: name.trim(), question, sort, note });
    await queries.invalidateQueries({ queryKey: ['saved'] });
    onDone(name.trim());
  };
  return (
    <NoteDialog
      title="Save this search"
      action="Save"
      refused="The search was not saved"
      isReady={name.trim() !== ''}
      submit={save}
      onClose={() => onDone('')}
    >
      <p className="query">{question}</p>
      <label>
        Name
        <input value={name} maxLength={200} autoFocus onChange={(event) => setName(event.target.value)} />
      </label>
    </NoteDialog>
  );
}
