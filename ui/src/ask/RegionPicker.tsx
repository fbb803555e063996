import { type PointerEvent, useRef, useState } from 'react';

import { between, readRegion, type Region, type Size, writeRegion } from './region';

interface Properties {
  source: string;
  /** The size in which the region is given, where the picture is a smaller one of the image. */
  whole?: Size | undefined;
  region: string;
  onChange: (region: string) => void;
}

const PARTS = [
  ['x', 'Left'],
  ['y', 'Top'],
  ['width', 'Width'],
  ['height', 'Height'],
] as const;

/** An image on which a rectangle can be drawn, by the mouse or by numbers. */
export function RegionPicker({ source, whole, region, onChange }: Properties) {
  const [size, setSize] = useState<Size | null>(null);
  const [drawn, setDrawn] = useState<Region | null>(null);
  const corner = useRef<[number, number] | null>(null);
  const shown = drawn ?? readRegion(region);
  const at = (event: PointerEvent<SVGSVGElement>): [number, number] => {
    const box = event.currentTarget.getBoundingClientRect();
    const scale = (size?.width ?? 1) / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  };
  const change = (part: keyof Region, value: number) => {
    if (size === null) return;
    const now = shown ?? { x: 0, y: 0, width: size.width, height: size.height };
    const next = { ...now, [part]: value };
    const kept = between([next.x, next.y], [next.x + next.width, next.y + next.height], size);
    onChange(kept === null ? '' : writeRegion(kept));
  };
  return (
    <div className="region">
      <div className="canvas">
        <img
          src={source}
          alt="The image to ask by"
          draggable={false}
          onLoad={(event) =>
            setSize(whole ?? { width: event.currentTarget.naturalWidth, height: event.currentTarget.naturalHeight })
          }
        />
        {size !== null && (
          <svg
            viewBox={`0 0 ${size.width} ${size.height}`}
            aria-hidden="true"
            data-testid="region"
            onPointerDown={(event) => {
              if (event.button !== 0) return;
              event.currentTarget.setPointerCapture(event.pointerId);
              corner.current = at(event);
            }}
            onPointerMove={(event) => {
              if (corner.current !== null) setDrawn(between(corner.current, at(event), size));
            }}
            onPointerUp={(event) => {
              const last = corner.current === null ? null : between(corner.current, at(event), size);
              corner.current = null;
              setDrawn(null);
              // A press without a way is no rectangle.
              if (last !== null && last.width > 4 && last.height > 4) onChange(writeRegion(last));
            }}
          >
            {shown !== null && <rect {...shown} vectorEffect="non-scaling-stroke" />}
          </svg>
        )}
      </div>
      <fieldset className="numbers">
        <legend>Region, in pixels</legend>
        {PARTS.map(([part, name]) => (
          <label key={part}>
            {name}
            <input
              type="number"
              min={part === 'x' || part === 'y' ? 0 : 1}
              max={part === 'x' || part === 'width' ? size?.width : size?.height}
              disabled={size === null}
              value={shown?.[part] ?? ''}
              onChange={(event) => change(part, event.target.valueAsNumber || 0)}
            />
          </label>
        ))}
        <button type="button" disabled={shown === null} onClick={() => onChange('')}>
          Whole image
        </button>
      </fieldset>
    </div>
  );
}
