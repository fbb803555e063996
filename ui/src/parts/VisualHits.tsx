import { Link } from '@tanstack/react-router';

import type { VisualAnswer, VisualHit } from '../api/records';
import { aboutOf } from './about';
import { Thumbnail } from './Thumbnail';

const percent = (share: number): string => `${Math.round(100 * share)} %`;

/** The nearest images, best first, with their score and, where it was measured, what that score is worth here. */
export function VisualHits({ answer }: { answer: VisualAnswer }) {
  const byRegion = answer.hits.some((hit) => hit.region !== null);
  return (
    <>
      {answer.nothing_close && (
        <p className="message" role="status">
          {byRegion
            ? 'Nothing close: the image of this region is, as a whole, unlike the images of this library.'
            : 'Nothing close: the best of these is further than images of this library are apart, or matches by chance.'}
        </p>
      )}
      {answer.expected !== null && answer.chance !== null && (
        <p>
          Of images at these scores {percent(answer.expected)} share a finding with the one that was asked by; of any
          two images {percent(answer.chance)} do.
        </p>
      )}
      {byRegion && (
        <p className="quiet-text">
          The box shows the most like region of each image. The score says by how many standard deviations the image
          stands out from the average of this library; what that is worth here is not known.
        </p>
      )}
      {answer.expected === null && !byRegion && (
        <p className="quiet-text">
          The score is the cosine of two images’ vectors. What it is worth here is not known for this question.
        </p>
      )}
      {answer.notes.map((note) => (
        <p key={note} className="message">
          {note}
        </p>
      ))}
      <ol className="wall" aria-label="Nearest images">
        {answer.hits.map((hit, index) => (
          <li key={hit.image_id}>
            <Thumbnail
              imageId={hit.image_id}
              study={hit.study_uid}
              name={`Nearest image ${index + 1}`}
              region={hit.region}
              size={hit.size}
            />
            <Worth hit={hit} />
            <Link to="/study/$uid" params={{ uid: hit.study_uid }}>
              {hit.modality} {hit.view_position} {hit.study_date ?? ''}
            </Link>
            <p className="about">{aboutOf({ ...hit, modalities: hit.modalities.length > 1 ? hit.modalities : [] })}</p>
            <p className="impression">{hit.impression}</p>
          </li>
        ))}
      </ol>
    </>
  );
}

function Worth({ hit }: { hit: VisualHit }) {
  return (
    <p className="worth">
      score {hit.score.toFixed(hit.region === null ? 3 : 2)}
      {hit.expected !== null && (
        <>
          {', '}
          <meter min={0} max={1} value={hit.expected} aria-label="Share of such images with a finding in common" />{' '}
          {percent(hit.expected)}
        </>
      )}
    </p>
  );
}
