import { Link } from '@tanstack/react-router';
import { useState } from 'react';

import { thumbnailOf } from '../api/queries';

interface Properties {
  imageId: string;
  study: string | null;
  /** What a screen reader says, and what stands where there is no picture. */
  name: string;
  /** A box to draw over the picture, [x, y, width, height] in pixels of an image of `size`. */
  region?: [number, number, number, number] | null;
  size?: [number, number] | null;
}

/** A small picture that opens the image in the viewer. */
export function Thumbnail({ imageId, study, name, region = null, size = null }: Properties) {
  const [missing, setMissing] = useState(false);
  return (
    <Link
      className="thumbnail"
      preload="intent"
      to="/view"
      search={{ study: study ?? undefined, image: imageId }}
      aria-label={name}
    >
      {missing ? (
        <span className="blank">no picture</span>
      ) : (
        <img src={thumbnailOf(imageId)} alt="" loading="lazy" decoding="async" onError={() => setMissing(true)} />
      )}
      {!missing && region !== null && size !== null && (
        <svg className="found" viewBox={`0 0 ${size[0]} ${size[1]}`} aria-hidden="true">
          <rect x={region[0]} y={region[1]} width={region[2]} height={region[3]} />
        </svg>
      )}
    </Link>
  );
}
