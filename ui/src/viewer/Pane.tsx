import { useEffect, useRef, useState } from 'react';

import { thumbnailOf } from '../api/queries';
import { ErrorMessage } from '../parts/Message';
import { openPane, type PaneId, type PaneState, showStack } from './panes';
import type { Stack } from './stack';

interface Properties {
  id: PaneId;
  name: string;
  stack: Stack;
  overlays: boolean;
  active: boolean;
  onActive: () => void;
  onState: (state: PaneState) => void;
  lines: string[];
}

/** One image, or a stack of them, with what is said at its corners. */
export function Pane({ id, name, stack, overlays, active, onActive, onState, lines }: Properties) {
  const element = useRef<HTMLDivElement>(null);
  const tell = useRef(onState);
  const [state, setState] = useState<PaneState | null>(null);
  const [error, setError] = useState<unknown>(null);
  // The thumbnail stands in for the first image while that is on its way.
  const [drawn, setDrawn] = useState<string | null>(null);
  useEffect(() => {
    tell.current = onState;
  }, [onState]);
  useEffect(() => {
    if (element.current === null) return;
    return openPane(id, element.current, (now) => {
      setState(now);
      tell.current(now);
    });
  }, [id]);
  useEffect(() => {
    let over = false;
    showStack(id, stack).then(
      () => {
        if (!over) setError(null);
      },
      (reason: unknown) => {
        if (!over) setError(reason);
      },
    );
    return () => {
      over = true;
    };
  }, [id, stack]);
  const awaited = stack.places[stack.index];
  const previewed = awaited !== undefined && awaited.imageId === drawn;
  const waiting = previewed ? 'a preview; full depth is loading' : 'loading';
  const text = state === null ? waiting : describe(state);
  return (
    <section
      className={`pane ${active ? 'active' : ''} ${overlays ? '' : 'bare'}`}
      aria-label={name}
      data-state={state !== null ? 'shown' : previewed ? 'preview' : 'loading'}
      onPointerDownCapture={onActive}
      onFocus={onActive}
    >
      {/* The image takes the focus, so that arrows move it and not the page. */}
      <div
        className="image"
        ref={element}
        tabIndex={0}
        role="img"
        aria-label={`${name}: ${text}`}
        onContextMenu={(event) => event.preventDefault()}
      />
      {state === null && error === null && awaited !== undefined && (
        <img
          className="preview"
          src={thumbnailOf(awaited.imageId)}
          alt=""
          hidden={!previewed}
          onLoad={() => setDrawn(awaited.imageId)}
        />
      )}
      {overlays && (
        <p className="corner top-left" aria-hidden="true">
          {lines.map((line) => (
            <span key={line}>{line}</span>
          ))}
        </p>
      )}
      {/* What is not the image itself always says so. */}
      {(overlays || state === null) && (
        <p className="corner bottom-left" aria-hidden="true">
          {text}
        </p>
      )}
      {error !== null && (
        <div className="over">
          <ErrorMessage error={error} what="This image cannot be shown" />
        </div>
      )}
    </section>
  );
}

function describe({ window, zoom, index, count, inverted, frame }: PaneState): string {
  const parts = [
    `Window ${Math.round(window.center)} / ${Math.round(window.width)}`,
    `${Math.round(zoom * 100)} %`,
    `${frame.columns} × ${frame.rows}, ${frame.bitsStored} bit`,
  ];
  if (count > 1) parts.push(`${index + 1} of ${count}`);
  if (inverted) parts.push('inverted');
  if (frame.atDetector) parts.push('lengths are those at the detector');
  return parts.join(', ');
}
