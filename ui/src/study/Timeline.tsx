import { Link } from '@tanstack/react-router';

import type { Study, StudySummary } from '../api/records';

/** The patient's studies in the order of time, this one among them. */
export function Timeline({ study }: { study: Study }) {
  if (study.others.length === 0) return null;
  const here: StudySummary = {
    study_uid: study.study_uid,
    study_date: study.study_date,
    study_description: study.study_description,
    modalities: [...new Set(study.images.map((image) => image.modality))],
    images: study.images.length,
    reports: study.reports.length,
  };
  const all = [...study.others, here].sort((a, b) => (a.study_date ?? '').localeCompare(b.study_date ?? ''));
  return (
    <nav className="timeline" aria-label="Studies of this patient">
      <ol>
        {all.map((each) => (
          <li key={each.study_uid}>
            <Link
              to="/study/$uid"
              params={{ uid: each.study_uid }}
              aria-current={each.study_uid === study.study_uid ? 'page' : undefined}
            >
              <strong>{each.study_date ?? 'no date'}</strong>
              <span>{each === here ? 'this study' : distance(study.study_date, each.study_date)}</span>
              <span>{each.study_description || each.modalities.join(', ') || 'study'}</span>
              <span className="quiet-text">
                {counted(each.images, 'image')}, {counted(each.reports, 'report')}
              </span>
            </Link>
          </li>
        ))}
      </ol>
    </nav>
  );
}

const DAY_MS = 86_400_000;

/** How far `other` lies from `here`, as one says it. */
export function distance(here: string | null, other: string | null): string {
  if (here === null || other === null) return '';
  const days = Math.round((Date.parse(other) - Date.parse(here)) / DAY_MS);
  if (days === 0) return 'same day';
  const size = Math.abs(days);
  const text =
    size < 60 ? `${size} d` : size < 730 ? `${Math.round(size / 30.4)} mo` : `${Math.round(size / 365.25)} y`;
  return days < 0 ? `${text} before` : `${text} after`;
}

const counted = (count: number, what: string): string => `${count} ${what}${count === 1 ? '' : 's'}`;
