/** The only file that imports Cornerstone: panes in which stacks are shown, the tools that work on them. */

import {
  cache,
  Enums,
  eventTarget,
  getRenderingEngine,
  imageLoader,
  init as initCore,
  metaData,
  RenderingEngine,
  type Types,
  utilities,
} from '@cornerstonejs/core';
import {
  addTool,
  AngleTool,
  annotation,
  EllipticalROITool,
  Enums as ToolEnums,
  init as initTools,
  LengthTool,
  MagnifyTool,
  PanTool,
  PlanarRotateTool,
  RectangleROITool,
  StackScrollTool,
  ToolGroupManager,
  WindowLevelTool,
  ZoomTool,
} from '@cornerstonejs/tools';

import { frameAt, frames } from './ahead';
import type { Frame, FrameWindow } from './frames';
import { readPlace, type Stack, writePlace } from './stack';

export const PANES = ['left', 'right'] as const;
export type PaneId = (typeof PANES)[number];

/** The tools that the main button of the mouse can work with, in the order of the bar. */
export const TOOLS = {
  window: WindowLevelTool,
  pan: PanTool,
  zoom: ZoomTool,
  scroll: StackScrollTool,
  rotate: PlanarRotateTool,
  magnify: MagnifyTool,
  length: LengthTool,
  angle: AngleTool,
  rectangle: RectangleROITool,
  ellipse: EllipticalROITool,
} as const;
export type ToolName = keyof typeof TOOLS;

/** What a pane shows, for whoever draws what stands around it. */
export interface PaneState {
  index: number;
  count: number;
  window: FrameWindow;
  zoom: number;
  inverted: boolean;
  frame: Frame;
}

const ENGINE = 'medsearch-viewer';
const GROUP = 'medsearch-tools';
const SCHEME = 'medsearch';
// Frames are kept for scrolling; a 2k x 2k film takes 8 MB, a slice of a CT half of one.
const MOST_CACHED_BYTES = 384 * 1024 * 1024;

// Cornerstone's declarations leave this open.
const nameOf = (tool: { toolName: unknown }): string => String(tool.toolName);

let primary: ToolName = 'window';
let linked = true;
let following = false;
let opening = 0;

/** Show panes in `element` from now on; returns what ends it. `tell` is called whenever what is shown changes. */
export function openPane(id: PaneId, element: HTMLDivElement, tell: (state: PaneState) => void): () => void {
  const engine = prepared();
  engine.enableElement({
    viewportId: id,
    element,
    type: Enums.ViewportType.STACK,
    defaultOptions: { background: [0, 0, 0] },
  });
  ToolGroupManager.getToolGroup(GROUP)?.addViewport(id, ENGINE);
  const changed = () => {
    const state = stateOf(id);
    if (state !== null) tell(state);
  };
  const moved = () => {
    changed();
    follow(id);
  };
  const events = [Enums.Events.VOI_MODIFIED, Enums.Events.CAMERA_MODIFIED, Enums.Events.STACK_NEW_IMAGE];
  for (const event of events) element.addEventListener(event, moved);
  element.addEventListener(Enums.Events.IMAGE_RENDERED, changed);
  const observer = new ResizeObserver(() => engine.resize(true, true));
  observer.observe(element);
  return () => {
    observer.disconnect();
    for (const event of events) element.removeEventListener(event, moved);
    element.removeEventListener(Enums.Events.IMAGE_RENDERED, changed);
    ToolGroupManager.getToolGroup(GROUP)?.removeViewports(ENGINE, id);
    engine.disableElement(id);
  };
}

/** Show a stack in a pane at its index. Throws ApiError for a frame that cannot be loaded. */
export async function showStack(id: PaneId, stack: Stack): Promise<void> {
  const place = stack.places[stack.index];
  if (place === undefined) return;
  // Ahead of Cornerstone, whose errors do not say what the server said.
  await frameAt(place);
  const viewport = viewportOf(id);
  if (viewport === null) return;
  // That an image comes is nothing for the other pane to follow.
  opening += 1;
  try {
    await viewport.setStack(stack.places.map(writePlace), stack.index);
    reset(id);
  } finally {
    opening -= 1;
  }
}

/** Put all back as the image came: window, inversion, place, size, turn. */
export function reset(id: PaneId): void {
  const viewport = viewportOf(id);
  const frame = shownIn(id);
  if (viewport === null || frame === null) return;
  viewport.setViewPresentation({ rotation: 0, flipHorizontal: false, flipVertical: false });
  viewport.resetCamera();
  viewport.setProperties({ voiRange: rangeOf(windowOf(frame)), invert: frame.inverted });
  viewport.render();
}

export function setWindow(id: PaneId, window: FrameWindow): void {
  const viewport = viewportOf(id);
  viewport?.setProperties({ voiRange: rangeOf({ ...window, width: Math.max(1, window.width) }) });
  viewport?.render();
}

