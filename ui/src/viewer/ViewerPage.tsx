import '../style/viewer.css';

import { useQueries, useQuery } from '@tanstack/react-query';
import { getRouteApi, Link } from '@tanstack/react-router';
import { useCallback, useEffect, useMemo, useState } from 'react';
import { Button } from 'react-aria-components/Button';
import { Dialog } from 'react-aria-components/Dialog';
import { Heading } from 'react-aria-components/Heading';
import { Modal, ModalOverlay } from 'react-aria-components/Modal';
import { ToggleButton } from 'react-aria-components/ToggleButton';
import { Toolbar } from 'react-aria-components/Toolbar';

import { study as studyOf } from '../api/queries';
import type { Study, StudyImage } from '../api/records';
import { AddToList } from '../parts/AddToList';
import { ErrorMessage, Waiting } from '../parts/Message';
import { SendTo } from '../parts/SendTo';
import { HOTKEYS, hotkeyOf, TOOL_NAMES } from './keys';
import { Pane } from './Pane';
import {
  chooseTool,
  clearMeasurements,
  flip,
  invert,
  link,
  type PaneId,
  type PaneState,
  reset,
  rotate,
  setWindow,
  type ToolName,
} from './panes';
import { presetsOf, stackOf } from './stack';

export { warmUp } from './panes';

const route = getRouteApi('/view');

/** The viewer: one image or two side by side, with the tools that work on them. */
export function ViewerPage() {
  const { study: uid, image, beside } = route.useSearch();
  const known = useQuery({ ...studyOf(uid ?? ''), enabled: uid !== undefined });
  if (image === undefined) {
    return (
      <p className="message">
        No image is chosen. <Link to="/">Search for one</Link>
      </p>
    );
  }
  if (uid !== undefined && known.isPending) return <Waiting what="Opening the study" />;
  if (known.isError) return <ErrorMessage error={known.error} what="This study cannot be shown" />;
  return <Viewer study={known.data ?? null} image={image} beside={beside} />;
}

interface Properties {
  study: Study | null;
  image: string;
  beside: string | undefined;
}

