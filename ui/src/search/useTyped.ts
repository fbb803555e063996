import { useEffect, useState } from 'react';

// Long enough that a word is not asked for letter by letter, short enough to seem at once.
const PAUSE_MS = 120;

/**
 * What is typed, ahead of `settled`, what the address holds; `settle` is called once the typing pauses.
 *
 * A change of `settled` from elsewhere (back, forward, a bookmark) replaces what is typed; the echo of
 * what was settled here does not, as more may have been typed meanwhile.
 */
export function useTyped(settled: string, settle: (text: string) => void): [string, (text: string) => void] {
  const [typed, setTyped] = useState(settled);
  const [sent, setSent] = useState(settled);
  const [seen, setSeen] = useState(settled);
  if (settled !== seen) {
    setSeen(settled);
    if (settled !== sent) {
      setSent(settled);
      setTyped(settled);
    }
  }
  useEffect(() => {
    if (typed === sent) return;
    const timer = setTimeout(() => {
      setSent(typed);
      settle(typed);
    }, PAUSE_MS);
    return () => clearTimeout(timer);
  }, [typed, sent, settle]);
  return [typed, setTyped];
}
