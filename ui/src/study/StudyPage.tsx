import { useQuery, useQueryClient } from '@tanstack/react-query';
import { getRouteApi, Link } from '@tanstack/react-router';
import { useEffect, useState } from 'react';
import { Button } from 'react-aria-components/Button';

import { post } from '../api/client';
import { study as studyOf } from '../api/queries';
import type { Label, Study, StudyImage } from '../api/records';
import { ageOf } from '../parts/about';
import { Facts } from '../parts/Facts';
import { ErrorMessage, Waiting } from '../parts/Message';
import { Thumbnail } from '../parts/Thumbnail';
import { ReportText } from './ReportText';
import { SimilarImages } from './SimilarImages';
import { Timeline } from './Timeline';

const route = getRouteApi('/study/$uid');

/** One study: its reports with what they mention, images, header, the patient's other studies, similar images. */
export function StudyPage() {
  const { uid } = route.useParams();
  const answer = useQuery(studyOf(uid));
  if (answer.isPending) return <Waiting what="Opening the study" />;
  if (answer.isError) return <ErrorMessage error={answer.error} what="This study cannot be shown" />;
  return <Opened key={uid} study={answer.data} />;
}

function Opened({ study }: { study: Study }) {
  const [asked, ask] = useState(study.images.find((image) => !image.pixel_error)?.image_id ?? '');
  // Whoever opens a study looks at its images next: the viewer is there before the click.
  useEffect(() => {
    const timer = setTimeout(() => void import('../viewer/ViewerPage'), 300);
    return () => clearTimeout(timer);
  }, []);
  return (
    <div className="study-page">
      <header>
        <h1>
          {study.study_description || 'Study'}, {study.study_date ?? 'no date'}
        </h1>
        <p className="quiet-text">
          {[study.patient_id || 'Patient unknown', study.patient_sex, ageOf(study.patient_age)]
            .filter(Boolean)
            .join(', ')}
        </p>
        <Labels study={study} />
      </header>
      <Timeline study={study} />
      <div className="columns">
        <section aria-label="Images">
          <h2>Images</h2>
          {study.images.length === 0 && <p className="quiet-text">This study has no image here.</p>}
          <ol className="images">
            {study.images.map((image) => (
              <li key={image.image_id}>
                <Thumbnail
                  imageId={image.image_id}
                  study={study.study_uid}
                  name={`Open ${nameOf(image)} in the viewer`}
                />
                <p>{nameOf(image)}</p>
                {image.pixel_error ? (
                  <p className="quiet-text">No picture: {image.pixel_error}</p>
                ) : (
                  <p className="actions">
                    <Link to="/ask" search={{ image: image.image_id }}>
                      Ask by a region
                    </Link>
                    <Button
                      className="quiet"
                      aria-pressed={asked === image.image_id}
                      onPress={() => ask(image.image_id)}
                    >
                      Similar to this
                    </Button>
                  </p>
                )}
              </li>
            ))}
          </ol>
          <Metadata study={study} />
        </section>
        <section aria-label="Reports">
          {study.reports.length === 0 && <p className="message">This study has no report here.</p>}
          {study.reports.map((report) => (
            <ReportText key={report.report_id} report={report} study={study.study_uid} />
          ))}
        </section>
      </div>
      {asked && <SimilarImages imageId={asked} />}
    </div>
  );
}

const nameOf = (image: StudyImage): string =>
  [
    image.series_description || image.modality || 'image',
    image.view_position,
    image.number_of_frames > 1 ? `frame ${image.frame + 1} of ${image.number_of_frames}` : '',
  ]
    .filter(Boolean)
    .join(', ');

function Metadata({ study }: { study: Study }) {
  const first = study.images[0];
  const rows: [string, string][] = [
    ['Patient ID', study.patient_id],
    ['Accession number', study.accession_number],
    ['Study ID', study.study_id],
    ['Body part', first?.body_part ?? ''],
    ['Manufacturer', first?.manufacturer ?? ''],
    ['Pixels', first ? `${first.columns} × ${first.rows}, ${first.bits_stored} bit` : ''],
    ['Photometric interpretation', first?.photometric_interpretation ?? ''],
    ['Transfer syntax', first?.transfer_syntax_uid ?? ''],
    ['StudyInstanceUID', study.study_uid],
    ['File', first?.path ?? ''],
  ];
  return (
    <details className="metadata">
      <summary>Header</summary>
      <dl>
        <Facts rows={rows} />
      </dl>
    </details>
  );
}

function Labels({ study }: { study: Study }) {
  const queries = useQueryClient();
  const [word, setWord] = useState('');
  const [error, setError] = useState<unknown>(null);
  const change = async (path: string, label: Label) => {
    try {
      await post(path, label);
      setError(null);
      setWord('');
      await queries.invalidateQueries();
    } catch (reason) {
      setError(reason);
    }
  };
  const own = (label: string): Label => ({ target_kind: 'study', target_id: study.study_uid, label });
  return (
    <div className="labels">
      <ul aria-label="Labels">
        {study.labels.map((label) => (
          <li key={`${label.target_kind} ${label.target_id} ${label.label}`} className="chip">
            {label.label}
            {label.target_kind !== 'study' && <span className="code">{label.target_kind}</span>}
            <Button
              className="quiet small"
              aria-label={`Remove the label ${label.label}`}
              onPress={() => void change('/labels/remove', label)}
            >
              ×
            </Button>
          </li>
        ))}
      </ul>
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (word.trim()) void change('/labels', own(word.trim()));
        }}
      >
        <label>
          <span className="hidden">New label</span>
          <input value={word} maxLength={200} placeholder="New label" onChange={(e) => setWord(e.target.value)} />
        </label>
        <Button type="submit" isDisabled={!word.trim()}>
          Add
        </Button>
      </form>
      {error !== null && <ErrorMessage error={error} what="The label was not changed" />}
    </div>
  );
}
