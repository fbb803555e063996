import { useQuery } from '@tanstack/react-query';
import { useNavigate } from '@tanstack/react-router';

import { facetsOf, similar } from '../api/queries';
import { ErrorMessage, Waiting } from '../parts/Message';
import { VisualHits } from '../parts/VisualHits';
import { Charts } from '../search/Charts';

/** The images of the library that look most like one of its own, and what their reports say. */
export function SimilarImages({ imageId }: { imageId: string }) {
  const answer = useQuery(similar(imageId));
  const reports = [...new Set(answer.data?.hits.flatMap((hit) => (hit.report_id === null ? [] : [hit.report_id])))];
  return (
    <section aria-label="Similar images" className="similar">
      <h2>Similar images</h2>
      {answer.isPending && <Waiting what="Comparing" />}
      {answer.isError && <ErrorMessage error={answer.error} what="There is nothing to compare by" />}
      {answer.isSuccess && <VisualHits answer={answer.data} />}
      {reports.length > 0 && <Neighbours reports={reports} />}
    </section>
  );
}

function Neighbours({ reports }: { reports: string[] }) {
  const navigate = useNavigate();
  const question = reports.map((id) => `report:"${id.replaceAll('"', ' ')}"`).join(' OR ');
  const counted = useQuery(facetsOf(question));
  if (!counted.isSuccess) return null;
  return (
    <>
      <h2>What the reports of these {reports.length} studies say</h2>
      <Charts
        codes={counted.data.icd10cm ?? []}
        chosen={[]}
        onChange={(f) => void navigate({ to: '/', search: { q: question, f } })}
      />
    </>
  );
}
