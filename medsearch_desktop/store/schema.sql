-- The library's tables. Each numbered part runs once, in order, in one transaction with its number.
-- `*_no` are small integers that are never used twice; the two indexes know rows by them.

-- migration 1
CREATE SEQUENCE image_no_seq;
CREATE SEQUENCE study_no_seq;
CREATE SEQUENCE report_no_seq;
CREATE SEQUENCE change_seq;

CREATE TABLE roots (
    path        VARCHAR PRIMARY KEY,
    online      BOOLEAN NOT NULL,
    scanned_ns  BIGINT NOT NULL        -- when its last complete scan began, Unix time
);

-- Every file that was ever looked at and is still there (or offline).
CREATE TABLE files (
    path        VARCHAR PRIMARY KEY,   -- absolute; names that are not UTF-8 as 'bytes:' + percent-encoding
    root        VARCHAR NOT NULL,
    size        BIGINT NOT NULL,
    mtime_ns    BIGINT NOT NULL,
    sha256      VARCHAR NOT NULL,
    kind        VARCHAR NOT NULL,      -- dicom, raster, report, other
    state       VARCHAR NOT NULL,      -- indexed, duplicate, failed, ignored
    checked_ns  BIGINT NOT NULL,       -- when its content was last read, Unix time
    held_by     VARCHAR NOT NULL       -- of a duplicate: the path of the file that has the records
);

CREATE TABLE failures (
    path        VARCHAR PRIMARY KEY,
    reason      VARCHAR NOT NULL
);

CREATE TABLE patients (
    patient_id  VARCHAR PRIMARY KEY,
    sex         VARCHAR NOT NULL
);

CREATE TABLE studies (
    study_no          BIGINT PRIMARY KEY,
    study_uid         VARCHAR NOT NULL UNIQUE,
    patient_id        VARCHAR NOT NULL,
    patient_sex       VARCHAR NOT NULL,
    patient_age       FLOAT,
    accession_number  VARCHAR NOT NULL,
    study_id          VARCHAR NOT NULL,
    study_date        DATE,
    study_description VARCHAR NOT NULL
);

CREATE TABLE series (
    series_uid         VARCHAR PRIMARY KEY,
    study_uid          VARCHAR NOT NULL,
    modality           VARCHAR NOT NULL,
    series_number      INTEGER,
    series_description VARCHAR NOT NULL,
    body_part          VARCHAR NOT NULL,
    laterality         VARCHAR NOT NULL,
    manufacturer       VARCHAR NOT NULL
);

CREATE TABLE images (
    image_no         BIGINT PRIMARY KEY,
    image_id         VARCHAR NOT NULL UNIQUE,
    sop_instance_uid VARCHAR NOT NULL,
    study_uid        VARCHAR NOT NULL,
    series_uid       VARCHAR NOT NULL,
    path             VARCHAR NOT NULL,
    frame            INTEGER NOT NULL,
    number_of_frames INTEGER NOT NULL,
    instance_number  INTEGER,
    modality         VARCHAR NOT NULL, -- as in its series: an answer shows it, and a join would cost 2 ms
    sop_class_uid    VARCHAR NOT NULL,
    transfer_syntax_uid VARCHAR NOT NULL,
    view_position    VARCHAR NOT NULL,
    rows             INTEGER NOT NULL,
    columns          INTEGER NOT NULL,
    bits_stored      INTEGER NOT NULL,
    photometric_interpretation VARCHAR NOT NULL,
    pixel_error      VARCHAR NOT NULL
);
CREATE INDEX images_by_study ON images (study_uid);
CREATE INDEX images_by_path ON images (path);

-- Beside the image, not in it: an image may have vectors of several models, which never mix.
CREATE TABLE vectors (
    image_no  BIGINT NOT NULL,
    model_id  VARCHAR NOT NULL,
    vector    FLOAT[1024] NOT NULL
);
CREATE INDEX vectors_by_image ON vectors (image_no);

