import { useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { Button } from 'react-aria-components/Button';

import type { Receiver } from '../api/records';
import { ErrorMessage } from '../parts/Message';
import type { Act } from './act';
import { useTakenIn } from './KeepCurrent';
import { receiver, receiverWords, rests } from './upkeep';

/** Taking in what modalities and archives send by C-STORE: its state, what has come, switching it on and off. */
export function Receiving({ act }: { act: Act }) {
  const answer = useQuery(receiver);
  useTakenIn(answer.data === undefined ? [] : [answer.data.taken]);
  if (answer.isPending) return null;
  return (
    <section aria-labelledby="receiving">
      <h2 id="receiving">Receiving</h2>
      {answer.isError ? (
        <ErrorMessage error={answer.error} what="Receiving is not known" />
      ) : (
        <Standing now={answer.data} act={act} />
      )}
    </section>
  );
}

function Standing({ now, act }: { now: Receiver; act: Act }) {
  const { lines, wrong } = receiverWords(now);
  const on = now.state !== 'off';
  return (
    <>
      <div role="status">
        {lines.map((line) => (
          <p key={line}>{line}</p>
        ))}
      </div>
      {wrong.map((line) => (
        <p key={line} className="message bad" role="alert">
          {line}.
        </p>
      ))}
      {on ? (
        <p className="actions">
          {rests(now.state) && <Button onPress={() => void act('/receiver/on', {})}>Go on</Button>}
          <Button onPress={() => void act('/receiver/off')}>Receive no more</Button>
        </p>
      ) : (
        <Settings key={JSON.stringify(now.listening)} now={now} act={act} />
      )}
    </>
  );
}

const names = (text: string): string[] => text.split(/[\s,;]+/).filter(Boolean);

/** A line to fill in: its label, what it holds, how that is changed, an example. */
type Field = [string, string, (text: string) => void, string];

function Box({ field: [label, value, set, example] }: { field: Field }) {
  return (
    <label>
      {label}
      <input
        value={value}
        maxLength={4096}
        placeholder={example}
        autoComplete="off"
        spellCheck={false}
        onChange={(event) => set(event.target.value)}
      />
    </label>
  );
}

function Settings({ now, act }: { now: Receiver; act: Act }) {
  const before = now.listening;
  const [title, setTitle] = useState(before.ae_title);
  const [host, setHost] = useState(before.host);
  const [port, setPort] = useState(String(before.port));
  const [titles, setTitles] = useState(before.allow_ae.join(', '));
  const [networks, setNetworks] = useState(before.allow_ip.join(', '));
  const [required, setRequired] = useState(before.require_called);
  const [certificate, setCertificate] = useState(before.tls_cert);
  const [ownKey, setOwnKey] = useState(before.tls_key);
  const [authority, setAuthority] = useState(before.tls_ca);
  const fields: Field[] = [
    ['AE title of this program', title, setTitle, 'MEDSEARCH'],
    ['Address to listen at; 127.0.0.1 is this machine alone', host, setHost, '127.0.0.1'],
    ['Port', port, setPort, '11112'],
    ['AE titles that may send; empty admits all', titles, setTitles, 'CT1, MR2'],
    ['Addresses or networks that may send; empty admits all', networks, setNetworks, '10.1.2.0/24'],
  ];
  const encryption: Field[] = [
    ['Own certificate', certificate, setCertificate, '/etc/ssl/medsearch.pem'],
    ['Its key, where that is a file of its own', ownKey, setOwnKey, '/etc/ssl/medsearch.key'],
    ['Authority whose certificates senders must show', authority, setAuthority, '/etc/ssl/hospital-ca.pem'],
  ];
  return (
    <form
      className="settings"
      onSubmit={(event) => {
        event.preventDefault();
        void act('/receiver/on', {
          ae_title: title.trim(),
          host: host.trim(),
          port: Number(port),
          // Titles may hold blanks; networks do not.
          allow_ae: titles
            .split(/[,;]/)
            .map((each) => each.trim())
            .filter(Boolean),
          allow_ip: names(networks),
          require_called: required,
          tls_cert: certificate.trim(),
          tls_key: ownKey.trim(),
          tls_ca: authority.trim(),
        });
      }}
    >
      {fields.map((field) => (
        <Box key={field[0]} field={field} />
      ))}
      <label>
        <input type="checkbox" checked={required} onChange={(event) => setRequired(event.target.checked)} /> Refuse who
        calls another AE title
      </label>
      <details open={before.tls_cert !== ''}>
        <summary>Encryption</summary>
        {encryption.map((field) => (
          <Box key={field[0]} field={field} />
        ))}
        <p className="quiet-text">
          PEM files of this machine, by their whole paths; with a certificate only TLS is spoken.
        </p>
      </details>
      <Button type="submit" isDisabled={!title.trim() || !/^\d+$/.test(port.trim())}>
        Receive
      </Button>
    </form>
  );
}