/** Move the window by shares of its width: `center` up, `width` wider. */
export function changeWindow(id: PaneId, { center = 0, width = 0 }): void {
  const now = stateOf(id)?.window;
  if (now !== undefined) setWindow(id, { center: now.center + center * now.width, width: now.width * (1 + width) });
}

export function invert(id: PaneId): void {
  const viewport = viewportOf(id);
  viewport?.setProperties({ invert: !viewport.getProperties().invert });
  viewport?.render();
}

/** Turn by degrees, clockwise. */
export function rotate(id: PaneId, degrees: number): void {
  present(id, (now) => ({ rotation: ((now.rotation ?? 0) + degrees + 360) % 360 }));
}

export function flip(id: PaneId, way: 'horizontal' | 'vertical'): void {
  present(id, (now) =>
    way === 'horizontal' ? { flipHorizontal: !now.flipHorizontal } : { flipVertical: !now.flipVertical },
  );
}

export function zoomBy(id: PaneId, factor: number): void {
  present(id, (now) => ({ zoom: Math.min(64, Math.max(0.1, (now.zoom ?? 1) * factor)) }));
}

/** Move by shares of the pane: right and down. */
export function panBy(id: PaneId, right: number, down: number): void {
  const viewport = viewportOf(id);
  if (viewport === null) return;
  const [x, y] = viewport.getPan();
  viewport.setPan([x + right * viewport.canvas.clientWidth, y + down * viewport.canvas.clientHeight]);
  viewport.render();
}

export async function scrollBy(id: PaneId, steps: number): Promise<void> {
  const viewport = viewportOf(id);
  if (viewport === null) return;
  const last = viewport.getImageIds().length - 1;
  const next = Math.min(last, Math.max(0, viewport.getCurrentImageIdIndex() + steps));
  if (next !== viewport.getCurrentImageIdIndex()) await viewport.setImageIdIndex(next);
}

/** Give the main button of the mouse another tool. */
export function chooseTool(name: ToolName): void {
  prepared();
  const group = ToolGroupManager.getToolGroup(GROUP);
  group?.setToolPassive(nameOf(TOOLS[primary]));
  primary = name;
  group?.setToolActive(nameOf(TOOLS[name]), { bindings: [{ mouseButton: ToolEnums.MouseBindings.Primary }] });
}

/** Whether what one pane does, the other does too. */
export function link(yes: boolean): void {
  linked = yes;
}

/** Remove every measurement. */
export function clearMeasurements(): void {
  annotation.state.removeAllAnnotations();
  for (const id of PANES) viewportOf(id)?.render();
}

/** Make ready what the first image would wait for. */
export const warmUp = (): void => void prepared();

function prepared(): RenderingEngine {
  const known = getRenderingEngine(ENGINE);
  if (known !== undefined) return known;
  initCore();
  initTools();
  cache.setMaxCacheSize(MOST_CACHED_BYTES);
  imageLoader.registerImageLoader(SCHEME, (name) => ({ promise: load(name) }));
  metaData.addProvider(describe, 10_000);
  // What Cornerstone lets go of when its cache is full is let go of here.
  eventTarget.addEventListener(Enums.Events.IMAGE_CACHE_IMAGE_REMOVED, (event: Event) => {
    frames.delete((event as CustomEvent<{ imageId: string }>).detail.imageId);
  });
  const group = ToolGroupManager.createToolGroup(GROUP);
  for (const tool of Object.values(TOOLS)) {
    addTool(tool);
    group?.addTool(nameOf(tool));
  }
  const { Primary, Secondary, Auxiliary, Wheel } = ToolEnums.MouseBindings;
  group?.setToolActive(nameOf(PanTool), { bindings: [{ mouseButton: Auxiliary }] });
  group?.setToolActive(nameOf(ZoomTool), { bindings: [{ mouseButton: Secondary }] });
  group?.setToolActive(nameOf(StackScrollTool), { bindings: [{ mouseButton: Wheel }] });
  group?.setToolActive(nameOf(TOOLS[primary]), { bindings: [{ mouseButton: Primary }] });
  return new RenderingEngine(ENGINE);
}

const viewportOf = (id: PaneId): Types.IStackViewport | null => getRenderingEngine(ENGINE)?.getViewport(id) ?? null;

function shownIn(id: PaneId): Frame | null {
  const name = viewportOf(id)?.getCurrentImageId();
  return name ? (frames.get(name) ?? null) : null;
}