CREATE TABLE reports (
    report_no        BIGINT PRIMARY KEY,
    report_id        VARCHAR NOT NULL UNIQUE,
    study_uid        VARCHAR,
    link_rule        VARCHAR,
    path             VARCHAR NOT NULL,
    encoding         VARCHAR NOT NULL,
    text             VARCHAR NOT NULL,
    sections         STRUCT(name VARCHAR, "start" INTEGER, "end" INTEGER)[] NOT NULL,
    pipeline_version VARCHAR NOT NULL
);
CREATE INDEX reports_by_study ON reports (study_uid);

CREATE TABLE entities (
    report_no    BIGINT NOT NULL,
    ordinal      INTEGER NOT NULL,
    text         VARCHAR NOT NULL,
    "start"      INTEGER NOT NULL,
    "end"        INTEGER NOT NULL,
    section      VARCHAR NOT NULL,
    category     VARCHAR NOT NULL,
    assertion    VARCHAR NOT NULL,
    finding      VARCHAR NOT NULL,
    cui          VARCHAR NOT NULL,
    icd10cm      VARCHAR NOT NULL,
    title        VARCHAR NOT NULL,
    score        FLOAT NOT NULL,
    alternatives VARCHAR NOT NULL,     -- JSON: [[cui, icd10cm, title, score], ...]
    cue          VARCHAR NOT NULL,
    cue_start    INTEGER NOT NULL,
    cue_end      INTEGER NOT NULL
);
CREATE INDEX entities_by_report ON entities (report_no);

-- The user's own words on a study, series, image or report; kept when its target goes.
CREATE TABLE labels (
    target_kind  VARCHAR NOT NULL,
    target_id    VARCHAR NOT NULL,
    label        VARCHAR NOT NULL,
    PRIMARY KEY (target_kind, target_id, label)
);

-- The ledger: what the indexes have still to learn. `no` is an image_no or a doc_no.
CREATE TABLE changes (
    seq   BIGINT NOT NULL,
    kind  VARCHAR NOT NULL,            -- image, document
    no    BIGINT NOT NULL
);

-- A document is what a search answers with: a report, or a study that has none.
CREATE VIEW document_keys AS
    SELECT report_no * 2 AS doc_no, report_no, report_id, study_uid FROM reports
    UNION ALL
    SELECT study_no * 2 + 1, NULL, NULL, study_uid FROM studies
    WHERE NOT EXISTS (SELECT 1 FROM reports WHERE reports.study_uid = studies.study_uid);

-- migration 2
-- What a model is to the library. Exactly one is in use; one may be next: a switch to it has begun and not ended.
CREATE TABLE models (
    model_id  VARCHAR PRIMARY KEY,
    role      VARCHAR NOT NULL,        -- in use, next, kept
    sha256    VARCHAR NOT NULL         -- of the file that made its first vector here; empty where nobody knows
);

-- Images that a model could not embed though their file was there: an ingest does not try them again.
CREATE TABLE unembedded (
    image_no  BIGINT NOT NULL,
    model_id  VARCHAR NOT NULL,
    reason    VARCHAR NOT NULL
);

-- What the match meter measured, one curve a model.
CREATE TABLE curves (
    model_id  VARCHAR PRIMARY KEY,
    curve     VARCHAR NOT NULL         -- JSON: MatchCurve
);

-- migration 3
-- What a report says of a finding beside whether it is there, and where each of it is said. Entities of before
-- have none of it until their report is read again.
ALTER TABLE entities ADD COLUMN attributes VARCHAR DEFAULT '[]';        -- JSON: [[kind, value, start, end], ...]
ALTER TABLE entities ADD COLUMN certainty VARCHAR DEFAULT 'certain';    -- certain, probable, possible
ALTER TABLE entities ADD COLUMN inferred BOOLEAN DEFAULT false;
ALTER TABLE entities ADD COLUMN rule VARCHAR DEFAULT '';
ALTER TABLE entities ADD COLUMN sentence_start INTEGER DEFAULT -1;
ALTER TABLE entities ADD COLUMN sentence_end INTEGER DEFAULT -1;
ALTER TABLE reports ADD COLUMN language VARCHAR DEFAULT 'en';          -- BCP 47

