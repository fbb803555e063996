import { useQuery } from '@tanstack/react-query';
import { useRef, useState } from 'react';
import { Autocomplete } from 'react-aria-components/Autocomplete';
import { Button } from 'react-aria-components/Button';
import { Input } from 'react-aria-components/Input';
import { Label } from 'react-aria-components/Label';
import { ListBox, ListBoxItem } from 'react-aria-components/ListBox';
import { SearchField } from 'react-aria-components/SearchField';

import { completions } from '../api/queries';

interface Properties {
  text: string;
  onChange: (text: string) => void;
}

/** The one box: a question as it is typed, with what its last word may become. */
export function SearchBox({ text, onChange }: Properties) {
  const [open, setOpen] = useState(false);
  const box = useRef<HTMLDivElement>(null);
  const proposals = useQuery({ ...completions(text), enabled: open && text !== '' });
  const items = (proposals.data ?? []).map((each) => ({ ...each, id: `${each.kind} ${each.text}` }));
  const shown = open && text !== '' && items.length > 0;
  const take = (id: string) => {
    const chosen = items.find((each) => each.id === id);
    if (chosen === undefined) return;
    // A field is the beginning of a term; what is whole has a blank after it.
    const start = Array.from(text).slice(0, chosen.start).join('');
    onChange(start + chosen.text + (chosen.text.endsWith(':') ? '' : ' '));
    setOpen(chosen.text.endsWith(':'));
    // After the list has gone, and with it the focus of whoever clicked.
    requestAnimationFrame(() => box.current?.querySelector('input')?.focus());
  };
  return (
    <div
      className="search-box"
      ref={box}
      onBlur={(event) => {
        if (!event.currentTarget.contains(event.relatedTarget)) setOpen(false);
      }}
    >
      <Autocomplete
        inputValue={text}
        disableAutoFocusFirst
        onInputChange={(value) => {
          setOpen(true);
          onChange(value);
        }}
      >
        <SearchField value={text} onChange={onChange} onSubmit={() => setOpen(false)} onClear={() => setOpen(false)}>
          <Label>Search reports and images</Label>
          <Input
            placeholder='for example: effusion NOT present:pneumothorax view:PA "costophrenic angle"'
            autoComplete="off"
            spellCheck="false"
            onKeyDownCapture={(event) => {
              // Enter takes the completion that is marked; without one, what is typed is meant as it is.
              if (event.key === 'Enter' && !event.currentTarget.hasAttribute('aria-activedescendant')) setOpen(false);
              if (event.key === 'Escape' && open) {
                setOpen(false);
                // The first Escape closes the list; to clear the box, which the browser does too, it takes another.
                event.preventDefault();
                event.stopPropagation();
              }
            }}
          />
          {text !== '' && <Button aria-label="Clear the search">×</Button>}
        </SearchField>
        {shown && (
          <ListBox
            className="completions"
            aria-label="Completions"
            items={items}
            selectionMode="single"
            selectedKeys={[]}
            onSelectionChange={(keys) => {
              const [key] = keys === 'all' ? [] : keys;
              if (key !== undefined) take(String(key));
            }}
          >
            {(item) => (
              <ListBoxItem id={item.id} textValue={item.text}>
                <span className="what">{item.text}</span>
                <span className="help">{item.help}</span>
                <span className="count">{item.count > 0 ? item.count : ''}</span>
              </ListBoxItem>
            )}
          </ListBox>
        )}
      </Autocomplete>
    </div>
  );
}
