import { useState } from 'react';
import { Button } from 'react-aria-components/Button';

interface Properties {
  /** What is removed, as a person reads it. */
  what: string;
  onSure: () => void;
}

/** Removes something once it was asked whether it should. */
export function Sure({ what, onSure }: Properties) {
  const [asked, setAsked] = useState(false);
  if (!asked) {
    return (
      <Button aria-label={`Remove ${what}`} onPress={() => setAsked(true)}>
        Remove
      </Button>
    );
  }
  return (
    <>
      <Button autoFocus aria-label={`Remove ${what} for good`} onPress={onSure}>
        Remove for good
      </Button>
      <Button aria-label={`Keep ${what}`} onPress={() => setAsked(false)}>
        Keep
      </Button>
    </>
  );
}