function stateOf(id: PaneId): PaneState | null {
  const viewport = viewportOf(id);
  const frame = shownIn(id);
  if (viewport === null || frame === null) return null;
  const { voiRange, invert: inverted } = viewport.getProperties();
  const shown = voiRange ?? rangeOf(windowOf(frame));
  const { windowCenter, windowWidth } = utilities.windowLevel.toWindowLevel(shown.lower, shown.upper);
  return {
    index: viewport.getCurrentImageIdIndex(),
    count: viewport.getImageIds().length,
    window: { center: windowCenter, width: windowWidth },
    zoom: viewport.getZoom(),
    inverted: inverted ?? false,
    frame,
  };
}

function present(id: PaneId, change: (now: Types.ViewPresentation) => Types.ViewPresentation): void {
  const viewport = viewportOf(id);
  if (viewport === null) return;
  const now = viewport.getViewPresentation({
    rotation: true,
    zoom: true,
    pan: true,
    flipHorizontal: true,
    flipVertical: true,
  });
  viewport.setViewPresentation({ ...now, ...change(now) });
  viewport.render();
}

/** Let the other pane do as this one did: its window, zoom and place, and as many steps in the stack. */
function follow(id: PaneId): void {
  const other = PANES.find((each) => each !== id);
  if (!linked || following || opening > 0 || other === undefined) return;
  const from = viewportOf(id);
  const to = viewportOf(other);
  if (from === null || to === null || shownIn(other) === null) return;
  following = true;
  try {
    const { voiRange } = from.getProperties();
    // A pane whose first image is on its way has none.
    if (voiRange) to.setProperties({ voiRange });
    to.setViewPresentation(from.getViewPresentation({ zoom: true, pan: true }));
    to.render();
  } finally {
    following = false;
  }
  const index = Math.min(from.getCurrentImageIdIndex(), to.getImageIds().length - 1);
  if (from.getImageIds().length > 1 && index !== to.getCurrentImageIdIndex()) void to.setImageIdIndex(index);
}

const windowOf = (frame: Frame): FrameWindow =>
  frame.window ?? {
    center: (frame.lowest + frame.highest + 1) / 2,
    width: Math.max(1, frame.highest - frame.lowest + 1),
  };

const rangeOf = ({ center, width }: FrameWindow): Types.VOIRange => utilities.windowLevel.toLowHighRange(width, center);

async function load(name: string): Promise<Types.IImage> {
  const frame = await frameAt(readPlace(name));
  const { center, width } = windowOf(frame);
  const [rowSpacing, columnSpacing] = frame.spacing ?? [1, 1];
  return {
    imageId: name,
    minPixelValue: frame.lowest,
    maxPixelValue: frame.highest,
    // The values are in the unit of the modality already.
    slope: 1,
    intercept: 0,
    windowCenter: center,
    windowWidth: width,
    voiLUTFunction: Enums.VOILUTFunctionType.LINEAR,
    getPixelData: () => frame.values,
    getCanvas: () => document.createElement('canvas'),
    rows: frame.rows,
    columns: frame.columns,
    height: frame.rows,
    width: frame.columns,
    color: frame.components === 3,
    rgba: false,
    numberOfComponents: frame.components,
    rowPixelSpacing: rowSpacing,
    columnPixelSpacing: columnSpacing,
    invert: false,
    photometricInterpretation: frame.components === 3 ? 'RGB' : 'MONOCHROME2',
    sizeInBytes: frame.values.byteLength,
    dataType: frame.values.constructor.name as Types.PixelDataTypedArrayString,
  };
}

/** What Cornerstone asks about a frame: its pixels and its plane. */
function describe(type: string, name: unknown): unknown {
  const frame = typeof name === 'string' ? frames.get(name) : undefined;
  if (frame === undefined || typeof name !== 'string') return undefined;
  const { rows, columns } = frame;
  switch (type) {
    case 'imagePixelModule':
      return {
        rows,
        columns,
        samplesPerPixel: frame.components,
        photometricInterpretation: frame.components === 3 ? 'RGB' : 'MONOCHROME2',
        bitsAllocated: 8 * frame.values.BYTES_PER_ELEMENT,
        bitsStored: frame.bitsStored,
        highBit: frame.bitsStored - 1,
        pixelRepresentation: frame.values instanceof Int16Array ? 1 : 0,
      };
    case 'imagePlaneModule': {
      const spacing = frame.spacing;
      return {
        rows,
        columns,
        frameOfReferenceUID: readPlace(name).imageId,
        rowCosines: [1, 0, 0],
        columnCosines: [0, 1, 0],
        imageOrientationPatient: [1, 0, 0, 0, 1, 0],
        imagePositionPatient: [0, 0, 0],
        // Without a spacing Cornerstone measures in pixels and says so.
        ...(spacing === null
          ? {}
          : { pixelSpacing: spacing, rowPixelSpacing: spacing[0], columnPixelSpacing: spacing[1] }),
      };
    }
    case 'generalSeriesModule':
      return { modality: '', seriesInstanceUID: readPlace(name).imageId };
    default:
      return undefined;
  }
}
