/** The records of the server's answers, as its description has them: `npm run types` makes `schema.ts` of it. */

import type { components } from './schema';

type Schemas = components['schemas'];

export type Assertion = Schemas['Assertion'];
export type Bucket = Schemas['Bucket'];
export type Completion = Schemas['Completion'];
export type Completions = Schemas['Completions'];
export type Entity = Schemas['Entity'];
export type ErrorBody = Schemas['ErrorBody'];
export type Facet = Schemas['Facet'];
export type Facets = Schemas['Facets'];
export type FailurePage = Schemas['FailurePage'];
export type HealthAnswer = Schemas['HealthAnswer'];
export type Hit = Schemas['Hit'];
export type Job = Schemas['Job'];
export type JobList = Schemas['JobList'];
export type Label = Schemas['Label'];
export type ModelList = Schemas['ModelList'];
export type Progress = Schemas['Progress'];
export type Receiver = Schemas['Receiver'];
export type Report = Schemas['Report'];
export type SearchPage = Schemas['SearchPage'];
export type Source = Schemas['Source'];
export type SourceList = Schemas['SourceList'];
export type Status = Schemas['Status'];
export type Study = Schemas['Study'];
export type StudyImage = Schemas['StudyImage'];
export type StudySummary = Schemas['StudySummary'];
export type VisualAnswer = Schemas['VisualAnswer'];
export type VisualHit = Schemas['VisualHit'];
export type WatchedFolder = Schemas['WatchedFolder'];
export type WatchedFolders = Schemas['WatchedFolders'];
