import { useQuery } from '@tanstack/react-query';

import { similar } from '../api/queries';
import { ErrorMessage, Waiting } from '../parts/Message';
import { VisualHits } from '../parts/VisualHits';

/** The images of the library that look most like one of its own. */
export function SimilarImages({ imageId }: { imageId: string }) {
  const answer = useQuery(similar(imageId));
  return (
    <section aria-label="Similar images" className="similar">
      <h2>Similar images</h2>
      {answer.isPending && <Waiting what="Comparing" />}
      {answer.isError && <ErrorMessage error={answer.error} what="There is nothing to compare by" />}
      {answer.isSuccess && <VisualHits answer={answer.data} />}
    </section>
  );
}
