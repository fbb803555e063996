import { useState } from 'react';
import { Button } from 'react-aria-components/Button';

interface Properties {
  name: string;
  note: string;
  onChange: (name: string, note: string) => Promise<void>;
}

/** A note, and a way to change it and the name that it belongs to. */
export function NameAndNote({ name, note, onChange }: Properties) {
  const [written, setWritten] = useState<{ name: string; note: string } | null>(null);
  if (written === null) {
    return (
      <>
        <span className="note">{note}</span>
        <Button aria-label={`Rename ${name} or change its note`} onPress={() => setWritten({ name, note })}>
          Rename
        </Button>
      </>
    );
  }
  return (
    <form
      className="actions"
      onSubmit={(event) => {
        event.preventDefault();
        void onChange(written.name.trim(), written.note).then(() => setWritten(null));
      }}
    >
      <label>
        Name{' '}
        <input
          value={written.name}
          maxLength={200}
          autoFocus
          onChange={(event) => setWritten({ ...written, name: event.target.value })}
        />
      </label>
      <label>
        Note{' '}
        <textarea
          value={written.note}
          maxLength={4000}
          rows={1}
          onChange={(event) => setWritten({ ...written, note: event.target.value })}
        />
      </label>
      <Button type="submit" isDisabled={!written.name.trim()}>
        Keep
      </Button>
      <Button onPress={() => setWritten(null)}>Cancel</Button>
    </form>
  );
}
