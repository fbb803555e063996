import '../style/sending.css';

import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useRef, useState } from 'react';
import { Button } from 'react-aria-components/Button';

import { post } from '../api/client';
import { stations, type Station } from '../api/sending';
import { Echo } from '../parts/Echo';
import { ErrorMessage, Waiting } from '../parts/Message';

const EMPTY = {
  name: '',
  ae_title: '',
  host: '',
  port: '104',
  caller: 'MEDSEARCH',
  tls_authority: '',
  tls_certificate: '',
  tls_key: '',
};
type Fields = typeof EMPTY;

/** The DICOM stations that images may be sent to: those that are remembered, with a way to add, ask and forget one. */
export function Stations() {
  const queries = useQueryClient();
  const answer = useQuery(stations);
  const [error, setError] = useState<unknown>(null);
  const [removing, setRemoving] = useState('');
  const changed = () => queries.invalidateQueries({ queryKey: ['stations'] });
  const forget = async (name: string) => {
    try {
      await post('/stations/remove', { name });
      setError(null);
    } catch (reason) {
      setError(reason);
    }
    setRemoving('');
    await changed();
  };
  return (
    <section aria-labelledby="stations">
      <h2 id="stations">Stations</h2>
      <p className="quiet-text">
        DICOM stations that images may be sent to. Nothing is sent by itself, and to no other station.
      </p>
      {answer.isPending && <Waiting what="Looking" />}
      {answer.isError && <ErrorMessage error={answer.error} what="The stations are not known" />}
      {error !== null && <ErrorMessage error={error} what="The station was not forgotten" />}
      <ul className="list" aria-label="Stations">
        {(answer.data ?? []).map((each) => (
          <li key={each.name}>
            <span className="path">
              {each.name} <span className="code">{placeOf(each)}</span>
            </span>
            <Echo name={each.name} of={each.name} />
            <span className="actions">
              {removing === each.name ? (
                <>
                  <Button onPress={() => void forget(each.name)}>Forget {each.name}</Button>
                  <Button aria-label={`Keep ${each.name}`} onPress={() => setRemoving('')}>
                    Keep
                  </Button>
                </>
              ) : (
                <Button aria-label={`Remove ${each.name}`} onPress={() => setRemoving(each.name)}>
                  Remove
                </Button>
              )}
            </span>
          </li>
        ))}
      </ul>
      <Adding onAdded={changed} />
    </section>
  );
}

const placeOf = (station: Station): string =>
  [
    `${station.ae_title} at ${station.host}:${station.port}`,
    station.caller === EMPTY.caller ? '' : `called as ${station.caller}`,
    station.encrypted ? 'encrypted' : '',
  ]
    .filter(Boolean)
    .join(', ');

function Adding({ onAdded }: { onAdded: () => Promise<void> }) {
  const [fields, setFields] = useState<Fields>(EMPTY);
  const [error, setError] = useState<unknown>(null);
  const form = useRef<HTMLFormElement>(null);
  const box = (name: keyof Fields, label: string, most: number, placeholder = '') => (
    <label>
      {label}
      <input
        value={fields[name]}
        maxLength={most}
        placeholder={placeholder}
        autoComplete="off"
        spellCheck={false}
        inputMode={name === 'port' ? 'numeric' : undefined}
        onChange={(event) => setFields({ ...fields, [name]: event.target.value })}
      />
    </label>
  );
  const add = async () => {
    try {
      const place = { name: fields.name.trim(), ae_title: fields.ae_title.trim(), host: fields.host.trim() };
      await post('/stations', { ...fields, ...place, port: Number(fields.port) });
      setFields(EMPTY);
      setError(null);
      form.current?.querySelector('input')?.focus();
      await onAdded();
    } catch (reason) {
      setError(reason);
    }
  };
  const isWhole = [fields.name, fields.ae_title, fields.host].every((each) => each.trim() !== '');
  return (
    <form
      ref={form}
      className="station"
      aria-label="Add a station"
      onSubmit={(event) => {
        event.preventDefault();
        void add();
      }}
    >
      <div className="fields">
        {box('name', 'Name', 40, 'archive')}
        {box('ae_title', 'AE title', 16, 'ARCHIVE')}
        {box('host', 'Host', 255, '10.1.2.9')}
        {box('port', 'Port', 5)}
      </div>
      <details>
        <summary>Own AE title, encryption</summary>
        <div className="fields">
          {box('caller', 'Own AE title', 16)}
          {box('tls_authority', 'Authority of its certificate', 4096, '/etc/ssl/hospital-ca.pem')}
          {box('tls_certificate', 'Own certificate', 4096)}
          {box('tls_key', 'Key of the own certificate', 4096)}
        </div>
        <p className="quiet-text">PEM files of this machine, by their whole paths; with the authority TLS is used.</p>
      </details>
      {error !== null && <ErrorMessage error={error} what="The station was not added" />}
      <p className="actions">
        <Button type="submit" isDisabled={!isWhole || !/^\d{1,5}$/.test(fields.port)}>
          Add the station
        </Button>
      </p>
    </form>
  );
}