-- What a person corrected. Rows are never changed but for `undone_*`: the latest that is not undone holds.
CREATE TABLE corrections (
    correction_id VARCHAR PRIMARY KEY,
    report_id     VARCHAR NOT NULL,
    "start"       INTEGER NOT NULL,
    "end"         INTEGER NOT NULL,
    text          VARCHAR NOT NULL,    -- what stood there: where it stands no more, the correction rests
    assertion     VARCHAR,             -- NULL where it is left as it was read
    icd10cm       VARCHAR,             -- likewise; empty where there is to be none
    title         VARCHAR NOT NULL,
    note          VARCHAR NOT NULL,
    author        VARCHAR NOT NULL,
    made_at       VARCHAR NOT NULL,    -- ISO 8601, UTC
    before        VARCHAR NOT NULL,    -- JSON: the entity as it was
    undone_by     VARCHAR NOT NULL,    -- empty while it holds
    undone_at     VARCHAR NOT NULL
);

-- migration 4
-- What a person keeps beside labels: questions, and lists of studies and images to teach with. Names are told apart
-- by `key`, which leaves out case and width of letters.
CREATE TABLE saved_searches (
    key         VARCHAR PRIMARY KEY,
    name        VARCHAR NOT NULL,
    question    VARCHAR NOT NULL,
    sort        VARCHAR NOT NULL,
    note        VARCHAR NOT NULL,
    created_at  VARCHAR NOT NULL       -- ISO 8601, UTC
);

CREATE TABLE teaching_lists (
    list_id     VARCHAR PRIMARY KEY,
    key         VARCHAR NOT NULL UNIQUE,
    name        VARCHAR NOT NULL,
    note        VARCHAR NOT NULL,
    created_at  VARCHAR NOT NULL
);

-- Kept when their target goes. `target_id` is empty of an imported entry whose target was never here.
CREATE TABLE teaching_entries (
    entry_id    VARCHAR PRIMARY KEY,
    list_id     VARCHAR NOT NULL,
    position    INTEGER NOT NULL,      -- 0 to n - 1 without gaps
    target_kind VARCHAR NOT NULL,      -- study, image
    target_id   VARCHAR NOT NULL,
    reference   VARCHAR NOT NULL,      -- SHA-256 of kind and identifier: what an export names the target by
    note        VARCHAR NOT NULL,
    added_at    VARCHAR NOT NULL
);

-- migration 5
-- The striking points of an image, by which its regions are compared: see store/regions.py. No index: a question reads
-- them all, and an index over small tables of large values costs more than it saves.
CREATE TABLE regions (
    image_no   BIGINT NOT NULL,
    region_id  VARCHAR NOT NULL,       -- the network that found them
    points     BLOB NOT NULL
);

-- migration 6
-- Slices of volumes: images that have a vector only while they are key slices of their series.
CREATE TABLE slices (
    image_no     BIGINT NOT NULL,
    series_uid   VARCHAR NOT NULL,
    orientation  VARCHAR NOT NULL,     -- direction cosines, rounded; empty where the header does not say
    position     DOUBLE,               -- along the normal, in mm
    key_slice    BOOLEAN NOT NULL
);

-- The side of each image that states one: a series of mammograms has both.
CREATE TABLE sides (
    image_no     BIGINT NOT NULL,
    laterality   VARCHAR NOT NULL
);

-- What the key slices of a series were chosen among: where it is no more so, they are chosen anew.
CREATE TABLE stacks (
    series_uid   VARCHAR NOT NULL,
    among        VARCHAR NOT NULL
);

-- The mean of the vectors of a series' key slices, and which they were.
CREATE TABLE series_vectors (
    series_uid   VARCHAR NOT NULL,
    model_id     VARCHAR NOT NULL,
    members      VARCHAR NOT NULL,
    vector       FLOAT[1024] NOT NULL
);

