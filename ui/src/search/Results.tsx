import { Link } from '@tanstack/react-router';
import { Button } from 'react-aria-components/Button';

import type { Hit } from '../api/records';
import { aboutOf } from '../parts/about';
import { AddToList } from '../parts/AddToList';
import { ASSERTION_MARKS, ASSERTION_NAMES, statedCodes } from '../parts/mention';
import { SendTo } from '../parts/SendTo';
import { Thumbnail } from '../parts/Thumbnail';
import { pieces } from '../text/spans';
import { writeChoice } from './question';

interface Properties {
  hits: Hit[];
  onChoose: (choice: string) => void;
}

const MOST_PICTURES = 4;
const MOST_CODES = 10;

/** Answers as rows: what the report says, its images, the codes that it states. */
export function Rows({ hits, onChoose }: Properties) {
  return (
    <ol className="rows" aria-label="Results">
      {hits.map((hit) => (
        <li key={keyOf(hit)}>
          <Row hit={hit} onChoose={onChoose} />
        </li>
      ))}
    </ol>
  );
}

function Row({ hit, onChoose }: { hit: Hit; onChoose: (choice: string) => void }) {
  const more = hit.image_ids.length - MOST_PICTURES;
  return (
    <article className="row">
      <div className="pictures">
        {hit.image_ids.slice(0, MOST_PICTURES).map((id, index) => (
          <Thumbnail key={id} imageId={id} study={hit.study_uid} name={`Image ${index + 1} of ${titleOf(hit)}`} />
        ))}
        {more > 0 && <span className="more">+{more}</span>}
        {hit.image_ids.length === 0 && <span className="blank">no image</span>}
      </div>
      <div className="said">
        <h3>
          {hit.study_uid ? (
            <Link to="/study/$uid" params={{ uid: hit.study_uid }}>
              {titleOf(hit)}
            </Link>
          ) : (
            titleOf(hit)
          )}
          {hit.report_id && <span className="id"> {hit.report_id}</span>}
          {hit.shares.length > 1 && (
            <span className="shares">
              {hit.shares.map((share) => `${share.signal} ${Math.round(100 * share.share)} %`).join(', ')}
            </span>
          )}
        </h3>
        <About hit={hit} />
        <p className="snippet">{hit.snippet ? <Snippet hit={hit} /> : 'No report'}</p>
        <Codes hit={hit} onChoose={onChoose} />
        {hit.study_uid && (
          <p className="actions">
            <AddToList kind="study" id={hit.study_uid} of={titleOf(hit)} />
            {hit.image_ids.length > 0 && <SendTo what={{ studies: [hit.study_uid] }} of={titleOf(hit)} />}
          </p>
        )}
      </div>
    </article>
  );
}

function About({ hit }: { hit: Hit }) {
  const about = aboutOf(hit);
  return about ? <p className="about">{about}</p> : null;
}

function Snippet({ hit }: { hit: Hit }) {
  const spans = hit.highlights.map(([start, end]) => ({ start, end, value: true }));
  return pieces(hit.snippet, spans).map((piece) =>
    piece.values.length > 0 ? <mark key={piece.start}>{piece.text}</mark> : piece.text,
  );
}

function Codes({ hit, onChoose }: { hit: Hit; onChoose: (choice: string) => void }) {
  const stated = statedCodes(hit.entities);
  return (
    <ul className="codes">
      {stated.slice(0, MOST_CODES).map((entity) => (
        <li key={entity.icd10cm}>
          <Button
            className={`chip ${entity.assertion}`}
            aria-label={`${entity.title}, ${entity.icd10cm}, ${ASSERTION_NAMES[entity.assertion]}: narrow the search to it`}
            onPress={() => onChoose(writeChoice({ key: entity.assertion, value: entity.icd10cm }))}
          >
            <span aria-hidden="true" className="mark">
              {ASSERTION_MARKS[entity.assertion]}
            </span>
            <span className="title">{entity.title || entity.text}</span>
            <span className="code">{entity.icd10cm}</span>
          </Button>
        </li>
      ))}
      {stated.length > MOST_CODES && <li className="more">and {stated.length - MOST_CODES} more</li>}
    </ul>
  );
}

/** Answers as a wall of their images. */
export function Wall({ hits }: { hits: Hit[] }) {
  return (
    <ol className="wall" aria-label="Results">
      {hits.flatMap((hit) =>
        hit.image_ids.map((id, index) => (
          <li key={id}>
            <Thumbnail imageId={id} study={hit.study_uid} name={`Image ${index + 1} of ${titleOf(hit)}`} />
            {hit.study_uid && (
              <Link to="/study/$uid" params={{ uid: hit.study_uid }} className="below">
                {titleOf(hit)}
              </Link>
            )}
            <About hit={hit} />
          </li>
        )),
      )}
    </ol>
  );
}

const keyOf = (hit: Hit): string => `${hit.report_id ?? ''} ${hit.study_uid ?? ''}`;

const titleOf = (hit: Hit): string =>
  [hit.patient_id || (hit.study_uid ? 'Patient unknown' : 'Report without a study'), hit.study_date ?? 'no date']
    .filter(Boolean)
    .join(', ');
