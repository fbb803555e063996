import { useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { Button } from 'react-aria-components/Button';
import { Dialog } from 'react-aria-components/Dialog';
import { Heading } from 'react-aria-components/Heading';
import { Modal, ModalOverlay } from 'react-aria-components/Modal';

import { post } from '../api/client';
import type { Assertion, Entity, Report } from '../api/records';
import { Facts } from '../parts/Facts';
import { ErrorMessage } from '../parts/Message';
import { ASSERTION_MARKS, ASSERTION_NAMES, ASSERTIONS, lookOf, signOf } from '../parts/mention';
import { pieces } from '../text/spans';
import { Versions } from './Versions';

/** A report with its sections, and each mention marked where it stands; the one that has the focus is explained. */
export function ReportText({ report, study }: { report: Report; study: string }) {
  const [shown, show] = useState<Entity | null>(null);
  const [corrected, correct] = useState<Entity | null>(null);
  const mentions = report.entities.map((value) => ({ start: value.start, end: value.end, value }));
  const cues =
    shown !== null && shown.cue_start >= 0 ? [{ start: shown.cue_start, end: shown.cue_end, value: null }] : [];
  const headings = report.spans.map((span) => ({ ...span }));
  return (
    <article className="report">
      <h2>Report {report.report_id}</h2>
      {report.version !== null && <Versions note={report.version} />}
      {report.language !== 'en' && (
        <p className="message">
          The report seems to be in another language ({report.language}): no mention is read in it.
        </p>
      )}
      <p className="quiet-text">
        Move to a mention to see its code and what decided; <kbd>c</kbd> or Enter corrects it.
      </p>
      <div className="text">
        {(headings.length > 0 ? headings : [{ name: '', start: 0, end: Array.from(report.text).length }]).map(
          (section) => (
            <section key={section.start} aria-label={section.name || 'Text'}>
              {section.name && <h3>{section.name}</h3>}
              <p>
                {pieces(report.text, [...mentions, ...cues])
                  .flatMap((piece) => clip(piece, section.start, section.end))
                  .map((piece) => {
                    const entity = piece.values.find((value) => value !== null);
                    const cue = piece.values.includes(null);
                    if (entity === undefined)
                      return cue ? (
                        <mark key={piece.start} className="cue">
                          {piece.text}
                        </mark>
                      ) : (
                        piece.text
                      );
                    return (
                      <button
                        key={piece.start}
                        type="button"
                        className={`mention ${lookOf(entity)} ${cue ? 'cue' : ''}`}
                        aria-label={`${piece.text}: ${ASSERTION_NAMES[entity.assertion]}${entity.icd10cm ? `, ${entity.icd10cm} ${entity.title}` : ''}`}
                        onMouseEnter={() => show(entity)}
                        onFocus={() => show(entity)}
                        onClick={() => correct(entity)}
                        onKeyDown={(event) => {
                          if (event.key === 'c' && !event.ctrlKey && !event.metaKey && !event.altKey) {
                            event.preventDefault();
                            correct(entity);
                          }
                        }}
                      >
                        <span aria-hidden="true" className="sign">
                          {signOf(entity)}
                        </span>
                        {piece.text}
                      </button>
                    );
                  })}
              </p>
            </section>
          ),
        )}
      </div>
      <Evidence entity={shown} report={report} />
      {corrected !== null && (
        <Correction entity={corrected} reportId={report.report_id} study={study} onDone={() => correct(null)} />
      )}
    </article>
  );
}

interface Cut {
  text: string;
  start: number;
  values: (Entity | null)[];
}

/** The part of a piece that lies in a section; offsets are code points. */
function clip(piece: Cut, start: number, end: number): Cut[] {
  const points = Array.from(piece.text);
  const from = Math.max(0, start - piece.start);
  const to = Math.min(points.length, end - piece.start);
  return to > from ? [{ ...piece, text: points.slice(from, to).join(''), start: piece.start + from }] : [];
}

function Evidence({ entity, report }: { entity: Entity | null; report: Report }) {
  if (entity === null) {
    return (
      <aside className="evidence" aria-label="Evidence">
        <p className="quiet-text">Nothing is chosen.</p>
      </aside>
    );
  }
  const sentence =
    entity.sentence_start >= 0
      ? Array.from(report.text).slice(entity.sentence_start, entity.sentence_end).join('')
      : '';
  const rows: [string, string][] = [
    ['Code', entity.icd10cm ? `${entity.icd10cm} ${entity.title}, score ${entity.score.toFixed(2)}` : 'none'],
    [
      'Assertion',
      `${ASSERTION_NAMES[entity.assertion]}${entity.certainty === 'probable' ? ', probable' : ''}${entity.inferred ? ', inferred' : ''}`,
    ],
    ['Because of', entity.cue || 'nothing but the mention'],
    ['Said of it', entity.attributes.map((each) => each.value).join(', ')],
    ['Category', entity.category],
    ['Rule', entity.rule],
    ['Sentence', sentence],
  ];
  return (
    <aside className="evidence" aria-label="Evidence" aria-live="polite">
      <h3>
        <span className={`chip ${lookOf(entity)}`}>
          <span aria-hidden="true" className="mark">
            {signOf(entity)}
          </span>
          {entity.text}
        </span>
      </h3>
      <dl>
        <Facts rows={rows} />
        {entity.alternatives.length > 0 && (
          <div>
            <dt>Runners-up</dt>
            <dd>
              <ol>
                {entity.alternatives.map((each, index) => (
                  <li key={index}>
                    {each.icd10cm || each.cui} {each.title} <span className="code">{each.score.toFixed(2)}</span>
                  </li>
                ))}
              </ol>
            </dd>
          </div>
        )}
      </dl>
    </aside>
  );
}

interface CorrectionProperties {
  entity: Entity;
  reportId: string;
  study: string;
  onDone: () => void;
}

function Correction({ entity, reportId, study, onDone }: CorrectionProperties) {
  const queries = useQueryClient();
  const [assertion, setAssertion] = useState<Assertion>(entity.assertion);
  const [code, setCode] = useState(entity.icd10cm);
  const [note, setNote] = useState('');
  const [error, setError] = useState<unknown>(null);
  const where = { report_id: reportId, start: entity.start, end: entity.end };
  const send = async (path: string, body: unknown) => {
    try {
      await post(path, body);
      // The report changes, and with it what any question finds.
      await Promise.all([
        queries.invalidateQueries({ queryKey: ['study', study] }),
        queries.invalidateQueries({ queryKey: ['search'] }),
      ]);
      onDone();
    } catch (reason) {
      setError(reason);
    }
  };
  const changed = assertion !== entity.assertion || code !== entity.icd10cm || note !== '';
  return (
    <ModalOverlay className="overlay" isOpen isDismissable onOpenChange={onDone}>
      <Modal className="dialog">
        <Dialog>
          <Heading slot="title">Correct “{entity.text}”</Heading>
          <form
            onSubmit={(event) => {
              event.preventDefault();
              void send('/corrections', {
                ...where,
                assertion: assertion === entity.assertion ? null : assertion,
                code: code === entity.icd10cm ? null : code.trim(),
                note,
              });
            }}
          >
            <fieldset>
              <legend>The report says that it is</legend>
              {ASSERTIONS.map((each) => (
                <label key={each}>
                  <input
                    type="radio"
                    name="assertion"
                    value={each}
                    checked={assertion === each}
                    onChange={() => setAssertion(each)}
                  />
                  {ASSERTION_MARKS[each]} {ASSERTION_NAMES[each]}
                </label>
              ))}
            </fieldset>
            <label>
              ICD-10-CM code
              <input
                value={code}
                maxLength={20}
                list="runners-up"
                onChange={(event) => setCode(event.target.value.toUpperCase())}
              />
            </label>
            <datalist id="runners-up">
              {entity.alternatives
                .filter((each) => each.icd10cm)
                .map((each, index) => (
                  <option key={index} value={each.icd10cm}>
                    {each.title}
                  </option>
                ))}
            </datalist>
            <label>
              Note
              <input value={note} maxLength={4000} onChange={(event) => setNote(event.target.value)} />
            </label>
            {error !== null && <ErrorMessage error={error} what="The correction was not kept" />}
            <p className="actions">
              <Button type="submit" isDisabled={!changed}>
                Keep the correction
              </Button>
              <Button onPress={() => void send('/corrections/undo', where)}>Undo the latest correction here</Button>
              <Button slot="close">Cancel</Button>
            </p>
          </form>
        </Dialog>
      </Modal>
    </ModalOverlay>
  );
}
