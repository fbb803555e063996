import { scaleLinear } from '@visx/scale';
import { Bar } from '@visx/shape';
import { ToggleButton } from 'react-aria-components/ToggleButton';

import type { Facet } from '../api/records';
import { STATE_MARKS, STATE_NAMES, toggle, writeChoice } from './question';

interface Properties {
  codes: Facet[];
  chosen: string[];
  onChange: (chosen: string[]) => void;
}

const MOST = 8;
const WIDTH = 100;
const HEIGHT = 6;

/** The codes that the answers state most, present and ruled out: two bar charts of which each bar is a filter. */
export function Charts(properties: Properties) {
  return (
    <div className="charts">
      <Chart state="present" title="Codes present" {...properties} />
      <Chart state="absent" title="Codes ruled out" {...properties} />
    </div>
  );
}

function Chart({ state, title, codes, chosen, onChange }: Properties & { state: 'present' | 'absent'; title: string }) {
  const rows = codes
    .filter((row) => row[state] > 0)
    .sort((a, b) => b[state] - a[state])
    .slice(0, MOST);
  const scale = scaleLinear({ domain: [0, Math.max(1, ...rows.map((row) => row[state]))], range: [0, WIDTH] });
  return (
    <section className={`chart ${state}`} aria-label={title}>
      <h2>
        <span aria-hidden="true">{STATE_MARKS[state]} </span>
        {title}
      </h2>
      {rows.length === 0 && <p className="none">none</p>}
      <ol>
        {rows.map((row) => (
          <li key={row.code}>
            <ToggleButton
              className="bar"
              aria-label={`${row.title}, ${row.code}, ${STATE_NAMES[state]}: ${row[state]}`}
              isSelected={chosen.includes(writeChoice({ key: state, value: row.code }))}
              onChange={() => onChange(toggle(chosen, { key: state, value: row.code }))}
            >
              <span className="title" title={row.title}>
                {row.title}
              </span>
              <span className="count">{row[state]}</span>
              <svg viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
                <Bar className="track" width={WIDTH} height={HEIGHT} />
                <Bar className="length" width={scale(row[state])} height={HEIGHT} />
              </svg>
            </ToggleButton>
          </li>
        ))}
      </ol>
    </section>
  );
}
