import { useQuery } from '@tanstack/react-query';
import { getRouteApi, Link } from '@tanstack/react-router';
import { useEffect, useState } from 'react';
import { Button } from 'react-aria-components/Button';

import { study as studyOf } from '../api/queries';
import type { Label, Study, StudyImage } from '../api/records';
import { ageOf } from '../parts/about';
import { AddToList } from '../parts/AddToList';
import { Facts } from '../parts/Facts';
import { Labels } from '../parts/Labels';
import { ErrorMessage, Waiting } from '../parts/Message';
import { SendTo } from '../parts/SendTo';
import { Thumbnail } from '../parts/Thumbnail';
import { ReportText } from './ReportText';
import { SimilarImages } from './SimilarImages';
import { Timeline } from './Timeline';
import { Withdrawn } from './Versions';

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
        <Labels
          kind="study"
          id={study.study_uid}
          labels={study.labels.filter((each) => each.target_kind === 'study' || each.target_kind === 'report')}
        />
        <p className="actions">
          <AddToList kind="study" id={study.study_uid} of="this study" />
          {study.images.length > 0 && <SendTo what={{ studies: [study.study_uid] }} of="this study" />}
        </p>
      </header>
      <Timeline study={study} />
      <div className="columns">
        <section aria-label="Images">
          <h2>Images</h2>
          {study.images.length === 0 && <p className="quiet-text">This study has no image here.</p>}
          <ol className="images">
            {study.images.map((image, index) => (
              <li key={image.image_id}>
                <Thumbnail
                  imageId={image.image_id}
                  study={study.study_uid}
                  name={`Open ${nameOf(image)} in the viewer`}
                />
                <p>{nameOf(image)}</p>
                <Labels
                  kind="image"
                  id={image.image_id}
                  labels={labelsOf(study, image.image_id)}
                  of={`image ${index + 1}`}
                />
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
                    <AddToList kind="image" id={image.image_id} of={`image ${index + 1}`} />
                    <SendTo what={{ images: [image.image_id] }} of={`image ${index + 1}`} />
                  </p>
                )}
              </li>
            ))}
          </ol>
          <Series study={study} />
          <Metadata study={study} />
        </section>
        <section aria-label="Reports">
          {study.reports.length === 0 && study.withdrawn.length === 0 && (
            <p className="message">This study has no report here.</p>
          )}
          {study.reports.map((report) => (
            <ReportText key={report.report_id} report={report} study={study.study_uid} />
          ))}
          {study.withdrawn.map((note) => (
            <Withdrawn key={note.report_id} note={note} />
          ))}
        </section>
      </div>
      {asked && <SimilarImages imageId={asked} />}
    </div>
  );
}

/** The labels of a series or an image of a study. */
const labelsOf = (study: Study, id: string): Label[] => study.labels.filter((each) => each.target_id === id);

/** The series of a study with their labels. */
function Series({ study }: { study: Study }) {
  const counts = new Map<string, number>();
  for (const { series_uid: uid } of study.images) counts.set(uid, (counts.get(uid) ?? 0) + 1);
  return (
    <section aria-label="Series" className="series">
      <h2>Series</h2>
      <ol>
        {[...counts].map(([uid, count], index) => {
          const first = study.images.find((image) => image.series_uid === uid);
          return (
            <li key={uid}>
              <p>
                {index + 1}. {[first?.series_description, first?.modality].filter(Boolean).join(', ') || 'series'},{' '}
                {count} {count === 1 ? 'image' : 'images'}
              </p>
              <Labels kind="series" id={uid} labels={labelsOf(study, uid)} of={`series ${index + 1}`} />
              <SendTo what={{ series: [uid] }} of={`series ${index + 1}`} />
            </li>
          );
        })}
      </ol>
    </section>
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