-- Earlier releases embedded every slice. The next ingest chooses among them, by their numbers.
INSERT INTO slices SELECT image_no, series_uid, '', NULL, true FROM images
WHERE pixel_error = '' AND path NOT IN (SELECT path FROM files WHERE state = 'metadata') AND (
    sop_class_uid IN ('1.2.840.10008.5.1.4.1.1.2', '1.2.840.10008.5.1.4.1.1.2.1', '1.2.840.10008.5.1.4.1.1.2.2',
        '1.2.840.10008.5.1.4.1.1.4', '1.2.840.10008.5.1.4.1.1.4.1', '1.2.840.10008.5.1.4.1.1.4.3',
        '1.2.840.10008.5.1.4.1.1.4.4', '1.2.840.10008.5.1.4.1.1.128', '1.2.840.10008.5.1.4.1.1.128.1',
        '1.2.840.10008.5.1.4.1.1.130')
    OR (sop_class_uid = '' AND modality IN ('CT', 'MR', 'PT')));

-- migration 7
-- Every version of the reports that messages carry; `reports` holds the one of each that is searched, if any is.
CREATE SEQUENCE version_no_seq;
CREATE TABLE report_versions (
    version_no  BIGINT PRIMARY KEY,    -- in the order of arrival
    report_id   VARCHAR NOT NULL,
    path        VARCHAR NOT NULL,
    position    INTEGER NOT NULL,      -- in its file, from 0
    status      VARCHAR NOT NULL,      -- preliminary, final, corrected, cancelled
    effective   VARCHAR NOT NULL,      -- ISO 8601; what decides between versions
    sent        VARCHAR NOT NULL,      -- likewise, where the former is the same
    encoding    VARCHAR NOT NULL,
    text        VARCHAR NOT NULL,
    stated      VARCHAR NOT NULL       -- JSON: Statement
);
CREATE INDEX report_versions_by_report ON report_versions (report_id);
CREATE INDEX report_versions_by_path ON report_versions (path);
-- By what versions are told to be of one report.
CREATE TABLE report_names (
    name        VARCHAR NOT NULL,
    report_id   VARCHAR NOT NULL
);
CREATE INDEX report_names_by_name ON report_names (name);
CREATE INDEX report_names_by_report ON report_names (report_id);
ALTER TABLE reports ADD COLUMN version_no BIGINT;                      -- NULL for one that came as mere text
ALTER TABLE reports ADD COLUMN position INTEGER DEFAULT 0;
ALTER TABLE reports ADD COLUMN stated VARCHAR DEFAULT '';              -- JSON: Statement, or empty
-- What an earlier release passed over may be a report to this one: it is looked at again.
UPDATE files SET mtime_ns = -1, sha256 = '' WHERE kind = 'other' OR (kind = 'dicom' AND state = 'failed');

-- migration 8
-- What the library's owner does by itself: folders it keeps the library current with, and how it takes in what is sent.
CREATE TABLE watched (
    path        VARCHAR PRIMARY KEY    -- as in `roots`
);
CREATE TABLE reception (
    settings    VARCHAR NOT NULL       -- JSON: Listening; one row while switched on, or off after that
);

-- migration 9
CREATE TABLE joined (
    seq         BIGINT NOT NULL        -- one row: the last of `changes` when all reports had been joined
);

-- migration 10
-- By what reports without a study were looked up, as numbers made of it; they are looked at again for cause only.
CREATE TABLE sought (
    report_no   BIGINT NOT NULL,
    key         BIGINT NOT NULL
);
-- Images and reports that left or moved since all reports were joined, as they were and as they are.
CREATE TABLE stirred (
    study_uid         VARCHAR NOT NULL,
    accession_number  VARCHAR NOT NULL,
    study_id          VARCHAR NOT NULL,
    patient_id        VARCHAR NOT NULL,
    path              VARCHAR NOT NULL,
    study_date        VARCHAR NOT NULL
);