function Viewer({ study, image, beside }: Properties) {
  const navigate = route.useNavigate();
  const [tool, setTool] = useState<ToolName>('window');
  const [overlays, setOverlays] = useState(true);
  const [linked, setLinked] = useState(true);
  const [sheet, setSheet] = useState(false);
  const [pane, setPane] = useState<PaneId>('left');
  const [states, setStates] = useState<Partial<Record<PaneId, PaneState>>>({});

  const others = useQueries({ queries: (study?.others ?? []).map((other) => studyOf(other.study_uid)) });
  const studies = useMemo(
    () => [study, ...others.map((other) => other.data)].filter((each) => each !== null && each !== undefined),
    [study, others],
  );
  const all = useMemo(() => studies.flatMap((each) => each.images), [studies]);
  const stack = useMemo(() => stackOf(study?.images ?? [], image), [study, image]);
  const besideImages = useMemo(() => studies.find((each) => has(each, beside))?.images ?? [], [studies, beside]);
  const besideStack = useMemo(
    () => (beside === undefined ? null : stackOf(besideImages, beside)),
    [besideImages, beside],
  );
  const shown: PaneId = besideStack === null ? 'left' : pane;
  const modality = all.find((each) => each.image_id === (shown === 'left' ? image : beside))?.modality ?? '';
  const frame = states[shown]?.frame;
  const presets = useMemo(() => (frame === undefined ? [] : presetsOf(modality, frame)), [modality, frame]);

  const choose = useCallback((name: ToolName) => {
    chooseTool(name);
    setTool(name);
  }, []);
  const setBeside = useCallback(
    (id: string | undefined) => void navigate({ search: (before) => ({ ...before, beside: id }), replace: true }),
    [navigate],
  );
  const toggle = useCallback(
    (what: 'overlays' | 'beside' | 'linked' | 'sheet') => {
      if (what === 'overlays') setOverlays((before) => !before);
      else if (what === 'sheet') setSheet((before) => !before);
      else if (what === 'linked') {
        link(!linked);
        setLinked(!linked);
      } else if (beside !== undefined) setBeside(undefined);
      else
        setBeside((all.find((each) => each.image_id !== image && !each.pixel_error) ?? { image_id: image }).image_id);
    },
    [all, beside, image, linked, setBeside],
  );

  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement;
      if (target.closest('input, select, textarea, [role=dialog]')) return;
      // In the bar, arrows go from button to button.
      if (event.key.startsWith('Arrow') && target.closest('[role=toolbar]')) return;
      const hotkey = hotkeyOf(event);
      if (hotkey === undefined) return;
      event.preventDefault();
      hotkey.act({ pane: shown, presets, choose, toggle });
    };
    document.addEventListener('keydown', pressed);
    return () => document.removeEventListener('keydown', pressed);
  }, [shown, presets, choose, toggle]);

  const told = useCallback((id: PaneId, state: PaneState) => setStates((before) => ({ ...before, [id]: state })), []);
  const leftTold = useCallback((state: PaneState) => told('left', state), [told]);
  const rightTold = useCallback((state: PaneState) => told('right', state), [told]);
  const linesOf = (id: string | undefined): string[] => {
    const of = studies.find((each) => has(each, id));
    const shownImage = all.find((each) => each.image_id === id);
    return [
      of?.patient_id ?? '',
      `${of?.study_date ?? ''} ${of?.study_description ?? ''}`.trim(),
      nameOf(shownImage),
    ].filter((line) => line !== '');
  };

  return (
    <div className="viewer-page">
      <h1 className="hidden">Viewer</h1>
      <Toolbar aria-label="Viewer">
        {study !== null && (
          <Link to="/study/$uid" params={{ uid: study.study_uid }}>
            Study
          </Link>
        )}
        <Link to="/ask" search={{ image }}>
          Ask by a region
        </Link>
        <AddToList
          key={`${shown} ${image} ${beside}`}
          kind="image"
          id={(shown === 'left' ? image : beside) ?? image}
          of={shown === 'left' ? 'the image' : 'the right image'}
        />
        <SendTo
          what={{ images: [(shown === 'left' ? image : beside) ?? image] }}
          of={shown === 'left' ? 'the image' : 'the right image'}
        />
        {(Object.entries(TOOL_NAMES) as [ToolName, [string, string]][]).map(([name, [key, label]]) => (
          <ToggleButton key={name} isSelected={tool === name} onChange={() => choose(name)} aria-keyshortcuts={key}>
            {label}
          </ToggleButton>
        ))}
        <Button onPress={() => invert(shown)}>Invert</Button>
        <Button onPress={() => rotate(shown, 90)} aria-label="Turn right by 90°">
          ↻
        </Button>
        <Button onPress={() => flip(shown, 'horizontal')} aria-label="Flip left and right">
          ⇆
        </Button>
        <Button onPress={() => flip(shown, 'vertical')} aria-label="Flip top and bottom">
          ⇅
        </Button>
        <Button onPress={() => reset(shown)}>Reset</Button>
        <Button onPress={() => clearMeasurements()}>Clear measurements</Button>
        <ToggleButton isSelected={overlays} onChange={() => toggle('overlays')}>
          Overlays
        </ToggleButton>
        <ToggleButton isSelected={beside !== undefined} onChange={() => toggle('beside')}>
          Side by side
        </ToggleButton>
        {beside !== undefined && (
          <ToggleButton isSelected={linked} onChange={() => toggle('linked')}>
            Linked
          </ToggleButton>
        )}
        <Button onPress={() => toggle('sheet')} aria-label="Keys" aria-keyshortcuts="?">
          ?
        </Button>
      </Toolbar>
      <div className="choices">
        <label>
          Window
          <select
            value=""
            onChange={(event) => {
              const preset = presets.find((each) => each.name === event.target.value);
              if (preset !== undefined) setWindow(shown, preset);
            }}
          >
            <option value="" disabled>
              Preset
            </option>
            {presets.map((preset, index) => (
              <option key={preset.name} value={preset.name}>
                {index + 1} {preset.name}
              </option>
            ))}
          </select>
        </label>
        <Choice
          label="Image"
          studies={study === null ? [] : [study]}
          value={image}
          onChange={(id) => void navigate({ search: (before) => ({ ...before, image: id }), replace: true })}
        />
        {beside !== undefined && <Choice label="Beside" studies={studies} value={beside} onChange={setBeside} />}
      </div>
      <div className={`panes ${besideStack === null ? 'one' : 'two'}`}>
        <Pane
          id="left"
          name={besideStack === null ? 'Image' : 'Left image'}
          stack={stack}
          overlays={overlays}
          active={besideStack !== null && shown === 'left'}
          onActive={() => setPane('left')}
          onState={leftTold}
          lines={linesOf(image)}
        />
        {besideStack !== null && (
          <Pane
            id="right"
            name="Right image"
            stack={besideStack}
            overlays={overlays}
            active={shown === 'right'}
            onActive={() => setPane('right')}
            onState={rightTold}
            lines={linesOf(beside)}
          />
        )}
      </div>
      <ModalOverlay className="overlay" isOpen={sheet} isDismissable onOpenChange={setSheet}>
        <Modal className="dialog">
          <Dialog>
            <Heading slot="title">Keys of the viewer</Heading>
            <dl className="sheet">
              {HOTKEYS.map((hotkey) => (
                <div key={hotkey.keys[0]}>
                  <dt>
                    <kbd>{hotkey.keys[0]?.replace('Arrow', '')}</kbd>
                  </dt>
                  <dd>{hotkey.what}</dd>
                </div>
              ))}
            </dl>
            <p className="quiet-text">
              Mouse: the main button works with the chosen tool, the middle one moves, the right one zooms, the wheel
              goes through the stack.
            </p>
            <Button slot="close">Close</Button>
          </Dialog>
        </Modal>
      </ModalOverlay>
    </div>
  );
}

interface ChoiceProperties {
  label: string;
  studies: Study[];
  value: string;
  onChange: (imageId: string) => void;
}

function Choice({ label, studies, value, onChange }: ChoiceProperties) {
  const known = studies.some((each) => has(each, value));
  return (
    <label>
      {label}
      <select value={value} onChange={(event) => onChange(event.target.value)}>
        {!known && <option value={value}>this image</option>}
        {studies.map((study) => (
          <optgroup key={study.study_uid} label={`${study.study_date ?? 'no date'} ${study.study_description}`}>
            {study.images
              .filter((each) => !each.pixel_error)
              .map((each) => (
                <option key={each.image_id} value={each.image_id}>
                  {nameOf(each)}
                </option>
              ))}
          </optgroup>
        ))}
      </select>
    </label>
  );
}

const has = (study: Study, imageId: string | undefined): boolean =>
  study.images.some((each) => each.image_id === imageId);

const nameOf = (image: StudyImage | undefined): string =>
  image === undefined
    ? ''
    : [
        image.series_description || image.modality,
        image.view_position,
        image.instance_number === null ? '' : `no. ${image.instance_number}`,
        image.number_of_frames > 1 ? `frame ${image.frame + 1}` : '',
      ]
        .filter(Boolean)
        .join(', ');
