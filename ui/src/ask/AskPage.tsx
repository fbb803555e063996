import '../style/ask.css';

import { useQuery } from '@tanstack/react-query';
import { getRouteApi } from '@tanstack/react-router';
import { useCallback, useEffect, useState } from 'react';
import { Button } from 'react-aria-components/Button';
import { DropZone } from 'react-aria-components/DropZone';
import { FileTrigger } from 'react-aria-components/FileTrigger';

import { outside, similar } from '../api/queries';
import { ErrorMessage, Waiting } from '../parts/Message';
import { VisualHits } from '../parts/VisualHits';
import { frameRoute } from '../viewer/frames';
import { preview } from './preview';
import { readRegion } from './region';
import { RegionPicker } from './RegionPicker';

const route = getRouteApi('/ask');
const NEAREST = 24;

/** A file that is asked by; it stays in this window. `number` tells files apart for as long as the window is open. */
interface Outside {
  file: File;
  number: number;
}
let files = 0;

/** Ask by an image: one of the library or from outside, the whole or a region of it. */
export function AskPage() {
  const { image, roi = '', where = '' } = route.useSearch();
  const navigate = route.useNavigate();
  const [given, setGiven] = useState<Outside | null>(null);
  const [filter, setFilter] = useState(where);
  const region = readRegion(roi) === null ? '' : roi;

  const take = useCallback(
    (file: File) => {
      files += 1;
      setGiven({ file, number: files });
      void navigate({ search: (before) => ({ where: before.where }) });
    },
    [navigate],
  );
  useEffect(() => {
    const pasted = (event: ClipboardEvent) => {
      const file = event.clipboardData?.files[0];
      if (file !== undefined) {
        event.preventDefault();
        take(file);
      }
    };
    document.addEventListener('paste', pasted);
    return () => document.removeEventListener('paste', pasted);
  }, [take]);

  // An image of the address is asked by before a file that was given earlier.
  const file = image === undefined ? given : null;
  const inside = useQuery({
    ...similar(image ?? '', { k: NEAREST, roi: region, where }),
    enabled: image !== undefined,
  });
  const fromOutside = useQuery({
    ...outside(file?.file ?? null, file?.number ?? 0, { k: NEAREST, roi: region, where }),
    enabled: file !== null,
  });
  const shown = useQuery({ ...preview(file?.file ?? null, file?.number ?? 0), enabled: file !== null });
  const answer = image !== undefined ? inside : fromOutside;
  const asked = image !== undefined || file !== null;

  return (
    <div className="page ask-page">
      <h1>Ask by image</h1>
      <DropZone
        className="drop"
        aria-label="Drop an image here"
        onDrop={(event) => {
          const item = event.items.find((each) => each.kind === 'file');
          if (item?.kind === 'file') void item.getFile().then(take);
        }}
      >
        <p>
          Drop or paste a DICOM, PNG or JPEG file, or{' '}
          <FileTrigger
            onSelect={(files) => {
              const first = files?.[0];
              if (first !== undefined) take(first);
            }}
          >
            <Button>choose one</Button>
          </FileTrigger>
          . It is looked at and forgotten: nothing is imported.
        </p>
      </DropZone>
      {asked && (
        <div className="columns">
          <section aria-label="The question">
            {file !== null && <p>{file.file.name}</p>}
            {file !== null && shown.isPending && <Waiting what="Drawing the picture" />}
            {file !== null && shown.isError && <ErrorMessage error={shown.error} what="The file cannot be shown" />}
            {(image !== undefined || shown.isSuccess) && (
              <RegionPicker
                key={image ?? file?.number}
                source={image === undefined ? (shown.data?.address ?? '') : frameRoute(image, undefined, 'png')}
                whole={image === undefined ? shown.data : undefined}
                region={region}
                onChange={(text) =>
                  void navigate({ search: (before) => ({ ...before, roi: text || undefined }), resetScroll: false })
                }
              />
            )}
            <form
              onSubmit={(event) => {
                event.preventDefault();
                void navigate({ search: (before) => ({ ...before, where: filter.trim() || undefined }) });
              }}
            >
              <label>
                Only images that match
                <input value={filter} placeholder="view:PA sex:F" onChange={(event) => setFilter(event.target.value)} />
              </label>
              <Button type="submit">Ask</Button>
            </form>
            <p className="quiet-text">
              How it works: without a region, the vectors of whole images are compared. With one, its most striking
              points are compared with the 64 most striking points of every image, wherever they lie; the larger the
              region, the more the whole image counts besides. Meant for small marks such as a nodule or a line, drawn
              in the middle of the region; for a hazy patch asking without one finds more. It was shown to work on
              synthetic films; on real ones it is not proven to find more than whole images do.
            </p>
          </section>
          <section aria-label="The answer" aria-busy={answer.isFetching}>
            <h2>{region ? 'Images like this region' : 'Images like this one'}</h2>
            {answer.isPending && <Waiting what="Comparing" />}
            {answer.isError && <ErrorMessage error={answer.error} what="There is no answer" />}
            {answer.isSuccess && <VisualHits answer={answer.data} />}
          </section>
        </div>
      )}
    </div>
  );
}
