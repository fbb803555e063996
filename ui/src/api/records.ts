/** The records of the server's answers. Offsets count code points of their text, half-open; ages are years. */

export type Assertion = 'present' | 'absent' | 'uncertain' | 'historical' | 'family' | 'hypothetical';

export interface Code {
  cui: string;
  icd10cm: string;
  title: string;
  score: number;
}

export interface Attribute {
  kind: string;
  value: string;
  text: string;
  start: number;
  end: number;
}

export interface Entity {
  text: string;
  start: number;
  end: number;
  section: string;
  category: string;
  assertion: Assertion;
  finding: string;
  cui: string;
  icd10cm: string;
  title: string;
  score: number;
  alternatives: Code[];
  cue: string;
  cue_start: number;
  cue_end: number;
  attributes: Attribute[];
  certainty: string;
  inferred: boolean;
  rule: string;
  sentence_start: number;
  sentence_end: number;
}

export interface Share {
  signal: string;
  score: number;
  rank: number;
  share: number;
}

export interface Hit {
  report_id: string | null;
  study_uid: string | null;
  image_ids: string[];
  score: number;
  snippet: string;
  highlights: [number, number][];
  entities: Entity[];
  shares: Share[];
  study_date: string | null;
  patient_id: string;
}

export interface Facet {
  code: string;
  title: string;
  present: number;
  absent: number;
  uncertain: number;
  not_mentioned: number;
}

export interface Bucket {
  value: string;
  count: number;
}

export interface Facets {
  icd10cm: Facet[];
  finding: Facet[];
  modality: Bucket[];
  view: Bucket[];
  body: Bucket[];
  sex: Bucket[];
  age: Bucket[];
  year: Bucket[];
  label: Bucket[];
}

export interface SearchPage {
  total: number;
  hits: Hit[];
  facets: Partial<Facets>;
  notes: string[];
  next: string;
}

export interface Completion {
  kind: string;
  text: string;
  start: number;
  help: string;
  count: number;
}

export interface VisualHit {
  image_id: string;
  score: number;
  study_uid: string;
  report_id: string | null;
  modality: string;
  view_position: string;
  study_date: string | null;
  impression: string;
  expected: number | null;
  /** Where a region was asked by: the most like one, [x, y, width, height] in pixels of an image of this `size`. */
  region: [number, number, number, number] | null;
  size: [number, number] | null;
}

export interface VisualAnswer {
  query: string;
  model_id: string;
  nothing_close: boolean;
  expected: number | null;
  chance: number | null;
  notes: string[];
  hits: VisualHit[];
}

export interface StudyImage {
  image_id: string;
  series_uid: string;
  sop_instance_uid: string;
  frame: number;
  number_of_frames: number;
  instance_number: number | null;
  modality: string;
  view_position: string;
  rows: number;
  columns: number;
  bits_stored: number;
  photometric_interpretation: string;
  transfer_syntax_uid: string;
  pixel_error: string;
  path: string;
  series_number: number | null;
  series_description: string;
  body_part: string;
  laterality: string;
  manufacturer: string;
}

export interface SectionSpan {
  name: string;
  start: number;
  end: number;
}

export interface Report {
  report_id: string;
  text: string;
  spans: SectionSpan[];
  entities: Entity[];
  language: string;
  path: string;
}

export interface StudySummary {
  study_uid: string;
  study_date: string | null;
  study_description: string;
  modalities: string[];
  images: number;
  reports: number;
}

export interface Label {
  target_kind: 'study' | 'series' | 'image' | 'report';
  target_id: string;
  label: string;
}

export interface Study {
  study_uid: string;
  patient_id: string;
  patient_sex: string;
  patient_age: number | null;
  accession_number: string;
  study_id: string;
  study_date: string | null;
  study_description: string;
  images: StudyImage[];
  reports: Report[];
  labels: Label[];
  others: StudySummary[];
}

export interface Status {
  version: string;
  path: string;
  totals: Record<string, number>;
  /** Bytes by part of the library; "free" is what is left on its disk. */
  disk: Record<string, number>;
  model_id: string;
  waiting_images: number;
  terminology: string;
}

export interface Source {
  path: string;
  online: boolean;
  files: number;
}

export interface Failure {
  path: string;
  reason: string;
}

export interface FailurePage {
  total: number;
  failures: Failure[];
  next: string;
}

export type JobState = 'waiting' | 'running' | 'done' | 'failed' | 'stopped';

export interface Progress {
  stage: string;
  total: number;
  settled: number;
  left: number;
  images: number;
  reports: number;
  failed: number;
  /** Files a second. */
  rate: number;
}

/** An ingest; times are Unix seconds, 0 for not yet. */
export interface Job {
  job_id: string;
  kind: 'ingest' | 'retry';
  state: JobState;
  paths: string[];
  metadata_only: boolean;
  created: number;
  started: number;
  ended: number;
  progress: Progress | null;
  summary: Record<string, unknown> | null;
  error: { kind: string; message: string; item?: string; remedy?: string } | null;
}

export interface Model {
  model_id: string;
  registered: boolean;
  role: string;
  vectors: number;
}

export interface ModelList {
  models: Model[];
  problems: { message: string; item?: string; remedy?: string }[];
  switch: {
    model_id: string;
    running: boolean;
    progress: { total: number; settled: number };
    error: { message: string } | null;
  } | null;
}
