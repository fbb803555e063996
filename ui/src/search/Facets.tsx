import { useState } from 'react';
import { Button } from 'react-aria-components/Button';
import { Disclosure, DisclosurePanel } from 'react-aria-components/Disclosure';
import { Heading } from 'react-aria-components/Heading';
import { ToggleButton } from 'react-aria-components/ToggleButton';

import type { Bucket, Facet, Facets as AllFacets } from '../api/records';
import { readChoice, replace, type State, STATE_MARKS, STATE_NAMES, STATES, toggle, writeChoice } from './question';

interface Properties {
  facets: Partial<AllFacets>;
  chosen: string[];
  onChange: (chosen: string[]) => void;
}

const FEW = 8;

/** What may be chosen, with how many of the answers have it; choosing narrows the question. */
export function Facets({ facets, chosen, onChange }: Properties) {
  return (
    <div className="facets">
      <StateFacet title="Findings" rows={facets.finding ?? []} chosen={chosen} onChange={onChange} open />
      <StateFacet title="Codes" rows={facets.icd10cm ?? []} chosen={chosen} onChange={onChange} />
      <BucketFacet title="Modality" field="modality" rows={facets.modality ?? []} chosen={chosen} onChange={onChange} />
      <BucketFacet title="View" field="view" rows={facets.view ?? []} chosen={chosen} onChange={onChange} />
      <BucketFacet title="Sex" field="sex" rows={facets.sex ?? []} chosen={chosen} onChange={onChange} />
      <BucketFacet title="Age" field="age" rows={facets.age ?? []} chosen={chosen} onChange={onChange} />
      <Part title="Date">
        <Dates chosen={chosen} onChange={onChange} />
        <Buckets field="year" rows={facets.year ?? []} chosen={chosen} onChange={onChange} />
      </Part>
      <BucketFacet title="Label" field="label" rows={facets.label ?? []} chosen={chosen} onChange={onChange} />
    </div>
  );
}

function Part({ title, open = true, children }: { title: string; open?: boolean; children: React.ReactNode }) {
  return (
    <Disclosure className="part" defaultExpanded={open}>
      <Heading level={3}>
        <Button slot="trigger" className="quiet">
          <span aria-hidden="true" className="arrow" />
          {title}
        </Button>
      </Heading>
      <DisclosurePanel>{children}</DisclosurePanel>
    </Disclosure>
  );
}

interface ListProperties<Row> {
  rows: Row[];
  chosen: string[];
  onChange: (chosen: string[]) => void;
}

function StateFacet({ title, rows, open, ...rest }: ListProperties<Facet> & { title: string; open?: boolean }) {
  if (rows.length === 0) return null;
  return (
    <Part title={title} open={open ?? false}>
      <StateRows rows={rows} {...rest} />
    </Part>
  );
}

function StateRows({ rows, chosen, onChange }: ListProperties<Facet>) {
  const [all, setAll] = useState(false);
  const shown = all ? rows : rows.slice(0, FEW);
  return (
    <>
      <ul className="states">
        {shown.map((row) => {
          const name = row.title === row.code ? row.code.replaceAll('_', ' ') : row.title;
          return (
            <li key={row.code}>
              <span className="name" title={name}>
                {name}
                {row.title !== row.code && <span className="code"> {row.code}</span>}
              </span>
              <span className="four">
                {STATES.map((state) => (
                  <ToggleButton
                    key={state}
                    className={`state ${state}`}
                    aria-label={`${name}, ${STATE_NAMES[state]}: ${countOf(row, state)}`}
                    isSelected={chosen.includes(writeChoice({ key: state, value: row.code }))}
                    onChange={() => onChange(toggle(chosen, { key: state, value: row.code }))}
                  >
                    <span aria-hidden="true" className="mark">
                      {STATE_MARKS[state]}
                    </span>
                    {countOf(row, state)}
                  </ToggleButton>
                ))}
              </span>
            </li>
          );
        })}
      </ul>
      {rows.length > FEW && (
        <Button className="quiet" onPress={() => setAll(!all)}>
          {all ? 'Fewer' : `All ${rows.length}`}
        </Button>
      )}
    </>
  );
}

function BucketFacet({ title, ...rest }: ListProperties<Bucket> & { title: string; field: string }) {
  if (rest.rows.length === 0) return null;
  return (
    <Part title={title}>
      <Buckets {...rest} />
    </Part>
  );
}

function Buckets({ field, rows, chosen, onChange }: ListProperties<Bucket> & { field: string }) {
  return (
    <ul className="buckets">
      {rows.map((row) => (
        <li key={row.value}>
          <ToggleButton
            className="bucket"
            aria-label={`${row.value}: ${row.count}`}
            isSelected={chosen.includes(writeChoice({ key: field, value: row.value }))}
            onChange={() => onChange(toggle(chosen, { key: field, value: row.value }))}
          >
            {row.value} <span className="count">{row.count}</span>
          </ToggleButton>
        </li>
      ))}
    </ul>
  );
}

function Dates({ chosen, onChange }: { chosen: string[]; onChange: (chosen: string[]) => void }) {
  const value = (key: string) => chosen.map(readChoice).find((choice) => choice?.key === key)?.value ?? '';
  return (
    <div className="dates">
      {(['from', 'to'] as const).map((key) => (
        <label key={key}>
          {key === 'from' ? 'From' : 'To'}
          <input
            type="date"
            value={value(key)}
            min="1900-01-01"
            max="2999-12-31"
            onChange={(event) => onChange(replace(chosen, key, event.target.value))}
          />
        </label>
      ))}
    </div>
  );
}

function countOf(row: Facet, state: State): number {
  return state === 'never' ? row.not_mentioned : row[state];
}
