import { Link } from '@tanstack/react-router';
import { useState } from 'react';

import { thumbnailOf } from '../api/queries';

interface Properties {
  imageId: string;
  study: string | null;
  /** What a screen reader says, and what stands where there is no picture. */
  name: string;
}

/** A small picture that opens the image in the viewer. */
export function Thumbnail({ imageId, study, name }: Properties) {
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
    </Link>
  );
}
