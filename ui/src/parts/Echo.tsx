import { useState } from 'react';
import { Button } from 'react-aria-components/Button';

import { post } from '../api/client';
import type { Echoed } from '../api/sending';
import { ErrorMessage } from './Message';

/** A button that asks a station whether it is there, and its answer. */
export function Echo({ name, of = '' }: { name: string; of?: string }) {
  const [answer, setAnswer] = useState<Echoed | 'asking' | null>(null);
  const [error, setError] = useState<unknown>(null);
  const ask = async () => {
    setAnswer('asking');
    setError(null);
    try {
      setAnswer(await post<Echoed>('/stations/echo', { name }));
    } catch (reason) {
      setAnswer(null);
      setError(reason);
    }
  };
  return (
    <>
      <span className="actions">
        <Button
          aria-label={of ? `Ask whether ${of} is there` : undefined}
          onPress={() => {
            // A button that is disabled would lose the focus to nothing.
            if (answer !== 'asking') void ask();
          }}
        >
          Is it there?
        </Button>
        <span role="status">
          {answer === 'asking' ? 'Asking …' : answer !== null ? `It answers, after ${answer.seconds.toFixed(2)} s` : ''}
        </span>
      </span>
      {error !== null && <ErrorMessage error={error} what="It does not answer" />}
    </>
  );
}
