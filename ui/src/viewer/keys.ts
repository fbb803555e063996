/** The hotkeys of the viewer: what the sheet under `?` shows is what the keys do. */

import {
  changeWindow,
  clearMeasurements,
  flip,
  invert,
  panBy,
  type PaneId,
  reset,
  rotate,
  scrollBy,
  setWindow,
  type ToolName,
  zoomBy,
} from './panes';
import type { Preset } from './stack';

/** What a key can reach. */
export interface Reach {
  pane: PaneId;
  presets: Preset[];
  choose: (tool: ToolName) => void;
  toggle: (what: 'overlays' | 'beside' | 'linked' | 'sheet') => void;
}

interface Hotkey {
  keys: string[];
  what: string;
  act: (reach: Reach) => void;
}

const STEP = 0.05;

export const TOOL_NAMES: Record<ToolName, [key: string, name: string]> = {
  window: ['w', 'Window'],
  pan: ['p', 'Pan'],
  zoom: ['z', 'Zoom'],
  scroll: ['s', 'Scroll'],
  rotate: ['t', 'Turn'],
  magnify: ['m', 'Magnifier'],
  length: ['l', 'Length'],
  angle: ['a', 'Angle'],
  rectangle: ['e', 'Rectangle'],
  ellipse: ['c', 'Ellipse'],
};

const tools: Hotkey[] = Object.entries(TOOL_NAMES).map(([tool, [key, name]]) => ({
  keys: [key],
  what: `Tool of the main button: ${name}`,
  act: ({ choose }) => choose(tool as ToolName),
}));

export const HOTKEYS: Hotkey[] = [
  { keys: ['?'], what: 'This sheet', act: ({ toggle }) => toggle('sheet') },
  ...tools,
  ...[1, 2, 3, 4, 5, 6].map((number) => ({
    keys: [String(number)],
    what: `Window preset ${number}`,
    act: ({ pane, presets }: Reach) => {
      const preset = presets[number - 1];
      if (preset !== undefined) setWindow(pane, preset);
    },
  })),
  { keys: ['Shift+ArrowUp'], what: 'Window: darker', act: ({ pane }) => changeWindow(pane, { center: STEP }) },
  { keys: ['Shift+ArrowDown'], what: 'Window: brighter', act: ({ pane }) => changeWindow(pane, { center: -STEP }) },
  { keys: ['Shift+ArrowRight'], what: 'Window: wider', act: ({ pane }) => changeWindow(pane, { width: STEP }) },
  { keys: ['Shift+ArrowLeft'], what: 'Window: narrower', act: ({ pane }) => changeWindow(pane, { width: -STEP }) },
  { keys: ['i'], what: 'Invert', act: ({ pane }) => invert(pane) },
  { keys: ['+', '='], what: 'Larger', act: ({ pane }) => zoomBy(pane, 1.25) },
  { keys: ['-'], what: 'Smaller', act: ({ pane }) => zoomBy(pane, 0.8) },
  { keys: ['ArrowLeft'], what: 'Move left', act: ({ pane }) => panBy(pane, -STEP, 0) },
  { keys: ['ArrowRight'], what: 'Move right', act: ({ pane }) => panBy(pane, STEP, 0) },
  { keys: ['ArrowUp'], what: 'Move up', act: ({ pane }) => panBy(pane, 0, -STEP) },
  { keys: ['ArrowDown'], what: 'Move down', act: ({ pane }) => panBy(pane, 0, STEP) },
  { keys: ['PageUp'], what: 'Image before', act: ({ pane }) => void scrollBy(pane, -1) },
  { keys: ['PageDown'], what: 'Image after', act: ({ pane }) => void scrollBy(pane, 1) },
  { keys: ['r'], what: 'Turn right by 90°', act: ({ pane }) => rotate(pane, 90) },
  { keys: ['Shift+R'], what: 'Turn left by 90°', act: ({ pane }) => rotate(pane, -90) },
  { keys: ['h'], what: 'Flip left and right', act: ({ pane }) => flip(pane, 'horizontal') },
  { keys: ['v'], what: 'Flip top and bottom', act: ({ pane }) => flip(pane, 'vertical') },
  { keys: ['0'], what: 'Reset', act: ({ pane }) => reset(pane) },
  { keys: ['o'], what: 'Hide or show overlays and measurements', act: ({ toggle }) => toggle('overlays') },
  { keys: ['b'], what: 'Two images side by side, or one', act: ({ toggle }) => toggle('beside') },
  { keys: ['k'], what: 'Link the two images, or not', act: ({ toggle }) => toggle('linked') },
  { keys: ['Delete'], what: 'Remove all measurements', act: () => clearMeasurements() },
];

/** What a key that was pressed does, or nothing. */
export function hotkeyOf(event: KeyboardEvent): Hotkey | undefined {
  if (event.ctrlKey || event.altKey || event.metaKey) return undefined;
  const shifted = event.shiftKey && (event.key.startsWith('Arrow') || /^[A-Z]$/.test(event.key));
  const pressed = shifted ? `Shift+${event.key}` : event.key;
  return HOTKEYS.find((each) => each.keys.includes(pressed));
}
